"""A mask resampled to the grid of its image, by nearest neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import CHUNK, Window, WindowGrid
from tilepipe.products.base import MaskSpec
from tilepipe.products.layer import Layer
from tilepipe.products.pyramid import build_pyramid, squares
from tilepipe.products.ranges import write_ranges
from tilepipe.products.store import ZarrMask, create_mask
from tilepipe.storage import StoragePath, complete_or_absent, staged_locally
from tilepipe.storage.hashing import hash_of

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Nearest:
    """Maps each pixel of an image to the pixel of the mask in which its centre lies.

    The corners of both grids coincide. Values are not interpolated either.
    """

    mask: tuple[int, int]
    """(height, width) of the mask."""
    image: tuple[int, int]
    """(height, width) of the image."""
    scale: tuple[float, float]
    """Rows and columns of the image for each row and column of the mask."""

    def taken(self, window: Window) -> tuple[Indices, Indices]:
        """Rows and columns of the mask that the pixels of a window of the image take."""
        return self._taken(0, window.y, window.stop_y), self._taken(1, window.x, window.stop_x)

    def under(self, window: Window) -> Window | None:
        """The window of the image whose pixels take their values from a window of the mask."""
        y, stop_y = self._under(0, window.y, window.stop_y)
        x, stop_x = self._under(1, window.x, window.stop_x)
        return Window(y, x, stop_y - y, stop_x - x) if stop_y > y and stop_x > x else None

    def _taken(self, axis: int, start: int, stop: int) -> Indices:
        lies_in = np.floor((np.arange(start, stop) + 0.5) / self.scale[axis])
        taken: Indices = lies_in.astype(np.intp).clip(0, self.mask[axis] - 1)
        return taken

    def _under(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        # Starts with a few pixels too many, and keeps those that do take their value from here.
        first = max(0, int(start * self.scale[axis]) - 2)
        last = min(self.image[axis], int(stop * self.scale[axis]) + 2)
        if stop == self.mask[axis]:
            last = self.image[axis]
        taken = self._taken(axis, first, last)
        return (
            first + int(np.searchsorted(taken, start)),
            first + int(np.searchsorted(taken, stop)),
        )


def write_like_image(mask: ZarrMask, target: StoragePath, spec: MaskSpec, nearest: Nearest) -> str:
    """Write a mask on the grid of its image, with its pyramid, as OME-Zarr, chunk by chunk.

    The mask must be complete at level 0. ``spec`` describes the result, and ``nearest`` maps its
    grid to that of the mask. An existing folder is replaced once the new one is complete. Returns
    the hash of all files (`tilepipe.storage.hashing.hash_of`).
    """
    with staged_locally(target) as local:
        with complete_or_absent(local) as part:
            fill_like_image(create_mask(part, spec, mask.extras), mask, nearest)
        return hash_of(local)


def fill_like_image(result: ZarrMask, mask: ZarrMask, nearest: Nearest) -> None:
    """Fill a new mask on the grid of the image from one that is complete at level 0."""
    spec = result.spec
    windows = _answered(mask, spec, nearest)
    for window in windows:
        rows, columns = nearest.taken(window)
        source = Window(
            int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
        )
        down, across = (rows - source.y)[:, None], columns - source.x
        result.write(window, *(_take(layer, source, down, across) for layer in mask.layers))
    build_pyramid(result, windows)
    write_ranges(result)
    for level in range(len(result.levels)):
        result.flush(level=level)  # before it takes its name


def _take(layer: Layer, source: Window, down: Indices, across: Indices) -> NDArray[Any]:
    """Pixels of a window of a layer, which is read plane by plane."""
    planes = [layer.read_plane(n, source)[down, across] for n in range(layer.planes)]
    return planes[0] if layer.product.flat else np.stack(planes)


def _answered(mask: ZarrMask, spec: MaskSpec, nearest: Nearest) -> list[Window]:
    """The chunks of the result that take values from a stored chunk of the mask."""
    stored = set[tuple[int, int]]().union(*(mask.stored_chunks(0, n) for n in range(mask.planes)))
    taken = (nearest.under(_chunk(row, column, mask.shape)) for row, column in stored)
    reached = squares((window for window in taken if window is not None), CHUNK)
    return [_chunk(row, column, (spec.height, spec.width)) for row, column in sorted(reached)]


def _chunk(row: int, column: int, shape: tuple[int, int]) -> Window:
    return WindowGrid(Window(0, 0, *shape), (CHUNK, CHUNK)).window(row, column)
