"""All the files that GDAL reads an image from: parts of a mosaic, overviews and masks beside it.

GDAL gives zeros for a part of a mosaic that it cannot open (it complains at the first read of a
dataset only) and for what a part lacks that is smaller than the mosaic says, and it leaves out a
mask that is broken. So each file is opened when the image is, and checked again at each read.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images.source import UndecodableError
from tilepipe.storage import ObjectPath, StoragePath

Stamp = tuple[int, ...]
Box = tuple[float, float, float, float]
MOST_CELLS = 4 << 20
"""Rectangles between the edges of the parts of a mosaic, beyond which they are not looked at."""

EVERYWHERE: Box = (-math.inf, -math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was when the image was opened."""

    path: StoragePath
    stamp: Stamp
    box: Box
    """(y, x, stop y, stop x) of what is read from it, in pixels of the image's level 0."""
    used: Box | None = None
    """What of it that is, in its own pixels; of the GeoTIFFs of which GDAL passes over faults."""


@dataclass(frozen=True, slots=True)
class PartWindow:
    """The window of a part that a window of a mosaic shows."""

    path: StoragePath
    box: Box
    """(y, x, stop y, stop x) in pixels of the part."""
    reduction: float
    """Rows of the part for each of the window."""


class FileSet:
    """The files of one image, each of which was opened and checked."""

    def __init__(
        self,
        files: Sequence[File],
        beside: dict[StoragePath, Stamp],
        shape: tuple[int, int],
        filled: tuple[Box, ...] | None,
        block: tuple[int, int],
    ) -> None:
        self.block = block
        """(rows, columns) that are decoded together, of a mosaic in the part where that is most."""
        self._filled = None if filled is None else np.array(filled).reshape(-1, 4)
        self._shape = shape
        self._files = files
        self._beside = beside
        self._boxes = np.array([file.box for file in files])

    @property
    def paths(self) -> list[StoragePath]:
        """Each file once: the image itself, then the others as they are named."""
        return list(dict.fromkeys(file.path for file in self._files))

    def require_unchanged(
        self, window: Window | None = None, scale: tuple[float, float] = (1, 1)
    ) -> None:
        """Check that files still exist and have not changed.

        Parameters
        ----------
        window
            Only at those that it is read from; otherwise at those that count everywhere: the image
            itself, its overviews and mask.
        scale
            Rows and columns of level 0 for each of the window's level.

        Raises
        ------
        UndecodableError
            Naming the first file that is not, or that GDAL could not open once.
        """
        for number in self._touched(window, scale):
            file = self._files[number]
            if file.path in _suspects:
                raise UndecodableError(f"{_suspects[file.path]} (in this process, once)")
            if not isinstance(file.path, ObjectPath) and stamp_of(file.path) != file.stamp:
                what = "has changed since" if file.path.exists() else "was there when"
                raise UndecodableError(f"{file.path} {what} the image was opened")

    @property
    def has_holes(self) -> bool:
        """Whether the parts of a mosaic leave out pixels, which GDAL then reads as zeros."""
        if self._filled is None:
            return False
        limits = np.array([*self._shape, *self._shape])
        boxes = np.rint(self._filled).clip(0, limits).astype(int)
        rows, columns = (
            np.unique([0, side, *boxes[:, axis], *boxes[:, axis + 2]])
            for axis, side in enumerate(self._shape)
        )
        if len(rows) * len(columns) > MOST_CELLS:
            return True  # which windows will tell
        # Between two neighbouring edges, all pixels are filled or none.
        cells = np.zeros((len(rows) - 1, len(columns) - 1), np.bool_)
        for y, x, stop_y, stop_x in boxes:
            top, bottom = np.searchsorted(rows, (y, stop_y))
            left, right = np.searchsorted(columns, (x, stop_x))
            cells[top:bottom, left:right] = True
        return not cells.all()

    def filled(self, window: Window, scale: tuple[float, float] = (1, 1)) -> NDArray[np.bool_]:
        """Tell which pixels of a window parts of the mosaic fill, shape (height, width)."""
        found = np.full(window.shape, self._filled is None)
        if self._filled is None:
            return found
        # Pixels whose centres lie inside.
        edges = np.ceil(self._filled / (*scale, *scale) - 0.5).astype(int)
        edges -= (window.y, window.x, window.y, window.x)
        edges = edges.clip(0, (*window.shape, *window.shape))
        for top, left, bottom, right in np.unique(edges, axis=0):
            found[top:bottom, left:right] = True
        return found

    def suspect(self, window: Window, scale: tuple[float, float], why: str) -> None:
        """Note that GDAL could not open a part that a window shows: it is unreadable from now on.

        GDAL remembers such a part in a pool of the process. Another dataset that finds it there
        makes zeros of it, and says nothing. The parts are those that ``why`` names, or all.
        """
        parts = [self._files[number].path for number in self._touched(window, scale)]
        parts = [path for path in parts if path != self._files[0].path]
        named = [path for path in parts if str(path) in why]
        _suspects.update(dict.fromkeys(named or parts, why))

    def part_windows(self, window: Window, scale: tuple[float, float] = (1, 1)) -> list[PartWindow]:
        """What a window shows of those parts of a mosaic in which GDAL passes over faults."""
        y, x = scale
        wanted = (window.y * y, window.x * x, window.stop_y * y, window.stop_x * x)
        found = []
        for number in self._touched(window, scale):
            file = self._files[number]
            if file.used is None or file.box == EVERYWHERE:
                continue
            part = mapped(clipped(wanted, file.box), file.box, file.used)
            reduction = (file.used[2] - file.used[0]) / (file.box[2] - file.box[0]) * y
            found.append(PartWindow(file.path, part, reduction))
        return found

    @property
    def unchanged(self) -> bool:
        """Whether all files still exist unchanged, with no new ones beside them."""
        stamps = self._beside | {file.path: file.stamp for file in self._files}
        return all(stamp_of(path) == stamp for path, stamp in stamps.items())

    def _touched(self, window: Window | None, scale: tuple[float, float]) -> Iterator[int]:
        boxes = self._boxes
        if window is None:
            touched = np.isinf(boxes[:, 0])
        else:
            y, x = scale
            touched = (
                (boxes[:, 0] < window.stop_y * y)
                & (boxes[:, 2] > window.y * y)
                & (boxes[:, 1] < window.stop_x * x)
                & (boxes[:, 3] > window.x * x)
            )
        return (int(number) for number in np.flatnonzero(touched))


_suspects: dict[StoragePath, str] = {}
"""Parts of mosaics that GDAL could not open once, and why."""


def whole(shape: tuple[int, int]) -> Box:
    """The box of all pixels of an image."""
    return 0.0, 0.0, float(shape[0]), float(shape[1])


def mapped(box: Box, before: Box, after: Box) -> Box:
    """A box on the grid on which ``before`` is ``after``."""
    y = (after[2] - after[0]) / (before[2] - before[0])
    x = (after[3] - after[1]) / (before[3] - before[1])
    return (
        after[0] + (box[0] - before[0]) * y,
        after[1] + (box[1] - before[1]) * x,
        after[0] + (box[2] - before[0]) * y,
        after[1] + (box[3] - before[1]) * x,
    )


def clipped(box: Box, limits: Box) -> Box:
    """What two boxes have in common; of no area where they have nothing."""
    y, x = max(box[0], limits[0]), max(box[1], limits[1])
    return y, x, max(y, min(box[2], limits[2])), max(x, min(box[3], limits[3]))


def stamp_of(path: StoragePath) -> Stamp:
    """What changes when a file does; nothing of an object, nor of what is no file."""
    if not isinstance(path, Path):
        return ()
    try:
        found = path.stat()
    except OSError:
        return ()
    if not stat.S_ISREG(found.st_mode):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
