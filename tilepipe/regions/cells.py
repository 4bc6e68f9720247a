"""A region as a coarse grid of cells on the grid that the model sees.

Two ideas:

- a `CellGrid` says where cells lie; a cell is inside as soon as any of it is, so that nothing of a
  region is lost;
- a `Region` says which cells are inside, and answers for windows, however many, from sums.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window, round_up
from tilepipe.images.base import Level

SMALLEST_CELL = 16
"""Side of a cell in pixels; also for networks of a smaller stride factor."""

MOST_CELLS = 1 << 22
"""Most cells of a grid, half a megabyte packed; beyond it their side is doubled."""

STRIP_PIXELS = 1 << 24
"""Pixels of a mask that are read at a time."""

NEGLIGIBLE = 1e-6
"""Distance, in pixels, below which two edges are the same."""

Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class CellGrid:
    """A grid of square cells from pixel (0, 0) on; the last ones may reach beyond the image."""

    height: int
    """Rows of the grid that the model sees."""
    width: int
    cell: int
    """Side of a cell in pixels, a multiple of the stride factor."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Rows and columns of the image's level 0 for each row and column of the grid."""

    @classmethod
    def of(cls, level: Level, stride_factor: int) -> CellGrid:
        """Make the finest grid of a level with at most `MOST_CELLS` cells."""
        cell = round_up(SMALLEST_CELL, stride_factor)
        while -(-level.height // cell) * -(-level.width // cell) > MOST_CELLS:
            cell *= 2
        return cls(level.height, level.width, cell, (level.scale_y, level.scale_x))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of cells."""
        return -(-self.height // self.cell), -(-self.width // self.cell)

    @property
    def sides(self) -> tuple[float, float]:
        """(rows, columns) of level 0 for each cell."""
        return self.cell * self.scale[0], self.cell * self.scale[1]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the pixels of a mask lie on the image's level 0."""

    origin: tuple[float, float] = (0.0, 0.0)
    """Row and column of the corner of its first pixel."""
    step: tuple[float, float] = (1.0, 1.0)
    """Rows and columns of level 0 from one pixel to the next; negative where it is turned over."""

    def scaled(self, y: float, x: float) -> Placement:
        """Return the placement of a level that is ``y`` and ``x`` times coarser."""
        return Placement(self.origin, (self.step[0] * y, self.step[1] * x))

    def spans(self, grid: CellGrid, axis: int, size: int) -> tuple[Indices, Indices]:
        """Return the first pixel in each row (column) of cells, and the first one after it."""
        edges = np.arange(grid.shape[axis] + 1) * grid.sides[axis]
        places = (edges - self.origin[axis]) / self.step[axis]
        low, high = np.minimum(places[:-1], places[1:]), np.maximum(places[:-1], places[1:])
        first = np.floor(low + NEGLIGIBLE).clip(0, size).astype(np.intp)
        stop = np.ceil(high - NEGLIGIBLE).clip(0, size).astype(np.intp)
        return first, stop


def touched_cells(
    read: Callable[[int, int], Bools], size: tuple[int, int], place: Placement, grid: CellGrid
) -> Bools:
    """Find the cells that hold any pixel of a mask, or a part of one.

    Parameters
    ----------
    read
        The mask's rows from one to before another, shape (rows, columns); asked from top to bottom
        (the other way round where the mask is turned over), for strips of bounded size.
    size
        (rows, columns) of the mask.
    """
    first, stop = place.spans(grid, 0, size[0])
    left, right = place.spans(grid, 1, size[1])
    cells = np.zeros(grid.shape, np.bool_)
    most = max(1, STRIP_PIXELS // size[1])
    row = 0
    while row < len(first):
        end = row + 1
        while end < len(first) and _reach(first, stop, row, end + 1) <= most:
            end += 1
        top, bottom = int(first[row:end].min()), int(stop[row:end].max())
        if bottom > top:
            wide = _any(read(top, bottom), left, right, axis=1)
            cells[row:end] = _any(wide, first[row:end] - top, stop[row:end] - top, axis=0)
        row = end
    return cells


def _reach(first: Indices, stop: Indices, row: int, end: int) -> int:
    return int(max(stop[row], stop[end - 1]) - min(first[row], first[end - 1]))


def _any(inside: Bools, first: Indices, stop: Indices, axis: int) -> Bools:
    """Whether any is true from ``first`` to before ``stop`` along an axis, for each pair."""
    sums = np.zeros([n + (i == axis) for i, n in enumerate(inside.shape)], np.int32)
    np.cumsum(inside, axis=axis, out=sums[1:] if axis == 0 else sums[:, 1:])
    first, stop = np.minimum(first, inside.shape[axis]), np.minimum(stop, inside.shape[axis])
    return np.asarray(sums.take(np.maximum(stop, first), axis) > sums.take(first, axis))


@dataclass(frozen=True, eq=False)
class Region:
    """The cells of a grid that are inside a region."""

    height: int
    """Rows of the grid that the model sees."""
    width: int
    cell: int
    cells: Bools
    """Whether each cell is inside, shape (rows, columns)."""

    def inside(self, window: Window) -> Bools:
        """Tell which pixels of a window in the grid are inside, shape (height, width)."""
        rows = np.arange(window.y, window.stop_y) // self.cell
        columns = np.arange(window.x, window.stop_x) // self.cell
        cells = self.cells[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return np.asarray(cells.take(columns - columns[0], 1).take(rows - rows[0], 0), np.bool_)

    def holds(self, rows: Indices, columns: Indices) -> Bools:
        """Tell which of many windows hold a cell that is inside.

        Parameters
        ----------
        rows, columns
            (n, 2) and (m, 2): first pixel, and first one after, of each row (column) of windows.

        Returns
        -------
        ndarray of bool, shape (n, m)
        """
        top, bottom = rows[:, 0] // self.cell, -(-rows[:, 1] // self.cell)
        left, right = columns[:, 0] // self.cell, -(-columns[:, 1] // self.cell)
        held = np.empty((len(rows), len(columns)), np.bool_)
        for at in range(0, len(rows), 256):
            part = slice(at, at + 256)
            sums = self._sums[bottom[part]] - self._sums[top[part]]
            held[part] = sums[:, right] > sums[:, left]
        return held

    @cached_property
    def pixels(self) -> int:
        """Number of pixels inside."""
        rows = np.minimum(self.cell, self.height - np.arange(self.cells.shape[0]) * self.cell)
        columns = np.minimum(self.cell, self.width - np.arange(self.cells.shape[1]) * self.cell)
        return int(rows @ (self.cells @ columns))

    @property
    def share(self) -> float:
        """Share of the grid's pixels that are inside."""
        return self.pixels / (self.height * self.width)

    @cached_property
    def _sums(self) -> NDArray[np.int32]:
        """Number of cells inside, above and left of each corner."""
        sums = np.zeros((self.cells.shape[0] + 1, self.cells.shape[1] + 1), np.int32)
        np.cumsum(self.cells, axis=0, out=sums[1:, 1:])
        np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
        return sums


def cells_as_text(cells: Bools) -> str:
    """Pack cells eight a byte, compress them, and encode them in base 64."""
    return base64.b64encode(zlib.compress(np.packbits(cells).tobytes(), 9)).decode("ascii")


def cells_from_text(text: str, shape: tuple[int, int]) -> Bools:
    """Read the cells that `cells_as_text` wrote.

    Raises
    ------
    ValueError
        For text that is none, or of another shape.
    """
    try:
        packed = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8)
    except zlib.error as error:
        raise ValueError(f"the cells of a region are damaged ({error})") from error
    if len(packed) != -(-math.prod(shape) // 8):
        raise ValueError(f"the cells of a region are not {shape[0]} x {shape[1]}")
    return np.unpackbits(packed, count=math.prod(shape)).reshape(shape).astype(np.bool_)
