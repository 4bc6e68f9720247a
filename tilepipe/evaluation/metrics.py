"""Counts from which every pixel metric follows: what was predicted where the truth is known.

Counts add up: over the windows of a mask, over masks, over the batches of a validation set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.products.base import NO_ANSWER

LABELS = 256
"""Labels are 0 .. 255."""

_AT_A_TIME = 1 << 20
"""Pixels counted together: few enough that the copies made of them stay in the cache."""


class Confusion:
    """Pixels by true and by predicted class.

    Parameters
    ----------
    classes : int
        How many there are, 1 .. 255.

    Attributes
    ----------
    matrix : ndarray of int64, shape (classes, classes)
        Pixels; rows are the truth, columns the prediction.
    unanswered : ndarray of int64, shape (classes,)
        Pixels of each true class for which the prediction has no answer; not in `matrix`.
    ignored : int
        Pixels without a truth; counted nowhere else.
    """

    def __init__(self, classes: int) -> None:
        if not 1 <= classes < LABELS:
            raise ValueError(f"there are 1 to {LABELS - 1} classes, not {classes}")
        self.classes = classes
        self.matrix: NDArray[np.int64] = np.zeros((classes, classes), np.int64)
        self.unanswered: NDArray[np.int64] = np.zeros(classes, np.int64)
        self.ignored = 0

    def add(self, predicted: NDArray[Any], truth: NDArray[Any]) -> None:
        """Count the pixels of two arrays of the same shape.

        Parameters
        ----------
        predicted, truth : ndarray of integers or booleans
            Labels ``0 .. classes - 1``; 255 is "no answer" in the prediction, "ignore" in the
            truth.

        Raises
        ------
        ValueError
            When the shapes differ, or a label is no class.
        """
        joint = joint_histogram(predicted, truth)
        for name, seen in (("predicted", joint.sum(0)), ("true", joint.sum(1))):
            beyond = np.flatnonzero(seen[self.classes : NO_ANSWER])
            if beyond.size:
                label = int(beyond[0]) + self.classes
                raise ValueError(f"the {name} label {label} is none of {self.classes} classes")
        known = joint[: self.classes]
        self.matrix += known[:, : self.classes]
        self.unanswered += known[:, NO_ANSWER]
        self.ignored += int(joint[NO_ANSWER].sum())

    def merge(self, other: Confusion) -> None:
        """Take the counts of another in.

        Raises
        ------
        ValueError
            When it has another number of classes.
        """
        if other.classes != self.classes:
            raise ValueError(f"counts of {other.classes} classes do not add to {self.classes}")
        self.matrix += other.matrix
        self.unanswered += other.unanswered
        self.ignored += other.ignored

    def __add__(self, other: Confusion) -> Confusion:
        total = Confusion(self.classes)
        total.merge(self)
        total.merge(other)
        return total

    def answering(self, label: int) -> Confusion:
        """The same counts, with class ``label`` wherever the prediction has no answer."""
        filled = Confusion(self.classes)
        filled.matrix = self.matrix.copy()
        filled.matrix[:, label] += self.unanswered
        filled.ignored = self.ignored
        return filled

    @property
    def pixels(self) -> int:
        """Pixels with a truth and an answer."""
        return int(self.matrix.sum())

    @property
    def no_answer(self) -> int:
        """Pixels with a truth, but without an answer."""
        return int(self.unanswered.sum())

    @property
    def true(self) -> NDArray[np.int64]:
        """Pixels that are of each class."""
        return np.asarray(self.matrix.sum(1))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Pixels that were said to be of each class."""
        return np.asarray(self.matrix.sum(0))

    @property
    def hits(self) -> NDArray[np.int64]:
        """Pixels of each class that were said to be of it."""
        return self.matrix.diagonal()

    @property
    def dice(self) -> NDArray[np.float64]:
        """2 hits / (true + predicted) of each class; NaN where there is neither."""
        return _ratio(2 * self.hits, self.true + self.predicted)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union (Jaccard index) of each class; NaN where the union is empty."""
        return _ratio(self.hits, self.true + self.predicted - self.hits)

    @property
    def precision(self) -> NDArray[np.float64]:
        """The share of what was said to be of a class that is; NaN where nothing was."""
        return _ratio(self.hits, self.predicted)

    @property
    def recall(self) -> NDArray[np.float64]:
        """The share of a class that was said to be of it; NaN where nothing is."""
        return _ratio(self.hits, self.true)

    @property
    def accuracy(self) -> float:
        """The share of all pixels whose class is right; NaN where there are none."""
        return float(_ratio(self.hits.sum(), self.matrix.sum()))


@dataclass(slots=True)
class Errors:
    """Differences of predicted from true values; what is not finite on either side is left out."""

    count: int = 0
    """Values compared."""
    left_out: int = 0
    absolute: float = 0.0
    """Sum of absolute differences."""
    squared: float = 0.0
    """Sum of squared differences."""
    signed: float = 0.0
    """Sum of differences, predicted minus true."""

    def add(self, predicted: NDArray[Any], truth: NDArray[Any]) -> None:
        """Take in two arrays of numbers, of the same shape.

        Raises
        ------
        ValueError
            When the shapes differ.
        """
        _require_same_shape(predicted, truth)
        difference = (predicted.astype(np.float64) - truth).ravel()
        difference = difference[np.isfinite(difference)]
        self.count += difference.size
        self.left_out += predicted.size - difference.size
        self.absolute += float(np.abs(difference).sum())
        self.squared += float(difference @ difference)
        self.signed += float(difference.sum())

    def merge(self, other: Errors) -> None:
        """Take the sums of another in."""
        self.count += other.count
        self.left_out += other.left_out
        self.absolute += other.absolute
        self.squared += other.squared
        self.signed += other.signed

    def __add__(self, other: Errors) -> Errors:
        total = Errors()
        total.merge(self)
        total.merge(other)
        return total

    @property
    def mae(self) -> float:
        """Mean absolute error; NaN where nothing was compared."""
        return self.absolute / self.count if self.count else math.nan

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return math.sqrt(self.squared / self.count) if self.count else math.nan

    @property
    def bias(self) -> float:
        """Mean of predicted minus true."""
        return self.signed / self.count if self.count else math.nan


def joint_histogram(
    predicted: NDArray[Any], truth: NDArray[Any], labels: int = LABELS
) -> NDArray[np.int64]:
    """How often each pair of labels occurs: shape (labels, labels), rows are the truth.

    Parameters
    ----------
    predicted, truth : ndarray of integers or booleans
        Of the same shape.
    labels : int
        How many there are: 0 .. ``labels - 1``.

    Raises
    ------
    ValueError
        When the shapes differ, or a label is beyond those.
    """
    _require_same_shape(predicted, truth)
    flat_truth, flat_predicted = truth.reshape(-1), predicted.reshape(-1)
    for name, flat in (("predicted", flat_predicted), ("true", flat_truth)):
        _require_labels(name, flat, labels)
    joint = np.zeros(labels * labels, np.int64)
    for start in range(0, flat_truth.size, _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        codes = flat_truth[part].astype(np.uint32)
        codes *= np.uint32(labels)
        codes += flat_predicted[part].astype(np.uint32)
        joint += np.bincount(codes, minlength=joint.size)
    return joint.reshape(labels, labels)


def mean(scores: NDArray[np.float64]) -> float:
    """The mean of what is defined; NaN where nothing is."""
    defined = scores[~np.isnan(scores)]
    return float(defined.mean()) if defined.size else math.nan


def _require_labels(name: str, values: NDArray[Any], labels: int) -> None:
    if values.dtype.kind not in "uib":
        raise ValueError(f"the {name} labels are {values.dtype}, no integers")
    if values.size == 0 or (values.dtype.itemsize == 1 and values.dtype.kind != "i"):
        return
    least, largest = int(values.min()), int(values.max())
    if least < 0 or largest >= labels:
        wrong = least if least < 0 else largest
        raise ValueError(f"the {name} label {wrong} is not within 0 .. {labels - 1}")


def _require_same_shape(predicted: NDArray[Any], truth: NDArray[Any]) -> None:
    if predicted.shape != truth.shape:
        raise ValueError(f"a prediction of {predicted.shape} is not of a truth of {truth.shape}")


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
