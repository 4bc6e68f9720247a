"""Objects compared with those of the truth, against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.evaluation.making import brute_force, discs, picture
from tilepipe.evaluation.matching import ObjectCounts, OverlapTally
from tilepipe.grid import Window, WindowGrid
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects.whole import number_parts


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


@pytest.mark.parametrize("min_size", [0, 40])
@pytest.mark.parametrize("seed", range(5))
def test_what_objects_share_adds_up_over_windows(seed: int, min_size: int) -> None:
    truth, labels = discs(seed), (discs(seed + 50, count=12) > 0).astype(np.uint8)
    whole = number_parts(labels, ObjectRule())
    left_out = np.random.default_rng(seed).random(truth.shape) < 0.2
    tally = OverlapTally(min_size)
    for window in WindowGrid(Window(0, 0, *truth.shape), (17, 23)):
        part = window.slices()
        tally.add(whole[part], truth[part], ~left_out[part])
    large = number_parts(labels, ObjectRule(min_area=min_size))
    expected = ObjectCounts.of(np.where(left_out, 0, large), np.where(left_out, 0, truth))
    assert tally.total() == expected
