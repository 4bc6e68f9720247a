"""Predicted objects compared with true ones, by their areas and the pixels that they share.

Nothing else is needed for F1 and AJI, and both kinds of counts add up over the windows of a mask.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MATCH_IOU = 0.5
"""Objects match if their IoU is above this; no object can then match two."""

_COMPACT_ABOVE = 1 << 22
"""Numbers held by a histogram before equal ones are added up."""

_HALF = 32
"""Bits of the number of the second object of a pair."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ObjectCounts:
    """How well predicted objects match true ones; the counts of several images add up."""

    true_positives: int = 0
    """Pairs of a predicted and a true object with an IoU above 0.5."""
    false_positives: int = 0
    """Predicted objects without a match."""
    false_negatives: int = 0
    """True objects without a match."""
    common: int = 0
    """Numerator of the AJI, in pixels."""
    union: int = 0
    """Denominator of the AJI, in pixels."""

    @classmethod
    def of(cls, predicted: NDArray[Any], truth: NDArray[Any]) -> ObjectCounts:
        """Compare two arrays of objects.

        Parameters
        ----------
        predicted, truth : ndarray of integers
            Arrays of one shape, in which each object has a number; 0 is no object.

        Raises
        ------
        ValueError
            The shapes differ.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"a prediction of {predicted.shape} has no truth of {truth.shape}")
        tally = OverlapTally()
        tally.add(predicted, truth)
        return tally.total()

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        return ObjectCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def precision(self) -> float:
        """The share of predicted objects that match a true one; NaN if there are none."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """The share of true objects that match a predicted one; NaN if there are none."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN if there are no objects at all."""
        return _share(
            2 * self.true_positives,
            2 * self.true_positives + self.false_positives + self.false_negatives,
        )

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index (Kumar et al. 2017, algorithm 1); NaN without any object."""
        return _share(self.common, self.union)


class OverlapTally:
    """Areas of objects and the pixels that they share, added up over windows.

    Parameters
    ----------
    min_size : int
        Predicted objects with fewer pixels do not count.
    """

    def __init__(self, min_size: int = 0) -> None:
        self._min_size = min_size
        self._sizes, self._predicted, self._true, self._pairs = (_Histogram() for _ in range(4))

    def add(
        self,
        predicted: NDArray[Any],
        truth: NDArray[Any],
        counting: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add the objects of a window: two arrays of numbers, and which pixels count [all]."""
        if self._min_size > 1:
            # The size of an object includes its pixels that do not count.
            self._sizes.add(predicted[predicted > 0])
        in_truth, in_prediction = truth > 0, predicted > 0
        if counting is not None:
            in_truth, in_prediction = in_truth & counting, in_prediction & counting
        both = in_truth & in_prediction
        self._true.add(truth[in_truth])
        self._predicted.add(predicted[in_prediction])
        self._pairs.add((predicted[both].astype(np.int64) << _HALF) | truth[both].astype(np.int64))

    def total(self) -> ObjectCounts:
        """How well the objects of all windows match."""
        numbers, areas = self._predicted.total()
        true_numbers, true_areas = self._true.total()
        if self._min_size > 1:
            sized, sizes = self._sizes.total()
            large = np.isin(numbers, sized[sizes >= self._min_size])
            numbers, areas = numbers[large], areas[large]
        pairs, common = self._pairs.total()
        kept = np.isin(pairs >> _HALF, numbers)
        pairs, common = pairs[kept], common[kept]
        predicted = np.searchsorted(numbers, pairs >> _HALF)
        true = np.searchsorted(true_numbers, pairs & ((1 << _HALF) - 1))
        iou = common / (areas[predicted] + true_areas[true] - common)
        matches = int((iou > MATCH_IOU).sum())

        # The AJI. Each true object adds its intersection and union with the predicted object of
        # the largest IoU (of equal ones the larger, then the first); several may choose the same.
        order = np.lexsort((predicted, -common, -iou, true))
        _, first = np.unique(true[order], return_index=True)
        chosen, shared = predicted[order[first]], common[order[first]]
        # Predicted objects that none chose, and true ones that overlap none, add their areas.
        unused = np.ones(areas.size, bool)
        unused[chosen] = False
        union = true_areas.sum() + (areas[chosen] - shared).sum() + areas[unused].sum()
        return ObjectCounts(
            matches, areas.size - matches, true_areas.size - matches, int(shared.sum()), int(union)
        )


class _Histogram:
    """How often each number occurs."""

    def __init__(self) -> None:
        self._parts: list[tuple[Ids, Ids]] = []
        self._held = 0

    def add(self, numbers: NDArray[Any]) -> None:
        if numbers.size == 0:
            return
        self._parts.append(_counted(numbers.astype(np.int64, copy=False)))
        self._held += self._parts[-1][0].size
        if self._held > _COMPACT_ABOVE:
            self._parts = [self.total()]
            # If that made it no smaller, it is not tried again at once.
            self._held = 0

    def total(self) -> tuple[Ids, Ids]:
        """The numbers in order, and how often each occurs."""
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        numbers, indices = np.unique(
            np.concatenate([part[0] for part in self._parts]), return_inverse=True
        )
        counts = np.zeros(numbers.size, np.int64)
        np.add.at(counts, indices, np.concatenate([part[1] for part in self._parts]))
        return numbers, counts


def _counted(numbers: Ids) -> tuple[Ids, Ids]:
    """Numbers and how often they occur; without sorting if they lie close together."""
    least = numbers.min()
    if numbers.max() - least > 4 * numbers.size:
        found, counts = np.unique(numbers, return_counts=True)
        return found, counts.astype(np.int64)
    counts = np.bincount(numbers - least)
    occurring = np.flatnonzero(counts)
    return occurring + least, counts[occurring].astype(np.int64)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
