"""The masks of a training, and how windows of them become targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tilepipe.errors import InputError
from tilepipe.evaluation.label_maps import NO_LABEL, LabelMap, open_label_map
from tilepipe.grid import Window
from tilepipe.objects.runs import runs_of
from tilepipe.products.base import NO_ANSWER

IGNORED = NO_ANSWER
"""The label of pixels that do not count."""

HELD_BYTES = 16 * 2**20
"""Size of the largest mask that is read once and held; a training may have thousands of masks."""

LARGEST_PIECE = 512 * 2**20
"""Largest size in bytes of a piece of a mask that can only be decoded as a whole."""


def open_training_mask(path: str) -> LabelMap:
    """Open the mask of a training image; a small one is read at once and held.

    Raises
    ------
    InputError
        It cannot be opened, or it is a picture in colours, which are not labels.
    """
    labels = open_label_map(Path(path), LARGEST_PIECE)
    if labels.dtype.kind != "f" and labels.planes > 1:
        labels = _single_band(labels)
    size = labels.shape[0] * labels.shape[1] * labels.planes * labels.dtype.itemsize
    return labels.in_memory() if size <= HELD_BYTES else labels


def _single_band(labels: LabelMap) -> LabelMap:
    """Labels saved as a grey picture with three bands."""

    def read(window: Window) -> NDArray[Any]:
        pixels = labels.read(window)
        if any((pixels[0] != other).any() for other in pixels[1:3]):
            raise InputError(
                f"{labels.path}: has {labels.planes} bands that differ, but a mask has one; turn "
                "its colours into class numbers"
            )
        return pixels[:1]

    return replace(labels, planes=1, read=read)


def read_values(labels: LabelMap, window: Window) -> NDArray[np.float32]:
    """The values of a window to regress, (planes, height, width); missing ones are NaN."""
    found = labels.read_mirrored(window)
    values = found.astype(np.float32)
    if labels.nodata is not None:
        values[found == labels.nodata] = np.nan
    return values


@dataclass(frozen=True, slots=True)
class Target:
    """What the network should predict for a window of a mask."""

    labels: NDArray[Any]
    """Classes, (height, width) uint8, with 255 for pixels to ignore; or values, (planes, height,
    width) float32, with NaN for pixels to ignore."""
    gaps: NDArray[np.float32] | None
    """Width of the gap between the two nearest objects at each pixel, d1 + d2, (height, width);
    infinite if there are none near. None if it is not needed."""


@dataclass(frozen=True, slots=True)
class LabelScheme:
    """What the values of the masks mean."""

    kind: str
    """classes, binary, instances or values."""
    classes: int
    """Number of classes, or of planes of values."""
    border: float = 0.0
    """Largest gap between two objects, in pixels, that becomes the border class; 0 for none."""
    ignore: tuple[int, ...] = ()
    gap_reach: float = 0.0
    """Largest gap between two objects, in pixels, that is measured; 0 if none is."""

    @property
    def context(self) -> int:
        """How many pixels around a window its target depends on."""
        return int(np.ceil(max(self.gap_reach, self.border)))

    def target(self, mask: LabelMap, window: Window) -> Target:
        """The target of one window.

        Raises
        ------
        InputError
            The mask has a label that is not a class.
        """
        if self.kind == "values":
            return Target(read_values(mask, window), None)
        pad = self.context
        wide = window.pad(pad)
        values = mask.read_mirrored(wide)[0]
        inner = window.slices(wide)
        labels = self.labels(values, mask.path)
        gaps = None
        if pad:
            objects = self.objects(values, labels)
            gaps = gap_widths(objects, max(self.gap_reach, self.border))
            if self.border:
                labels[(gaps <= self.border) & (labels != IGNORED)] = self.classes - 1
            elif self.kind == "instances":
                # Where objects touch, the network learns a line of background between them.
                labels[seams(objects) & (labels != IGNORED)] = 0
        return Target(
            np.ascontiguousarray(labels[inner].astype(np.uint8)),
            None if gaps is None or not self.gap_reach else np.ascontiguousarray(gaps[inner]),
        )

    def labels(self, values: NDArray[Any], path: Path) -> NDArray[np.int64]:
        """The class of each pixel, 255 for those to ignore, from the values of the mask ``path``.

        Raises
        ------
        InputError
            The mask has a label that is not a class, or a negative number of an object.
        """
        labels = (values if self.kind == "classes" else values > 0).astype(np.int64)
        left_out = np.isin(values, [*self.ignore, NO_LABEL])
        negative = (values < 0) & ~left_out
        if negative.any():
            raise negative_label(path, int(values[negative].flat[0]))
        labels[left_out] = IGNORED
        beyond = (labels >= self.classes) & (labels != IGNORED)
        if beyond.any():
            wrong = labels[beyond].flat[0]
            raise InputError(
                f"{path}: holds the label {wrong}, but there are {self.classes} classes, "
                f"0 to {self.classes - 1}; name more with --classes, or use --ignore {wrong}"
            )
        return labels

    def objects(self, values: NDArray[Any], labels: NDArray[Any] | None = None) -> NDArray[Any]:
        """A number for each object of a window, (height, width), from the values of the mask.

        In masks that do not number objects (one number for all of them, or classes), objects are
        the connected components of each class.
        """
        if self.kind == "instances" and np.unique(values[values > 0]).size > 1:
            # Negative ones are left out: `labels` refuses all others.
            numbers = _small_numbers(np.maximum(values, 0).astype(np.int64))
            return np.where(np.isin(values, self.ignore), 0, numbers) if self.ignore else numbers
        return _components((values > 0).astype(np.int64) if labels is None else labels)


def negative_label(path: str | Path, label: int) -> InputError:
    """The error for a mask that holds a negative label."""
    return InputError(
        f"{path}: holds the label {label}; 0 is background, and classes and objects are numbered "
        f"from 1 on: number them so, or leave these pixels out with --ignore {label}"
    )


def _components(labels: NDArray[Any]) -> NDArray[Any]:
    """The components of each class but background, of pixels that share an edge."""
    runs = runs_of(np.where(labels == IGNORED, 0, labels))
    return runs.part[runs.of_pixel]


def _small_numbers(objects: NDArray[Any]) -> NDArray[Any]:
    """Numbers of objects, replaced by 1, 2, 3 ... if the largest exceeds the number of pixels."""
    if objects.max(initial=0) <= objects.size:
        return objects
    return np.searchsorted(np.unique(np.append(objects, 0)), objects)


def seams(objects: NDArray[Any]) -> NDArray[np.bool_]:
    """The pixels of objects that share an edge with another object, (height, width)."""
    found = np.zeros(objects.shape, np.bool_)
    for axis in (0, 1):
        here, there = (np.moveaxis(a, axis, 0) for a in (objects, found))
        touching = (here[1:] != here[:-1]) & (here[1:] > 0) & (here[:-1] > 0)
        there[1:] |= touching
        there[:-1] |= touching
    return found


def gap_widths(objects: NDArray[Any], reach: float) -> NDArray[np.float32]:
    """The sum of the distances to the two nearest objects (Ronneberger et al. 2015, equation 2).

    Parameters
    ----------
    objects
        A number for each object, 0 for background, (height, width).
    reach
        Objects further away than this many pixels do not count; the work grows with it.

    Returns
    -------
    gaps
        d1 + d2 in pixels, (height, width) float32; infinite if fewer than two objects are within
        reach. Inside an object d1 is 0.
    """
    nearest = np.full(objects.shape, np.inf, np.float32)
    second = nearest.copy()
    # Consecutive numbers: `find_objects` makes a box for each number up to the largest.
    objects = _small_numbers(objects)
    present = np.bincount(objects.ravel()) > 0
    present[0] = False
    numbers = np.cumsum(present)[objects] * present[objects]
    pad = int(np.ceil(reach))
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is None:
            continue
        around = tuple(
            slice(max(0, s.start - pad), min(n, s.stop + pad))
            for s, n in zip(box, objects.shape, strict=True)
        )
        distance = ndimage.distance_transform_edt(numbers[around] != number).astype(np.float32)
        distance[distance > reach] = np.inf
        first, other = nearest[around], second[around]
        # The middle one of three: the former nearest may now be the second nearest.
        other[...] = np.minimum(other, np.maximum(first, distance))
        first[...] = np.minimum(first, distance)
    return nearest + second
