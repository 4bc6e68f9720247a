"""Objects: cut out of labels, compared; against brute force, and whole against stitched."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.measure import label as skimage_label

from tests.evaluation.making import brute_force, discs
from tilepipe.errors import InputError
from tilepipe.evaluation.label_maps import Grid
from tilepipe.evaluation.objects import ObjectCounts, objects_from_labels
from tilepipe.evaluation.stitching import OverlapTally, StitchedObjects


def picture(*rows: str) -> NDArray[np.uint8]:
    return np.array([[int(c) if c.isdigit() else 0 for c in row] for row in rows], np.uint8)


def same_objects(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two numberings tell the same objects."""
    if ((one > 0) != (other > 0)).any():
        return False
    pairs = np.unique(np.stack((one[one > 0], other[one > 0])), axis=1)
    return all(np.unique(side).size == pairs.shape[1] for side in pairs)


def test_a_case_worked_by_hand() -> None:
    truth = picture("11110000", "11110220", "00000220", "33000000")
    predicted = picture("11100000", "11100000", "00000040", "00000055")
    counts = ObjectCounts.of(predicted, truth)
    # 1 meets 1 with IoU 6/8; 2 meets 4 with 1/4, no match; 3 meets nothing, and 5 is not there.
    assert (counts.true_positives, counts.false_positives, counts.false_negatives) == (1, 2, 2)
    assert counts.f1 == 2 / (2 + 2 + 2)
    assert (counts.precision, counts.recall) == (1 / 3, 1 / 3)
    assert counts.aji == (6 + 1) / (8 + 4 + 2 + 2)


def test_one_predicted_object_may_serve_two_true_ones_in_the_aji() -> None:
    counts = ObjectCounts.of(picture("1111"), picture("1122"))
    assert (counts.true_positives, counts.false_positives, counts.false_negatives) == (0, 1, 2)
    assert counts.aji == (2 + 2) / (4 + 4)


def test_an_iou_of_just_half_is_no_match() -> None:
    assert ObjectCounts.of(picture("11"), picture("10")).true_positives == 0


def test_no_objects_at_all_have_no_score() -> None:
    counts = ObjectCounts.of(picture("00"), picture("00"))
    assert math.isnan(counts.f1)
    assert math.isnan(counts.aji)


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_brute_force(seed: int) -> None:
    truth, predicted = discs(seed), discs(seed + 100)
    if seed % 2:
        moved = np.roll(truth, (seed % 3, 2), (0, 1))
        predicted = np.where(np.random.default_rng(seed).random(truth.shape) < 0.1, 0, moved)
    c = ObjectCounts.of(predicted, truth)
    found = (c.true_positives, c.false_positives, c.false_negatives, c.common, c.union)
    assert found == brute_force(predicted, truth)


def test_counts_of_images_add_up_as_if_they_lay_side_by_side() -> None:
    one, other = (discs(1), discs(2)), (discs(3), discs(4))
    predicted = np.hstack((one[0], np.where(other[0] > 0, other[0] + 100, 0)))
    truth = np.hstack((one[1], np.where(other[1] > 0, other[1] + 100, 0)))
    assert ObjectCounts.of(*one) + ObjectCounts.of(*other) == ObjectCounts.of(predicted, truth)


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


def stitched(
    labels: NDArray[np.uint8], tile: tuple[int, int], *, border: bool, fill_holes: bool
) -> tuple[StitchedObjects, Grid]:
    grid = Grid((labels.shape[0], labels.shape[1]), tile)

    def read(window: Any) -> NDArray[np.uint8]:
        return labels[window.slices()]

    return StitchedObjects(read, grid, border=border, fill_holes=fill_holes, memory=1 << 30), grid


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.integers(8, 50), st.integers(8, 50),
    st.booleans(), st.booleans(), st.sampled_from([1, 5]),
)  # fmt: skip
def test_stitched_objects_are_those_of_the_whole(
    seed: int, rows: int, columns: int, border: bool, fill_holes: bool, scale: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 60, 2)
    inside = rng.random(shape) < rng.choice([0.3, 0.6, 0.8, 0.95])
    labels = np.where(inside, 1, np.where(rng.random(shape) < 0.6, 2, 0)).astype(np.uint8)
    labels = np.kron(labels, np.ones((scale, scale), np.uint8))[:90, :90]
    tile = min(rows, labels.shape[0]), min(columns, labels.shape[1])
    objects, grid = stitched(labels, tile, border=border, fill_holes=fill_holes)
    whole = objects_from_labels(labels, 1, 2 if border else None, fill_holes=fill_holes)
    found = np.zeros(labels.shape, np.int64)
    for window in grid:
        found[window.slices()] = objects.read(window)
    assert same_objects(whole, found)


@pytest.mark.parametrize("min_size", [0, 40])
@pytest.mark.parametrize("seed", range(5))
def test_what_objects_share_adds_up_over_windows(seed: int, min_size: int) -> None:
    truth, labels = discs(seed), (discs(seed + 50, count=12) > 0).astype(np.uint8)
    objects, grid = stitched(labels, (17, 23), border=False, fill_holes=False)
    left_out = np.random.default_rng(seed).random(truth.shape) < 0.2
    tally = OverlapTally(min_size)
    for window in grid:
        tally.add(objects.read(window), truth[window.slices()], ~left_out[window.slices()])
    whole = objects_from_labels(labels, 1, min_size=min_size)
    expected = ObjectCounts.of(np.where(left_out, 0, whole), np.where(left_out, 0, truth))
    assert ObjectCounts.from_overlaps(tally.overlaps()) == expected


def test_more_pieces_than_the_memory_holds_are_refused() -> None:
    labels = np.indices((64, 64)).sum(0) % 2
    with pytest.raises(InputError, match="--memory"):
        StitchedObjects(
            lambda window: labels[window.slices()],
            Grid((64, 64), (32, 32)),
            border=False,
            fill_holes=False,
            memory=1000,
        )
