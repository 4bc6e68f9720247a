"""Pixel metrics, against cases worked by hand and against sets of pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilepipe.evaluation.metrics import Confusion, Errors, joint_histogram, mean

TRUTH = np.array([[0, 0, 1, 1], [0, 2, 1, 255]], np.uint8)
SAID = np.array([[0, 1, 1, 0], [255, 2, 1, 1]], np.uint8)


def counted(predicted: NDArray[np.generic], truth: NDArray[np.generic], classes: int) -> Confusion:
    confusion = Confusion(classes)
    confusion.add(predicted, truth)
    return confusion


def test_a_case_worked_by_hand() -> None:
    confusion = counted(SAID, TRUTH, 4)
    assert confusion.matrix.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert confusion.unanswered.tolist() == [1, 0, 0, 0]
    assert confusion.ignored == 1
    np.testing.assert_allclose(confusion.dice, [2 / 4, 4 / 6, 1, np.nan])
    np.testing.assert_allclose(confusion.iou, [1 / 3, 2 / 4, 1, np.nan])
    np.testing.assert_allclose(confusion.precision, [1 / 2, 2 / 3, 1, np.nan])
    np.testing.assert_allclose(confusion.recall, [1 / 2, 2 / 3, 1, np.nan])
    assert confusion.accuracy == 4 / 6
    assert mean(confusion.dice) == pytest.approx((0.5 + 2 / 3 + 1) / 3)


def test_pixels_without_an_answer_can_count_as_a_class() -> None:
    confusion = counted(SAID, TRUTH, 3).answering(0)
    assert confusion.matrix[0].tolist() == [2, 1, 0]
    assert confusion.no_answer == 0


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.booleans())
def test_metrics_are_those_of_sets_of_pixels(classes: int, seed: int, wide: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = np.array([*range(classes), 255])
    said, true = rng.choice(labels, (2, 9, 11)).astype(np.int32 if wide else np.uint8)
    confusion = counted(said, true, classes)
    pixels = [(y, x) for y in range(9) for x in range(11)]
    known = {p for p in pixels if true[p] != 255 and said[p] != 255}
    for label in range(classes):
        a, b = {p for p in known if said[p] == label}, {p for p in known if true[p] == label}
        expected = (
            2 * len(a & b) / (len(a) + len(b)) if a or b else math.nan,
            len(a & b) / len(a | b) if a or b else math.nan,
            len(a & b) / len(a) if a else math.nan,
            len(a & b) / len(b) if b else math.nan,
        )
        found = (confusion.dice, confusion.iou, confusion.precision, confusion.recall)
        np.testing.assert_allclose([f[label] for f in found], expected, equal_nan=True)
    assert confusion.pixels == len(known)
    assert confusion.pixels + confusion.no_answer + confusion.ignored == said.size


@given(st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_counts_of_windows_add_up_to_those_of_the_whole(seed: int, cut: int) -> None:
    said, true = np.random.default_rng(seed).integers(0, 3, (2, 20, 7)).astype(np.uint8)
    parts = counted(said[:cut], true[:cut], 3) + counted(said[cut:], true[cut:], 3)
    assert (parts.matrix == counted(said, true, 3).matrix).all()


def test_more_pixels_than_are_counted_at_a_time() -> None:
    said, true = np.random.default_rng(0).integers(0, 256, (2, 1300, 1700)).astype(np.uint8)
    joint = joint_histogram(said, true)
    assert joint.sum() == said.size
    assert joint[7, 9] == ((true == 7) & (said == 9)).sum()


@pytest.mark.parametrize("label", [3, 254])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match=f"predicted label {label} is not one of 3"):
        counted(np.array([label]), np.array([0]), 3)
    with pytest.raises(ValueError, match=f"true label {label} is not one of 3"):
        counted(np.array([0]), np.array([label]), 3)


@pytest.mark.parametrize("label", [-1, 256, 100_000])
def test_a_label_beyond_a_byte_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match=str(label)):
        counted(np.array([0]), np.array([label]), 3)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="has no truth of"):
        counted(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)
    with pytest.raises(ValueError, match="float64"):
        counted(np.zeros(3), np.zeros(3, np.uint8), 2)
    with pytest.raises(ValueError, match="do not add up"):
        Confusion(2) + Confusion(3)


def test_errors_of_values_leave_out_what_is_none() -> None:
    errors = Errors()
    errors.add(np.array([1.0, 2.0, np.nan, 5.0]), np.array([0.0, 4.0, 1.0, np.nan]))
    errors = errors + Errors()
    assert (errors.count, errors.left_out) == (2, 2)
    assert (errors.mae, errors.bias) == (1.5, -0.5)
    assert errors.rmse == pytest.approx(math.sqrt(2.5))
    assert math.isnan(Errors().rmse)
