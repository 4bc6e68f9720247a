"""What the masks of a training hold, and how windows of them become targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tilepipe.errors import InputError
from tilepipe.evaluation.label_maps import open_label_map
from tilepipe.grid import Window, mirror_index, mirror_span
from tilepipe.products.base import NO_ANSWER

IGNORED = NO_ANSWER
"""The label of pixels that weigh nothing."""

HELD_BYTES = 16 * 2**20
"""Masks up to so large are read once and held: a training may have thousands of them."""

LARGEST_PIECE = 512 * 2**20
"""Bytes of a mask that can only be decoded whole, at most."""


class LabelFile:
    """A mask opened for reading windows, mirrored outside as the image is."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._map = open_label_map(Path(path), LARGEST_PIECE)
        self.shape, self.dtype = self._map.shape, self._map.dtype
        self.planes = self._map.planes if self.dtype.kind == "f" else 1
        self._whole: NDArray[Any] | None = None
        size = self.shape[0] * self.shape[1] * self._map.planes * self.dtype.itemsize
        if size <= HELD_BYTES:
            self._whole = self._map.read(Window(0, 0, *self.shape))
            self._map.close()
        self.held = size if self._whole is not None else 0
        """Bytes that are held in memory; 0 where the file stays open."""

    def read(self, window: Window) -> NDArray[Any]:
        """Shape (planes, height, width), in the file's own dtype; one plane of labels.

        Raises
        ------
        InputError
            Where a picture's colours differ: they are no labels.
        """
        height, width = self.shape
        y, stop_y = mirror_span(window.y, window.height, height)
        x, stop_x = mirror_span(window.x, window.width, width)
        span = Window(y, x, stop_y - y, stop_x - x)
        if self._whole is None:
            pixels: NDArray[Any] = self._map.read(span)
        else:
            pixels = self._whole[(slice(None), *span.slices())]
        if pixels.dtype.kind != "f" and len(pixels) > 1:
            if any((pixels[0] != other).any() for other in pixels[1:3]):
                raise InputError(
                    f"{self.path}: has {len(pixels)} bands that differ, and a mask has one; turn "
                    "its colours into class numbers"
                )
            pixels = pixels[:1]  # grey, saved as colour
        if span == window:
            return pixels
        rows = [mirror_index(i, height) - y for i in range(window.y, window.stop_y)]
        columns = [mirror_index(i, width) - x for i in range(window.x, window.stop_x)]
        return pixels[:, rows][:, :, columns]

    def values(self, window: Window) -> NDArray[np.float32]:
        """Shape (planes, height, width): numbers to regress, NaN where the file has none."""
        found = self.read(window)
        values = found.astype(np.float32)
        if self.dtype.kind != "f" and self._map.nodata is not None:
            values[found == self._map.nodata] = np.nan
        return values

    def close(self) -> None:
        """Release the file."""
        if self._whole is None:
            self._map.close()


@dataclass(frozen=True, slots=True)
class Target:
    """What a window of a mask asks of the network."""

    labels: NDArray[Any]
    """(height, width) uint8 classes with 255 for "says nothing"; or (planes, height, width)
    float32 values, NaN for "says nothing"."""
    gaps: NDArray[np.float32] | None
    """(height, width): d1 + d2, the width of the gap between the two nearest objects at each
    pixel, infinite where there are none near; None unless asked for."""


@dataclass(frozen=True, slots=True)
class LabelScheme:
    """How the values of the masks are read."""

    kind: str
    """classes, binary, instances or values."""
    classes: int
    border: float = 0.0
    ignore: tuple[int, ...] = ()
    gap_reach: float = 0.0
    """How far gaps between objects are looked for, pixels; 0: not at all."""

    @property
    def context(self) -> int:
        """Pixels around a window that its target depends on."""
        return int(np.ceil(max(self.gap_reach, self.border)))

    def target(self, file: LabelFile, window: Window) -> Target:
        """The target of one window.

        Raises
        ------
        InputError
            For a label beyond the classes.
        """
        if self.kind == "values":
            return Target(file.values(window), None)
        pad = self.context
        wide = Window(
            window.y - pad, window.x - pad, window.height + 2 * pad, window.width + 2 * pad
        )
        values = file.read(wide)[0]
        inner = (slice(pad, pad + window.height), slice(pad, pad + window.width))
        labels = self.labels(values, file.path)
        gaps = None
        if pad:
            objects = self.objects(values, labels)
            gaps = gap_widths(objects, max(self.gap_reach, self.border))
            if self.border:
                labels[(gaps <= self.border) & (labels != IGNORED)] = self.classes - 1
            elif self.kind == "instances":
                # Where objects touch, a line of background between them is what is to be learnt.
                labels[seams(objects) & (labels != IGNORED)] = 0
        return Target(
            np.ascontiguousarray(labels[inner].astype(np.uint8)),
            None if gaps is None or not self.gap_reach else np.ascontiguousarray(gaps[inner]),
        )

    def labels(self, values: NDArray[Any], path: str) -> NDArray[np.int64]:
        """The class of each pixel, 255 where the mask says nothing, from what ``path`` holds.

        Raises
        ------
        InputError
            For a label beyond the classes.
        """
        labels = (values if self.kind == "classes" else values > 0).astype(np.int64)
        if self.ignore:
            labels[np.isin(values, self.ignore)] = IGNORED
        beyond = ((labels < 0) | (labels >= self.classes)) & (labels != IGNORED)
        if beyond.any():
            wrong = labels[beyond].flat[0]
            raise InputError(
                f"{path}: holds the label {wrong}, and there are {self.classes} classes, "
                f"0 to {self.classes - 1}; name more with --classes, or --ignore {wrong}"
            )
        return labels

    def objects(self, values: NDArray[Any], labels: NDArray[Any] | None = None) -> NDArray[Any]:
        """A number for each object of a window, (height, width), from what the mask holds there.

        Of masks that tell no objects apart (one number for all of them, or classes), what of a
        class hangs together is an object.
        """
        if self.kind == "instances" and np.unique(values[values > 0]).size > 1:
            numbers = values.astype(np.int64)
            return np.where(np.isin(numbers, self.ignore), 0, numbers) if self.ignore else numbers
        return _components((values > 0).astype(np.int64) if labels is None else labels)


def _components(labels: NDArray[Any]) -> NDArray[Any]:
    """Objects of masks that tell none apart: what of a class hangs together by its edges."""
    found = np.zeros(labels.shape, np.int32)
    count = 0
    for label in np.unique(labels):
        if label in (0, IGNORED):
            continue
        parts, new = ndimage.label(labels == label)
        found[parts > 0] = parts[parts > 0] + count
        count += new
    return found


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
    """d1 + d2 of Ronneberger et al. 2015, equation 2: distances to the two nearest objects, summed.

    Parameters
    ----------
    objects
        (height, width), a number for each object, 0 for background.
    reach
        Gaps in which an object is further than this many pixels away count as infinite; the work
        grows with it.

    Returns
    -------
    gaps
        (height, width) float32. Inside an object d1 is 0.
    """
    nearest = np.full(objects.shape, np.inf, np.float32)
    second = nearest.copy()
    # Numbers without gaps between them, so that there is no box for each number that is not there.
    if objects.max(initial=0) > objects.size:
        objects = np.unique(objects, return_inverse=True)[1].reshape(objects.shape)
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
        # The middle one of three: what is no longer the nearest may be the second nearest.
        other[...] = np.minimum(other, np.maximum(first, distance))
        first[...] = np.minimum(first, distance)
    return nearest + second
