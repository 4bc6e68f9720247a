"""Objects of pixels in memory, connected by edges alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as skimage_label

from tests.evaluation.making import picture
from tilepipe.models.object_rule import REACH, ObjectRule
from tilepipe.objects.rules import BORDER
from tilepipe.objects.whole import filled, number_parts


def by_edges(parts: NDArray[Any], **rule: Any) -> NDArray[np.int64]:
    return number_parts(parts.astype(np.uint8), ObjectRule(**rule), corners=False)


def grown(*rows: str, reach: int = REACH) -> NDArray[np.int64]:
    """The objects of a picture, where 2 is the border."""
    labels = picture(*rows)
    parts = np.where(labels == 2, BORDER, labels)
    return by_edges(parts, method="seeded", border="border", reach=reach)


@pytest.mark.parametrize("density", [0.2, 0.5, 0.7])
def test_objects_are_what_edges_connect(density: float) -> None:
    labels = np.random.default_rng(0).random((60, 70)) < density
    assert (by_edges(labels) == skimage_label(labels, connectivity=1)).all()


def test_small_objects_are_left_out_and_numbers_have_no_gaps() -> None:
    objects = by_edges(picture("1011", "0011", "1100"), min_area=2)
    assert objects.tolist() == picture("0011", "0011", "2200").tolist()


def test_border_pixels_go_to_the_nearest_object() -> None:
    assert grown("112221122", "000000000")[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]


def test_an_object_grows_no_further_than_it_may() -> None:
    assert grown("122222222", reach=3)[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_an_object_does_not_grow_across_the_background() -> None:
    assert grown("1022")[0].tolist() == [1, 0, 0, 0]


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_holes_are_connected_as_objects_are_not(seed: int, corners: bool) -> None:
    rng = np.random.default_rng(seed)
    parts = (rng.random(rng.integers(1, 12, 2)) < 0.6).astype(np.uint8)
    whole = ndimage.binary_fill_holes(parts, None if corners else np.ones((3, 3)))
    assert (filled(parts, corners=corners) == whole).all()
