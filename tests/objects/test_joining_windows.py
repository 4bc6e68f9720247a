"""Every small mask, cut into windows in every way, has the objects of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tests.objects import oracle
from tests.objects.windows import joined

Mask = NDArray[np.uint8]
CORNERS = np.ones((3, 3), bool)


def masks(height: int, width: int) -> Iterator[Mask]:
    """All masks of a shape."""
    for bits in product((0, 1), repeat=height * width):
        yield np.array(bits, np.uint8).reshape(height, width)


def tiles(mask: Mask) -> Iterator[tuple[int, int]]:
    """All shapes of windows that can cut a mask."""
    yield from product(range(1, mask.shape[0] + 1), range(1, mask.shape[1] + 1))


def assert_components_are_whole(mask: Mask, *, corners: bool) -> None:
    expected = oracle.numbered(ndimage.label(mask, CORNERS if corners else None)[0])
    for tile in tiles(mask):
        assert np.array_equal(joined(mask, tile, corners=corners), expected), (mask, tile)


@pytest.mark.parametrize("corners", [True, False])
def test_components_of_all_masks_of_2_by_3(corners: bool) -> None:
    for mask in masks(2, 3):
        assert_components_are_whole(mask, corners=corners)


@pytest.mark.slow
def test_components_of_all_masks_of_3_by_3() -> None:
    for mask in masks(3, 3):
        assert_components_are_whole(mask, corners=True)


@pytest.mark.slow
def test_split_objects_of_all_masks_of_2_by_4() -> None:
    for mask in masks(2, 4):
        expected = oracle.split(mask, 1 / 64)
        for tile in tiles(mask):
            assert np.array_equal(joined(mask, tile, depth=1 / 64), expected), (mask, tile)


@pytest.mark.parametrize("tile", [(1, 1), (1, 2), (2, 1)])
def test_a_corner_in_which_four_windows_meet_connects(tile: tuple[int, int]) -> None:
    for mask in (np.eye(2, dtype=np.uint8), np.eye(2, dtype=np.uint8)[::-1]):
        assert joined(mask, tile).max() == 1
        assert joined(mask, tile, corners=False).max() == 2


@pytest.mark.parametrize("tile", [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_two_classes_that_cross_in_a_corner_stay_two_objects_each_whole(
    tile: tuple[int, int],
) -> None:
    mask = np.array([[1, 2, 1], [2, 1, 2], [1, 2, 1]], np.uint8)
    assert joined(mask, tile).tolist() == [[1, 2, 1], [2, 1, 2], [1, 2, 1]]


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
def test_a_spiral_through_all_windows_is_one_object(side: int) -> None:
    mask = np.zeros((17, 17), np.uint8)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = 1
    for length in (16, 16, 16, 14, 14, 12, 12, 10, 10, 8, 8, 6, 6, 4, 4, 2, 2):
        for _ in range(length):
            y, x = y + dy, x + dx
            mask[y, x] = 1
        dy, dx = dx, -dy
    found = joined(mask, (side, side))
    assert found.max() == 1
    assert np.array_equal(found, mask)
