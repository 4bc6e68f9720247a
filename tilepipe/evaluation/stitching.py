"""Objects of a mask that is never held whole: labelled window by window, then joined.

Each window is read with a rim around it, and its components are numbered on from those of the
windows before. In the rim, where two windows see the same pixels, equal pixels join their numbers.
A second pass numbers every window again, now with the numbers that joined components share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from tilepipe.errors import InputError
from tilepipe.evaluation.label_maps import Grid
from tilepipe.evaluation.objects import BORDER_REACH, Overlaps, components, grow
from tilepipe.grid import Window

INSIDE, BORDER = 1, 2
"""Parts of objects: inner pixels, and those of the class that keeps objects apart."""

BYTES_A_PIECE = 64
"""Held for each component of a window until all are joined."""

_FEW = 1 << 22
"""Counts are summed up whenever there are this many of them."""

_HALF = 32
"""Bits of the number of the second object of a pair."""

Ids = NDArray[np.int64]


class StitchedObjects:
    """The objects of a map of parts, numbered from 1 on over all of it.

    Parameters
    ----------
    read : callable
        Gives the parts of a window within the map: 1 inside an object, 2 border, 0 elsewhere.
    grid : Grid
        The windows to work in.
    border : bool
        Whether there are border pixels to be given to the objects.
    fill_holes : bool
        Whether what an object encloses is part of it.
    memory : int
        Bytes that the numbers of components may take.

    Raises
    ------
    InputError
        There are more components than that memory holds.
    """

    def __init__(
        self,
        read: Callable[[Window], NDArray[Any]],
        grid: Grid,
        *,
        border: bool,
        fill_holes: bool,
        memory: int,
    ) -> None:
        self._read = read
        self._shape = grid.shape
        self._border = border
        self._rim = BORDER_REACH if border else 1
        limit = memory // BYTES_A_PIECE
        self._objects = _Joined(grid.shape, self._rim, limit)
        self._holes = _Holes(grid.shape, self._rim, limit) if fill_holes else None
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
        """The objects of one of the grid's windows, shape (H, W); 0 is none."""
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
        whole = Window(0, 0, *self._shape)
        rimmed = window.pad(self._rim).intersect(whole)
        assert rimmed is not None
        return rimmed


class OverlapTally:
    """Areas and common pixels of objects, summed up over windows.

    Parameters
    ----------
    min_size : int
        Predicted objects of fewer pixels do not count.
    """

    def __init__(self, min_size: int = 0) -> None:
        self._min_size = min_size
        self._sizes, self._predicted, self._true, self._pairs = (_Tally() for _ in range(4))

    def add(
        self, predicted: NDArray[Any], truth: NDArray[Any], counting: NDArray[np.bool_] | None
    ) -> None:
        """Take in the objects of a window: two arrays of numbers, and which pixels count."""
        if self._min_size > 1:
            # An object is as large as it is, however much of it counts.
            self._sizes.add(predicted[predicted > 0])
        true, said = truth > 0, predicted > 0
        if counting is not None:
            true, said = true & counting, said & counting
        both = true & said
        self._true.add(truth[true])
        self._predicted.add(predicted[said])
        self._pairs.add((predicted[both].astype(np.int64) << _HALF) | truth[both].astype(np.int64))

    def overlaps(self) -> Overlaps:
        """All objects of all windows."""
        numbers, areas = self._predicted.total()
        true_numbers, true_areas = self._true.total()
        if self._min_size > 1:
            sized, sizes = self._sizes.total()
            large = np.isin(numbers, sized[sizes >= self._min_size])
            numbers, areas = numbers[large], areas[large]
        pairs, common = self._pairs.total()
        first, second = pairs >> _HALF, pairs & ((1 << _HALF) - 1)
        known = np.isin(first, numbers)
        return Overlaps(
            areas,
            true_areas,
            np.searchsorted(numbers, first[known]),
            np.searchsorted(true_numbers, second[known]),
            common[known],
        )


class _Tally:
    """How often each number occurs."""

    def __init__(self) -> None:
        self._parts: list[tuple[Ids, Ids]] = []
        self._held = 0

    def add(self, numbers: NDArray[Any]) -> None:
        if numbers.size == 0:
            return
        self._parts.append(_counted(numbers.astype(np.int64, copy=False)))
        self._held += self._parts[-1][0].size
        if self._held > _FEW:
            self._parts = [self.total()]
            # What cannot be summed up any further is not tried again at once.
            self._held = 0

    def total(self) -> tuple[Ids, Ids]:
        """The numbers, in order, and how often each occurs."""
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        numbers, places = np.unique(
            np.concatenate([part[0] for part in self._parts]), return_inverse=True
        )
        counts = np.zeros(numbers.size, np.int64)
        np.add.at(counts, places, np.concatenate([part[1] for part in self._parts]))
        return numbers, counts


def _counted(numbers: Ids) -> tuple[Ids, Ids]:
    """Numbers and how often they occur; without sorting where they lie close together."""
    least = numbers.min()
    if numbers.max() - least > 4 * numbers.size:
        found, counts = np.unique(numbers, return_counts=True)
        return found, counts.astype(np.int64)
    counts = np.bincount(numbers - least)
    occurring = np.flatnonzero(counts)
    return occurring + least, counts[occurring].astype(np.int64)


def _renamed(found: NDArray[Any], names: Ids) -> Ids:
    """Components 1, 2, ... under other numbers; 0 stays."""
    if not names.size:
        return np.zeros(found.shape, np.int64)
    renamed: Ids = np.concatenate((np.zeros(1, np.int64), names))[found]
    return renamed


class _Joined:
    """Components of windows, each a piece; and which pieces are one."""

    def __init__(self, shape: tuple[int, int], rim: int, limit: int) -> None:
        self.count = 0
        self.names: Ids = np.zeros(1, np.int64)
        """The number of each piece once they are joined; 0 is none."""
        self._rim = rim
        self._limit = limit
        self._first: dict[Window, int] = {}
        self._counts: dict[Window, int] = {}
        self._edges: list[Ids] = []
        # What a window sees of the one to its right, and a row of windows of the one below it.
        self._right = np.zeros((0, 0), np.int64)
        self._below = np.zeros((2 * rim, shape[1]), np.int64)
        self._above = np.zeros_like(self._below)

    def add(self, window: Window, rimmed: Window, found: NDArray[Any], count: int) -> Ids:
        """Number a window's components on from those before, and join them with those."""
        first = self._first[window] = self.count
        self.count += count
        if self.count > self._limit:
            raise InputError(
                f"the objects come in more than {self._limit:,} pieces, which the memory allowed "
                "does not hold; allow more with --memory"
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
        """Give the pieces that are one the same number, from 1 on, and say how many there are."""
        ends = np.concatenate([np.zeros((2, 0), np.int64), *self._edges], axis=1)
        self._edges.clear()
        size = self.count + 1
        graph = sparse.coo_matrix((np.ones(ends.shape[1], bool), (ends[0], ends[1])), (size, size))
        groups, names = csgraph.connected_components(graph, directed=False)
        # Piece 0, which is none, comes first and is joined with nothing: its group is 0.
        self.names = names.astype(np.int64)
        return int(groups) - 1

    def named(self, window: Window, found: NDArray[Any]) -> Ids:
        """A window's components under their numbers, once they are joined."""
        first = self._first[window] + 1
        return _renamed(found, self.names[first : first + self._counts[window]])

    def _equate(self, one: Ids, other: Ids) -> None:
        """Join pieces that hold the same pixels."""
        pixels = one > 0
        if pixels.any():
            self._edges.append(np.unique(np.stack((one[pixels], other[pixels])), axis=1))


class _Holes(_Joined):
    """Components of what is outside of objects, and which object each is a hole of."""

    def __init__(self, shape: tuple[int, int], rim: int, limit: int) -> None:
        super().__init__(shape, rim, limit)
        self._shape = shape
        self._open: list[Ids] = [np.zeros(0, np.int64)]
        # Of each piece with pixels in its window: itself, its first pixel, and what lies above.
        self._tops: list[Ids] = [np.zeros((3, 0), np.int64)]

    def add_holes(
        self, window: Window, rimmed: Window, inside: NDArray[np.bool_], objects: Ids
    ) -> None:
        """Take in what is not inside the objects of a window."""
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
        """Give each hole the number of the object around it; what reaches the edge is none's."""
        count = self.join()
        pieces, first, above = np.concatenate(self._tops, axis=1)
        # What lies above the topmost pixel of a hole belongs to the object around it.
        order = np.argsort(first)[::-1]
        owners = np.zeros(count + 1, np.int64)
        owners[self.names[pieces[order]]] = objects.names[above[order]]
        owners[self.names[np.concatenate(self._open)]] = 0
        owners[0] = 0
        self.names = owners[self.names]
