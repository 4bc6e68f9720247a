"""Objects found window by window are those of the whole."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from tests.evaluation.making import picture
from tests.objects import oracle
from tilepipe.evaluation.objects import FoundObjects
from tilepipe.grid import Window, WindowGrid
from tilepipe.models.object_rule import REACH, Method, ObjectRule
from tilepipe.objects.rules import BORDER
from tilepipe.objects.whole import number_parts


def found(
    parts: NDArray[Any],
    method: Method = "components",
    *,
    fill_holes: bool = False,
    side: int = 64,
    tile: tuple[int, int] = (64, 64),
) -> NDArray[np.int64]:
    """The objects of parts, written and read in tiles, and found in windows of another side."""
    parts = parts.astype(np.uint8)
    height, width = parts.shape
    grid = WindowGrid(Window(0, 0, height, width), (min(tile[0], height), min(tile[1], width)))
    blocks = ((window, parts[window.slices()]) for window in grid)
    numbers = np.zeros(parts.shape, np.int64)
    with TemporaryDirectory() as folder:
        objects = FoundObjects(
            Path(folder), (height, width), blocks, method, fill_holes=fill_holes, side=side
        )
        for window in grid:
            numbers[window.slices()] = objects.read(window)
    return numbers


def with_holes_filled(numbers: NDArray[Any]) -> NDArray[np.int64]:
    """Each object filled by itself; an object inside of another remains an object."""
    out = numbers.copy()
    for number in np.unique(numbers[numbers > 0]):
        hole = ndimage.binary_fill_holes(numbers == number, np.ones((3, 3))) & (numbers == 0)
        # Of several around a pixel, the innermost has it: it comes after those around it.
        out[hole] = number
    return out


@settings(deadline=None, max_examples=10)
@given(
    st.integers(0, 2**32 - 1), st.tuples(st.integers(8, 50), st.integers(8, 50)),
    st.integers(16, 50), st.booleans(), st.booleans(), st.sampled_from([1, 5]),
)  # fmt: skip
def test_objects_of_windows_are_those_of_the_whole(
    seed: int, tile: tuple[int, int], side: int, border: bool, fill_holes: bool, scale: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 60, 2)
    inside = rng.random(shape) < rng.choice([0.3, 0.6, 0.8, 0.95])
    other = np.where(rng.random(shape) < 0.6, BORDER if border else 0, 0)
    parts = np.where(inside, 1, other).astype(np.uint8)
    parts = np.kron(parts, np.ones((scale, scale), np.uint8))[:90, :90]
    expected = oracle.numbered(ndimage.label(parts == 1)[0])
    if fill_holes:
        expected = with_holes_filled(expected)
    if border:
        expected = oracle.grown(expected, parts == BORDER, REACH)
    method: Method = "seeded" if border else "components"
    numbers = found(parts, method, fill_holes=fill_holes, side=side, tile=tile)
    assert (numbers == expected).all()


@pytest.mark.parametrize("fill_holes", [False, True])
def test_split_objects_are_those_of_a_run(fill_holes: bool) -> None:
    blobs = ndimage.gaussian_filter(np.random.default_rng(3).random((150, 170)), 4) > 0.5
    blobs &= np.random.default_rng(4).random(blobs.shape) < 0.998
    rule = ObjectRule("split", fill_holes=fill_holes)
    numbers = found(blobs, "split", fill_holes=fill_holes, tile=(50, 170))
    assert (numbers == number_parts(blobs.astype(np.uint8), rule)).all()


def test_holes_belong_to_what_encloses_them_and_islands_stay_themselves() -> None:
    labels = picture("1111111", "1000001", "1011101", "1010101", "1011101", "1000001", "1111111")
    for side in (64, 3):
        objects = found(labels, fill_holes=True, side=side)
        assert (objects[3, 3], objects[1, 1], objects[2, 2]) == (2, 1, 2)
        assert (objects > 0).all()
    open_at_the_edge = picture("111", "100", "111")
    assert (found(open_at_the_edge, fill_holes=True) == open_at_the_edge).all()


def test_more_pieces_than_a_window_has_pixels_at_its_edge() -> None:
    labels = np.indices((64, 64)).sum(0) % 2
    assert found(labels, side=16).max() == 64 * 64 // 2
