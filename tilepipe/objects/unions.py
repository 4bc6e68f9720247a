"""Which pieces of neighbouring windows are one object, and the objects' numbers.

Only what touches the edge of a window is held in memory, as numbers; pieces inside of a window pass
by, a row of windows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window, WindowGrid
from tilepipe.objects.index import IndexRows
from tilepipe.objects.pieces import Pieces
from tilepipe.objects.walks import connected

Ids = NDArray[np.int64]
Shifts = tuple[int, ...]

MOST_OBJECTS = 2**32 - 1
"""Numbers of objects are stored as uint32."""

NONE = -1


class Unions:
    """The objects that the pieces of all windows make, numbered in raster order.

    Parameters
    ----------
    grid
        The windows.
    load
        The pieces of a window, by its row and column in the grid, without their image. Called a
        few times for each.
    depth
        How far a way may lead below the lower of two peaks for both to be one object, in 1/64
        pixels (see `tilepipe.objects.basins`).
    min_area
        Objects with fewer pixels get no number.
    corners
        Whether pixels that share a corner are connected, and not only those that share an edge.
    """

    def __init__(
        self,
        grid: WindowGrid,
        load: Callable[[int, int], Pieces],
        *,
        depth: int = 1,
        min_area: int = 0,
        corners: bool = True,
    ) -> None:
        self._grid, self._load = grid, load
        self._depth, self._min_area = depth, min_area
        self._shifts = (-1, 0, 1) if corners else (0,)
        self._rows, self._columns = grid_shape(grid)
        self._count_nodes()
        self._resolve_exits()
        self._join()

    def rows(self) -> Iterator[tuple[IndexRows, list[NDArray[np.uint32]]]]:
        """For each row of windows, the objects that begin in it, and the numbers of the pieces.

        The numbers of a window are (n + 1,), from piece 0, which is none; 0 for pieces that are
        left out. Raises InputError if there are more objects than numbers.
        """
        total = 0
        number = np.zeros(len(self._root_first), np.int64)
        for row in range(self._rows):
            blocks = [self._load(row, column) for column in range(self._columns)]
            kept, found = [], []
            for column, block in enumerate(blocks):
                keep = self._closed(row, column, block) & (block.area >= self._min_area)
                kept.append(keep)
                found.append((block.part[keep], block.first[keep], block.area[keep]))
            begins = self._begin_in(row)
            found.append(
                (self._root_part[begins], self._root_first[begins], self._root_area[begins])
            )
            part, first, area = (np.concatenate(each) for each in zip(*found, strict=True))
            order = np.argsort(first, kind="stable")
            if total + len(order) > MOST_OBJECTS:
                raise InputError(
                    f"there are more than {MOST_OBJECTS:,} objects, too many to number; leave out "
                    "specks with --min-area"
                )
            rank = np.empty(len(order), np.int64)
            rank[order] = np.arange(total + 1, total + len(order) + 1)
            total += len(order)
            ranks = np.split(rank, np.cumsum([int(keep.sum()) for keep in kept]))
            number[begins] = ranks[-1]
            numbers = [
                self._numbers(row, column, keep, ranks[column], number)
                for column, keep in enumerate(kept)
            ]
            yield IndexRows(part[order], first[order], area[order]), numbers

    def _count_nodes(self) -> None:
        """Give each window a range of global numbers for its pieces, and one for its basins."""
        pieces, basins = [0], [0]
        for row, column in self._places():
            block = self._load(row, column)
            pieces.append(pieces[-1] + len(block.part))
            basins.append(basins[-1] + len(block.basin_piece))
        self._first_piece, self._first_basin = np.array(pieces), np.array(basins)
        self._basin_piece: Ids = np.zeros(basins[-1], np.int64)
        self._basin_part = np.zeros(basins[-1], np.uint8)
        self._peak = np.zeros(basins[-1], np.int32)

    def _resolve_exits(self) -> None:
        """Find the peak of each basin, which may be several windows away."""
        leads: Ids = np.arange(len(self._peak))
        for row in range(self._rows):
            near = [
                self._strips(beside) if 0 <= beside < self._rows else None
                for beside in (row - 1, row, row + 1)
            ]
            for column in range(self._columns):
                block, base = self._load(row, column), self._first_basin[self._at(row, column)]
                own = slice(base, base + len(block.basin_piece))
                piece = self._first_piece[self._at(row, column)] + block.basin_piece - 1
                self._basin_piece[own] = piece
                self._basin_part[own] = block.part[block.basin_piece - 1]
                self._peak[own] = block.basin_peak
                out = np.flatnonzero(block.basin_exit >= 0)
                leads[base + out] = self._basin_at(block.basin_exit[out], row, near)
        while True:
            further = leads[leads]
            if np.array_equal(further, leads):
                break
            leads = further
        self._peak = self._peak[leads]
        self._leads = leads

    def _basin_at(self, pixels: Ids, row: int, near: list[Any]) -> Ids:
        """The basins of pixels at the edges of windows of this row, or of the rows beside it."""
        area = self._grid.area
        y, x = np.divmod(pixels, area.width)
        found: Ids = np.full(len(pixels), NONE, np.int64)
        window = self._grid.window(row, 0)
        above, here, below = near
        up, down = y < window.y, y >= window.stop_y
        if above is not None:
            found[up] = above.bottom[x[up]]
        if below is not None:
            found[down] = below.top[x[down]]
        beside = ~(up | down)
        found[beside] = here.sides[y[beside] - window.y, x[beside]]
        assert (found >= 0).all(), "a basin reaches over the edge into one that is known there"
        return found

    def _join(self) -> None:
        """Find which pieces are one object, and what those have together."""
        pairs = [np.zeros((2, 0), np.int64)]
        across = np.flatnonzero(self._leads != np.arange(len(self._leads)))
        pairs.append(self._pieces_of(across, self._leads[across]))
        above = None
        for row in range(self._rows):
            here = self._strips(row)
            for column in range(self._columns):
                block, base = self._load(row, column), self._first_basin[self._at(row, column)]
                one, other, way = block.passes.T
                pairs.append(self._joined(base + one - 1, base + other - 1, way))
            pairs += [self._joined(*each) for each in here.beside(self._shifts)]
            if above is not None:
                pairs += [self._joined(*each) for each in here.below(above, self._shifts)]
            above = here
            pairs = [np.unique(np.concatenate(pairs, axis=1), axis=1)]
        one, other = pairs[0]
        self._open = np.unique(pairs[0])
        ends = np.searchsorted(self._open, one), np.searchsorted(self._open, other)
        self._root = connected(len(self._open), *ends).astype(np.int64)
        count = self._root.max(initial=-1) + 1
        self._sum_up(int(count))

    def _sum_up(self, count: int) -> None:
        self._root_area: Ids = np.zeros(count, np.int64)
        self._root_first: Ids = np.full(count, np.iinfo(np.int64).max, np.int64)
        self._root_part = np.zeros(count, np.uint8)
        for row, column in self._places():
            block = self._load(row, column)
            local, root = self._open_in(row, column)
            np.add.at(self._root_area, root, block.area[local])
            np.minimum.at(self._root_first, root, block.first[local])
            self._root_part[root] = block.part[local]

    def _joined(self, one: Ids, other: Ids, way: NDArray[Any]) -> Ids:
        """Of pairs of basins with a border, the pairs of pieces that this makes one."""
        low = np.minimum(self._peak[one], self._peak[other])
        same = (self._basin_part[one] == self._basin_part[other]) & (way > low - self._depth)
        return self._pieces_of(one[same], other[same])

    def _pieces_of(self, one: Ids, other: Ids) -> Ids:
        pairs = np.stack((self._basin_piece[one], self._basin_piece[other]))
        return pairs[:, pairs[0] != pairs[1]]

    def _open_in(self, row: int, column: int) -> tuple[Ids, Ids]:
        """The pieces of a window that go on in others (from 0), and the objects they belong to."""
        at = self._at(row, column)
        begin, end = self._first_piece[at], self._first_piece[at + 1]
        found = slice(*np.searchsorted(self._open, (begin, end)))
        return self._open[found] - begin, self._root[found]

    def _closed(self, row: int, column: int, block: Pieces) -> NDArray[np.bool_]:
        closed = np.ones(len(block.part), bool)
        closed[self._open_in(row, column)[0]] = False
        return closed

    def _begin_in(self, row: int) -> NDArray[np.intp]:
        """The objects of several windows that begin in a row of windows, and are large enough."""
        window, width = self._grid.window(row, 0), self._grid.area.width
        first = self._root_first
        within = (first >= window.y * width) & (first < window.stop_y * width)
        return np.flatnonzero(within & (self._root_area >= self._min_area))

    def _numbers(
        self, row: int, column: int, keep: NDArray[np.bool_], ranks: Ids, number: Ids
    ) -> NDArray[np.uint32]:
        numbers = np.zeros(len(keep) + 1, np.uint32)
        numbers[1:][keep] = ranks
        local, root = self._open_in(row, column)
        numbers[local + 1] = number[root]
        return numbers

    def _strips(self, row: int) -> _RowStrips:
        blocks = [self._load(row, column) for column in range(self._columns)]
        bases = [self._first_basin[self._at(row, column)] for column in range(self._columns)]
        windows = [self._grid.window(row, column) for column in range(self._columns)]
        return _RowStrips(blocks, bases, windows, self._grid.area.width)

    def _at(self, row: int, column: int) -> int:
        return row * self._columns + column

    def _places(self) -> Iterator[tuple[int, int]]:
        return ((row, column) for row in range(self._rows) for column in range(self._columns))


class _RowStrips:
    """The basins and heights along the edges of a row of windows, with global numbers."""

    def __init__(
        self, blocks: list[Pieces], bases: list[int], windows: list[Window], width: int
    ) -> None:
        self._windows = windows
        ids = [[_shifted(strip, base) for strip in block.edge_basin]
               for block, base in zip(blocks, bases, strict=True)]  # fmt: skip
        self.top = np.concatenate([each[0] for each in ids])
        self.bottom = np.concatenate([each[1] for each in ids])
        self._columns = [(each[2], each[3]) for each in ids]
        self._top_height = np.concatenate([block.edge_height[0] for block in blocks])
        self._bottom_height = np.concatenate([block.edge_height[1] for block in blocks])
        self._column_heights = [block.edge_height[2:] for block in blocks]
        self._width = width

    @property
    def sides(self) -> _Sides:
        """The basins along first and last columns, indexed by the row in the window and by x."""
        return _Sides(self._windows, self._columns)

    def beside(self, shifts: Shifts) -> Iterator[tuple[Ids, Ids, NDArray[Any]]]:
        """Pairs of basins across the borders between windows of this row, and their heights."""
        for left in range(len(self._windows) - 1):
            yield from _adjacent(
                (self._columns[left][1], self._column_heights[left][1]),
                (self._columns[left + 1][0], self._column_heights[left + 1][0]),
                shifts,
            )

    def below(self, above: _RowStrips, shifts: Shifts) -> Iterator[tuple[Ids, Ids, NDArray[Any]]]:
        """Pairs of basins across the border to the row of windows above, and their heights."""
        yield from _adjacent(
            (above.bottom, above._bottom_height), (self.top, self._top_height), shifts
        )


class _Sides:
    """A lookup of the basins at the left and right edges of the windows of a row."""

    def __init__(self, windows: list[Window], columns: list[tuple[Ids, Ids]]) -> None:
        self._starts = np.array([window.x for window in windows])
        self._left = np.stack([left for left, _ in columns])
        self._right = np.stack([right for _, right in columns])

    def __getitem__(self, at: tuple[Ids, Ids]) -> Ids:
        y, x = at
        window = np.searchsorted(self._starts, x, side="right") - 1
        is_left = self._starts[window] == x
        return np.where(is_left, self._left[window, y], self._right[window, y])


def grid_shape(grid: WindowGrid) -> tuple[int, int]:
    """The number of rows and of columns of windows."""
    (height, width), (tall, wide) = grid.area.shape, grid.tile
    return -(-height // tall), -(-width // wide)


def _adjacent(
    one: tuple[Ids, NDArray[Any]], other: tuple[Ids, NDArray[Any]], shifts: Shifts
) -> Iterator[tuple[Ids, Ids, NDArray[Any]]]:
    """Pairs of neighbouring pixels of two parallel lines that touch: ``shifts`` along them."""
    length = len(one[0])
    for shift in shifts:
        here = slice(max(0, -shift), length - max(0, shift))
        there = slice(max(0, shift), length + min(0, shift))
        a, b = one[0][here], other[0][there]
        both = (a >= 0) & (b >= 0)
        yield a[both], b[both], np.minimum(one[1][here][both], other[1][there][both])


def _shifted(strip: NDArray[np.int32], base: int) -> Ids:
    """Local basins, from 1 on, as global ones, from 0 on; `NONE` for none."""
    return np.where(strip > 0, strip.astype(np.int64) + (base - 1), NONE)
