"""Objects cut out of labels that fit in memory."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label as skimage_label

from tests.evaluation.making import picture
from tilepipe.objects.labelling import objects_from_labels


@pytest.mark.parametrize("density", [0.2, 0.5, 0.7])
def test_objects_are_what_edges_connect(density: float) -> None:
    labels = (np.random.default_rng(0).random((60, 70)) < density).astype(np.uint8)
    expected = skimage_label(labels, connectivity=1)
    assert (objects_from_labels(labels, 1) == expected).all()


def test_small_objects_are_left_out_and_numbers_have_no_gaps() -> None:
    objects = objects_from_labels(picture("1011", "0011", "1100"), 1, min_size=2)
    assert objects.tolist() == picture("0011", "0011", "2200").tolist()


def test_holes_belong_to_what_encloses_them_and_islands_stay_themselves() -> None:
    labels = picture("1111111", "1000001", "1011101", "1010101", "1011101", "1000001", "1111111")
    objects = objects_from_labels(labels, 1, fill_holes=True)
    assert (objects[3, 3], objects[1, 1], objects[2, 2]) == (2, 1, 2)
    assert (objects > 0).all()
    open_at_the_edge = picture("111", "100", "111")
    assert (objects_from_labels(open_at_the_edge, 1, fill_holes=True) == open_at_the_edge).all()


def test_border_pixels_go_to_the_nearest_object() -> None:
    objects = objects_from_labels(picture("112221122", "000000000"), 1, border_class=2)
    assert objects[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]


def test_an_object_grows_no_further_than_it_may() -> None:
    objects = objects_from_labels(picture("122222222"), 1, border_class=2, border_reach=3)
    assert objects[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_an_object_does_not_grow_across_the_background() -> None:
    assert objects_from_labels(picture("1022"), 1, border_class=2)[0].tolist() == [1, 0, 0, 0]
