"""Counts of pixels by true and predicted class, and the scores that follow from them.

Counts add up: over the windows of a mask, over masks, over the images of a validation set.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.products.base import NO_ANSWER

LABELS = 256
"""Labels are 0 .. 255."""

_AT_A_TIME = 1 << 20
"""Pixels counted at a time: few enough that copies of them stay in the cache."""


class Confusion:
    """Pixels by true and by predicted class.

    Parameters
    ----------
    classes : int
        The number of classes, 1 .. 255.

    Attributes
    ----------
    matrix : ndarray of int64, shape (classes, classes)
        Number of pixels; rows are the truth, columns the prediction.
    unanswered : ndarray of int64, shape (classes,)
        Pixels of each true class without an answer; they are not in `matrix`.
    ignored : int
        Pixels without a truth; they are counted nowhere else.
    """

    def __init__(self, classes: int) -> None:
        if not 1 <= classes < LABELS:
            raise ValueError(f"there must be 1 to {LABELS - 1} classes, not {classes}")
        self.classes = classes
        self.matrix: NDArray[np.int64] = np.zeros((classes, classes), np.int64)
        self.unanswered: NDArray[np.int64] = np.zeros(classes, np.int64)
        self.ignored = 0

    def add(self, predicted: NDArray[Any], truth: NDArray[Any]) -> None:
        """Count the pixels of two arrays of one shape.

        Parameters
        ----------
        predicted, truth : ndarray of integers or booleans
            Labels ``0 .. classes - 1``; 255 is "no answer" in the prediction, "ignore" in the
            truth.

        Raises
        ------
        ValueError
            The shapes differ, or a label is not a class.
        """
        joint = joint_histogram(predicted, truth)
        for name, counts in (("predicted", joint.sum(0)), ("true", joint.sum(1))):
            beyond = np.flatnonzero(counts[self.classes : NO_ANSWER])
            if beyond.size:
                label = int(beyond[0]) + self.classes
                raise ValueError(f"the {name} label {label} is not one of {self.classes} classes")
        known = joint[: self.classes]
        self.matrix += known[:, : self.classes]
        self.unanswered += known[:, NO_ANSWER]
        self.ignored += int(joint[NO_ANSWER].sum())

    def __add__(self, other: Confusion) -> Confusion:
        if other.classes != self.classes:
            raise ValueError(f"counts of {other.classes} and {self.classes} classes do not add up")
        total = Confusion(self.classes)
        total.matrix = self.matrix + other.matrix
        total.unanswered = self.unanswered + other.unanswered
        total.ignored = self.ignored + other.ignored
        return total

    def answering(self, label: int) -> Confusion:
        """The same counts, with ``label`` as the prediction wherever there is no answer."""
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
        """Pixels with a truth but no answer."""
        return int(self.unanswered.sum())

    @property
    def true(self) -> NDArray[np.int64]:
        """Pixels whose true class is each class."""
        return np.asarray(self.matrix.sum(1))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Pixels whose predicted class is each class."""
        return np.asarray(self.matrix.sum(0))

    @property
    def hits(self) -> NDArray[np.int64]:
        """Pixels of each class that were predicted correctly."""
        return self.matrix.diagonal()

    @property
    def dice(self) -> NDArray[np.float64]:
        """2 hits / (true + predicted) of each class; NaN if there is neither."""
        return _ratio(2 * self.hits, self.true + self.predicted)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union (Jaccard index) of each class; NaN if the union is empty."""
        return _ratio(self.hits, self.true + self.predicted - self.hits)

    @property
    def precision(self) -> NDArray[np.float64]:
        """The share of the pixels predicted as a class that are of it; NaN if there are none."""
        return _ratio(self.hits, self.predicted)

    @property
    def recall(self) -> NDArray[np.float64]:
        """The share of the pixels of a class that were predicted as it; NaN if there are none."""
        return _ratio(self.hits, self.true)

    @property
    def accuracy(self) -> float:
        """The share of all pixels whose class was predicted correctly; NaN if there are none."""
        return float(_ratio(self.hits.sum(), self.matrix.sum()))


@dataclass(slots=True)
class Errors:
    """Differences of predicted and true values; those that are not finite are left out."""

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
        """Add two arrays of numbers, of one shape.

        Raises
        ------
        ValueError
            The shapes differ.
        """
        _require_same_shape(predicted, truth)
        difference = (predicted.astype(np.float64) - truth).ravel()
        difference = difference[np.isfinite(difference)]
        self.count += difference.size
        self.left_out += predicted.size - difference.size
        self.absolute += float(np.abs(difference).sum())
        self.squared += float(difference @ difference)
        self.signed += float(difference.sum())

    def __add__(self, other: Errors) -> Errors:
        return Errors(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def mae(self) -> float:
        """Mean absolute error; NaN if nothing was compared."""
        return self.absolute / self.count if self.count else math.nan

    @property
    def rmse(self) -> float:
        """Root mean squared error; NaN if nothing was compared."""
        return math.sqrt(self.squared / self.count) if self.count else math.nan

    @property
    def bias(self) -> float:
        """Mean of predicted minus true values; NaN if nothing was compared."""
        return self.signed / self.count if self.count else math.nan


def joint_histogram(
    predicted: NDArray[Any], truth: NDArray[Any], labels: int = LABELS
) -> NDArray[np.int64]:
    """How often each pair of labels occurs: shape (labels, labels), rows are the truth.

    Parameters
    ----------
    predicted, truth : ndarray of integers or booleans
        Labels, in arrays of one shape.
    labels : int
        The number of labels, 0 .. ``labels - 1``.

    Raises
    ------
    ValueError
        The shapes differ, or there are other labels.
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
    """The mean of the scores that are defined; NaN if none is."""
    defined = scores[~np.isnan(scores)]
    return float(defined.mean()) if defined.size else math.nan


def _require_labels(name: str, values: NDArray[Any], labels: int) -> None:
    if values.dtype.kind not in "uib":
        raise ValueError(f"the {name} labels are {values.dtype}, not integers")
    if values.size == 0 or (values.dtype.itemsize == 1 and values.dtype.kind != "i"):
        return
    least, largest = int(values.min()), int(values.max())
    if least < 0 or largest >= labels:
        wrong = least if least < 0 else largest
        raise ValueError(f"the {name} label {wrong} is not within 0 .. {labels - 1}")


def _require_same_shape(predicted: NDArray[Any], truth: NDArray[Any]) -> None:
    if predicted.shape != truth.shape:
        raise ValueError(f"a prediction of {predicted.shape} has no truth of {truth.shape}")


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
