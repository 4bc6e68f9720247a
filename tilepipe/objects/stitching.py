"""Objects of a label map that does not fit in memory, labelled window by window and joined.

Each window is read with a rim, and its components are numbered after those of earlier windows.
Components of two windows that share a pixel in the rim are joined. A second pass labels every
window again, with the final numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from tilepipe.errors import InputError
from tilepipe.grid import Window, WindowGrid
from tilepipe.objects.labelling import BORDER_REACH, components, grow

INSIDE, BORDER = 1, 2
"""Parts of objects: their inner pixels, and the border class that separates them."""

BYTES_A_PIECE = 64
"""Memory in bytes for each component of a window, until all are joined."""

Ids = NDArray[np.int64]


class StitchedObjects:
    """The objects of a whole map, numbered 1, 2, 3 ... across its windows.

    Parameters
    ----------
    read : callable
        Reads a window of the map: 1 inside an object, 2 on a border, 0 elsewhere.
    grid : WindowGrid
        The windows, which cover the map.
    border : bool
        Whether there are border pixels for the objects to grow into.
    fill_holes : bool
        Whether pixels that an object encloses are part of it.
    memory : int
        The memory limit for the numbers of components in bytes; more components are an InputError.
    """

    def __init__(
        self,
        read: Callable[[Window], NDArray[Any]],
        grid: WindowGrid,
        *,
        border: bool,
        fill_holes: bool,
        memory: int,
    ) -> None:
        self._read = read
        self._whole = grid.area
        self._border = border
        self._rim = BORDER_REACH if border else 1
        limit = memory // BYTES_A_PIECE
        self._objects = _Joined(grid.area.shape, self._rim, limit)
        self._holes = _Holes(grid.area.shape, self._rim, limit) if fill_holes else None
        for window in grid:
            rimmed = self._rimmed(window)
            inside = read(rimmed) == INSIDE
            pieces = self._objects.add(window, rimmed, *components(inside))
            if self._holes is not None:
                self._holes.add_holes(window, rimmed, inside, pieces)
        self.count = self._objects.join()
        if self._holes is not None:
            self._holes.join_holes(self._objects)

    def read(self, window: Window) -> Ids:
        """The objects of one of the grid's windows, shape (H, W); 0 is background."""
        rimmed = self._rimmed(window)
        parts = self._read(rimmed)
        inside = parts == INSIDE
        if self._holes is None and not inside.any():
            return np.zeros(window.shape, np.int64)
        ids = self._objects.named(window, components(inside)[0])
        if self._holes is not None:
            holes = self._holes.named(window, components(~inside, corners=True)[0])
            ids = np.where(inside, ids, holes)
        if self._border and ids.any():
            grow(ids, parts == BORDER, self._rim)
        return ids[window.slices(rimmed)]

    def _rimmed(self, window: Window) -> Window:
        rimmed = window.pad(self._rim).intersect(self._whole)
        assert rimmed is not None
        return rimmed


def _renamed(found: NDArray[Any], names: Ids) -> Ids:
    """Renumber components 1, 2, ...; 0 stays 0."""
    if not names.size:
        return np.zeros(found.shape, np.int64)
    renamed: Ids = np.concatenate((np.zeros(1, np.int64), names))[found]
    return renamed


class _Joined:
    """The components of all windows, called pieces, and which pieces belong together."""

    def __init__(self, shape: tuple[int, int], rim: int, limit: int) -> None:
        self.count = 0
        self.names: Ids = np.zeros(1, np.int64)
        """The number of each piece after joining; piece 0 is the background."""
        self._rim = rim
        self._limit = limit
        self._first: dict[Window, int] = {}
        self._counts: dict[Window, int] = {}
        self._edges: list[Ids] = []
        # The pieces that a window shares with the next one, and a row of windows with the next row.
        self._right = np.zeros((0, 0), np.int64)
        self._below = np.zeros((2 * rim, shape[1]), np.int64)
        self._above = np.zeros_like(self._below)

    def add(self, window: Window, rimmed: Window, found: NDArray[Any], count: int) -> Ids:
        """Number a window's components, and join them with those of earlier windows."""
        first = self._first[window] = self.count
        self.count += count
        if self.count > self._limit:
            raise InputError(
                f"the objects have more than {self._limit:,} pieces, too many for this much "
                "memory; allow more with --memory"
            )
        self._counts[window] = count
        pieces: Ids = _renamed(found, np.arange(first + 1, first + count + 1))
        if window.x == 0:
            self._above, self._below = self._below, self._above
        else:
            self._equate(self._right, pieces[:, : self._right.shape[1]])
        columns = slice(rimmed.x, rimmed.stop_x)
        if window.y > 0:
            rows = min(2 * self._rim, rimmed.height)
            self._equate(self._above[:rows, columns], pieces[:rows])
        # The next window starts a rim before this one ends; so does the next row.
        self._right = pieces[:, max(0, window.stop_x - self._rim - rimmed.x) :].copy()
        below = pieces[max(0, window.stop_y - self._rim - rimmed.y) :]
        self._below[: below.shape[0], columns] = below
        return pieces

    def join(self) -> int:
        """Give joined pieces one number, 1, 2, 3 ..., and return how many numbers there are."""
        ends = np.concatenate([np.zeros((2, 0), np.int64), *self._edges], axis=1)
        self._edges.clear()
        size = self.count + 1
        graph = sparse.coo_matrix((np.ones(ends.shape[1], bool), (ends[0], ends[1])), (size, size))
        groups, names = csgraph.connected_components(graph, directed=False)
        # Number 0, the background, comes first and is joined with nothing, so its group is 0.
        self.names = names.astype(np.int64)
        return int(groups) - 1

    def named(self, window: Window, found: NDArray[Any]) -> Ids:
        """A window's components with their final numbers."""
        first = self._first[window] + 1
        return _renamed(found, self.names[first : first + self._counts[window]])

    def _equate(self, one: Ids, other: Ids) -> None:
        """Join pieces that share pixels."""
        pixels = one > 0
        if pixels.any():
            self._edges.append(np.unique(np.stack((one[pixels], other[pixels])), axis=1))


class _Holes(_Joined):
    """The components outside all objects, and the object of which each is a hole."""

    def __init__(self, shape: tuple[int, int], rim: int, limit: int) -> None:
        super().__init__(shape, rim, limit)
        self._shape = shape
        self._open: list[Ids] = [np.zeros(0, np.int64)]
        # For each piece with pixels in its window: its number, its first pixel, the object above.
        self._tops: list[Ids] = [np.zeros((3, 0), np.int64)]

    def add_holes(
        self, window: Window, rimmed: Window, inside: NDArray[np.bool_], objects: Ids
    ) -> None:
        """Add the pixels of a window outside its objects."""
        found, count = components(~inside, corners=True)
        pieces = self.add(window, rimmed, found, count)
        height, width = self._shape
        at_edge = (rimmed.y == 0, rimmed.stop_y == height, rimmed.x == 0, rimmed.stop_x == width)
        edges = (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1])
        self._open += [np.unique(e) for e, is_edge in zip(edges, at_edge, strict=True) if is_edge]

        core = pieces[window.slices(rimmed)]
        here, first = np.unique(core, return_index=True)
        here, first = here[here > 0], first[here > 0]
        y, x = np.divmod(first, window.width)
        y, x = y + window.y, x + window.x
        above = objects[np.maximum(y - 1 - rimmed.y, 0), x - rimmed.x]
        self._tops.append(np.stack((here, y * width + x, above)))

    def join_holes(self, objects: _Joined) -> None:
        """Give each hole the number of the object around it. Holes do not touch the map's edge."""
        count = self.join()
        pieces, first, above = np.concatenate(self._tops, axis=1)
        # The pixel above the topmost pixel of a hole belongs to the object around the hole.
        order = np.argsort(first)[::-1]
        owners = np.zeros(count + 1, np.int64)
        owners[self.names[pieces[order]]] = objects.names[above[order]]
        owners[self.names[np.concatenate(self._open)]] = 0
        owners[0] = 0
        self.names = owners[self.names]
