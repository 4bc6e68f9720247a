"""Objects: cut out of a label map, and compared with those of the truth.

Two sets of objects are compared by their areas and by the pixels that each pair has in common;
nothing else is needed for F1 and AJI, and both add up over the windows of a mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MATCH_IOU = 0.5
"""Objects match whose IoU is above this; no object can then match two."""

BORDER_REACH = 4
"""How far an object grows into pixels of the border class, in pixels."""

_EDGES = ndimage.generate_binary_structure(2, 1)
_CORNERS = ndimage.generate_binary_structure(2, 2)

Objects = NDArray[np.int32]
"""An object's number in each of its pixels, 0 elsewhere; shape (H, W)."""


def objects_from_labels(
    labels: NDArray[Any],
    object_class: int,
    border_class: int | None = None,
    *,
    border_reach: int = BORDER_REACH,
    min_size: int = 0,
    fill_holes: bool = False,
) -> Objects:
    """The objects of a label map: what of a class is connected.

    Pixels are connected that share an edge. Where the map has a class for the borders of objects,
    that class keeps apart those that touch; each object then takes back the border pixels nearest
    to it.

    Parameters
    ----------
    labels : ndarray of integers, shape (H, W)
        A map of classes.
    object_class : int
        The class that objects, or their inner parts, are of.
    border_class : int, optional
        The class of the borders of objects.
    border_reach : int
        How many pixels deep an object reaches into the border class.
    min_size : int
        Objects of fewer pixels are left out.
    fill_holes : bool
        Whether what an object encloses becomes part of it, before it takes border pixels.

    Returns
    -------
    ndarray of int32, shape (H, W)
        Objects are numbered from 1 on, without gaps; 0 is no object.
    """
    objects, _ = components(labels == object_class)
    if fill_holes:
        objects = _without_holes(objects)
    if border_class is not None:
        grow(objects, labels == border_class, border_reach)
    return _renumbered(objects, min_size)


def components(inside: NDArray[np.bool_], *, corners: bool = False) -> tuple[Objects, int]:
    """Number what is connected by edges (or by corners too), and say how many there are."""
    if not inside.any():
        return np.zeros(inside.shape, np.int32), 0
    numbered = np.empty(inside.shape, np.int32)
    count = ndimage.label(inside, _CORNERS if corners else _EDGES, output=numbered)
    return numbered, int(count)


def grow(objects: NDArray[Any], border: NDArray[np.bool_], reach: int) -> None:
    """Grow objects into the border, in place: a pixel deep at a time, all of them at once.

    What a pixel becomes depends on no pixel that is further from it than ``reach``, and not on
    the objects' numbers, so a window with that much around it gives what the whole map gives.
    """
    for _ in range(reach):
        free = border & (objects == 0)
        if not free.any():
            return
        before = np.pad(objects, 1)
        for neighbour in (before[:-2, 1:-1], before[1:-1, :-2], before[1:-1, 2:], before[2:, 1:-1]):
            taken = free & (neighbour > 0)
            objects[taken] = neighbour[taken]
            free &= ~taken


@dataclass(frozen=True, slots=True)
class Overlaps:
    """The areas of predicted and of true objects, and what each pair has in common, in pixels."""

    predicted_areas: NDArray[np.int64]
    """Shape (P,); an area of 0 stands for no object."""
    true_areas: NDArray[np.int64]
    """Shape (T,)."""
    predicted: NDArray[np.intp]
    """Of each pair with pixels in common, the predicted object's place among the areas, (N,)."""
    true: NDArray[np.intp]
    """And the true object's."""
    common: NDArray[np.int64]
    """Pixels in common, (N,)."""

    @classmethod
    def of(cls, predicted: NDArray[Any], truth: NDArray[Any]) -> Overlaps:
        """Of two arrays of objects, of the same shape."""
        if predicted.shape != truth.shape:
            raise ValueError(
                f"a prediction of {predicted.shape} is not of a truth of {truth.shape}"
            )
        predicted_numbers, predicted_areas = _counted(predicted)
        true_numbers, true_areas = _counted(truth)
        both = (predicted > 0) & (truth > 0)
        codes = np.searchsorted(predicted_numbers, predicted[both]) * max(1, true_numbers.size)
        codes += np.searchsorted(true_numbers, truth[both])
        pairs, common = np.unique(codes, return_counts=True)
        first, second = np.divmod(pairs, max(1, true_numbers.size))
        return cls(predicted_areas, true_areas, first, second, common)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair, (N,)."""
        union = self.predicted_areas[self.predicted] + self.true_areas[self.true] - self.common
        return self.common / union


@dataclass(frozen=True, slots=True)
class ObjectCounts:
    """How well predicted objects fit true ones; counts of several images add up."""

    true_positives: int = 0
    """Pairs of a predicted and a true object whose IoU is above 0.5."""
    false_positives: int = 0
    """Predicted objects that match none."""
    false_negatives: int = 0
    """True objects that match none."""
    common: int = 0
    """The numerator of the AJI, in pixels."""
    union: int = 0
    """Its denominator."""

    @classmethod
    def of(cls, predicted_instances: NDArray[Any], truth_instances: NDArray[Any]) -> ObjectCounts:
        """Compare two arrays of objects.

        Parameters
        ----------
        predicted_instances, truth_instances : ndarray of integers
            Of the same shape; each object has a number of its own, 0 is none.

        Raises
        ------
        ValueError
            When the shapes differ.
        """
        return cls.from_overlaps(Overlaps.of(predicted_instances, truth_instances))

    @classmethod
    def from_overlaps(cls, overlaps: Overlaps) -> ObjectCounts:
        """Compare objects by what they have in common."""
        matches = int((overlaps.iou > MATCH_IOU).sum())
        common, union = _jaccard(overlaps)
        return cls(
            matches,
            int((overlaps.predicted_areas > 0).sum()) - matches,
            int((overlaps.true_areas > 0).sum()) - matches,
            common,
            union,
        )

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        return ObjectCounts(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.common + other.common,
            self.union + other.union,
        )

    @property
    def precision(self) -> float:
        """The share of predicted objects that match a true one; NaN where there are none."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """The share of true objects that a predicted one matches; NaN where there are none."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN where there are no objects at all."""
        return _share(
            2 * self.true_positives,
            2 * self.true_positives + self.false_positives + self.false_negatives,
        )

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index (Kumar et al. 2017, algorithm 1); NaN without any object."""
        return _share(self.common, self.union)


def _jaccard(overlaps: Overlaps) -> tuple[int, int]:
    """Numerator and denominator of the AJI.

    Each true object adds its intersection and union with the predicted object of the largest IoU
    (several may choose the same one); predicted objects that none chose add their area to the
    denominator, as do true objects that none meets.
    """
    # By true object, the largest IoU first; of equal ones the larger, then the first.
    order = np.lexsort((overlaps.predicted, -overlaps.common, -overlaps.iou, overlaps.true))
    _, first = np.unique(overlaps.true[order], return_index=True)
    best = order[first]
    chosen, common = overlaps.predicted[best], overlaps.common[best]
    # What a chosen object has outside the common pixels counts each time it is chosen.
    outside = overlaps.predicted_areas[chosen] - common
    unused = np.ones(overlaps.predicted_areas.size, bool)
    unused[chosen] = False
    union = (
        int(overlaps.true_areas.sum())
        + int(outside.sum())
        + int(overlaps.predicted_areas[unused].sum())
    )
    return int(common.sum()), union


def _without_holes(objects: Objects) -> Objects:
    """Give what an object encloses to it; objects within its holes stay themselves."""
    holes, _ = components(objects == 0, corners=True)
    edge = np.concatenate((holes[0], holes[-1], holes[:, 0], holes[:, -1]))
    numbers, first = np.unique(holes, return_index=True)
    # What lies above the topmost pixel of a hole belongs to the object around it.
    owners = np.zeros(int(holes.max(initial=0)) + 1, np.int32)
    y, x = np.unravel_index(first, holes.shape)
    owners[numbers] = objects[np.maximum(y - 1, 0), x]
    owners[np.unique(edge)] = 0
    return np.where(objects == 0, owners[holes], objects).astype(np.int32, copy=False)


def _renumbered(objects: Objects, min_size: int) -> Objects:
    sizes = np.bincount(objects.ravel())
    kept = (sizes > 0) & (sizes >= min_size)
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return numbers[objects]


def _counted(objects: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    numbers, areas = np.unique(objects, return_counts=True)
    return numbers[numbers > 0], areas[numbers > 0].astype(np.int64)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
