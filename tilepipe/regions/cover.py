"""Rectangles that cover the cells of a region, so that windows over them do little work."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilepipe.regions.cells import Bools

PASS_PIXELS = 20_000
"""Fixed cost of a pass, in pixels; cuts that save less are not made."""

Rectangle = tuple[int, int, int, int]
"""(row, column, rows, columns), in cells."""

Costs = NDArray[np.float64]


def cover(cells: Bools, cell: int, rim: tuple[int, int], most: tuple[int, int]) -> list[Rectangle]:
    """Find disjoint rectangles that hold every cell inside.

    Cells are framed, and a frame is cut in two, each framed anew, as long as that makes less work:
    the pixels of all windows, which reach further than what they keep by a rim. One cut is looked
    at a time, so that it is a good cover and not the best one.

    Parameters
    ----------
    cells
        Of a block.
    cell
        Side of a cell, pixels.
    rim
        Rows and columns that a window takes more than it keeps.
    most
        Rows and columns of cells that a window may keep.
    """
    found: list[Rectangle] = []
    frames = [(0, 0, *cells.shape)]
    while frames:
        framed = _framed(cells, frames.pop())
        if framed is None:
            continue
        row, column, rows, columns = framed
        inside = cells[row : row + rows, column : column + columns]
        whole = _cost(np.array([rows]), np.array([columns]), cell, rim, most)[0]
        cuts = [_cuts(part, cell, rim, most, axis) for axis, part in enumerate((inside, inside.T))]
        axis = int(cuts[1].min(initial=np.inf) < cuts[0].min(initial=np.inf))
        too_large = rows > most[0] or columns > most[1]
        if not too_large and cuts[axis].min(initial=np.inf) >= whole:
            found.append(framed)
            continue
        at = int(cuts[axis].argmin()) + 1
        if axis == 0:
            frames += [(row + at, column, rows - at, columns), (row, column, at, columns)]
        else:
            frames += [(row, column + at, rows, columns - at), (row, column, rows, at)]
    return sorted(found)


def _framed(cells: Bools, frame: Rectangle) -> Rectangle | None:
    """The smallest rectangle within a frame that holds all of its cells."""
    row, column, rows, columns = frame
    inside = cells[row : row + rows, column : column + columns]
    down, across = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(down):
        return None
    return (
        row + int(down[0]),
        column + int(across[0]),
        int(down[-1] - down[0]) + 1,
        int(across[-1] - across[0]) + 1,
    )


def _cuts(
    inside: Bools, cell: int, rim: tuple[int, int], most: tuple[int, int], axis: int
) -> Costs:
    """The cost of both sides of each cut between two rows."""
    if axis == 1:
        rim, most = (rim[1], rim[0]), (most[1], most[0])
    number, width = inside.shape
    held = np.asarray(inside.any(1))
    left = np.where(held, inside.argmax(1), width)
    right = np.where(held, width - inside[:, ::-1].argmax(1), 0)
    total = np.zeros(number - 1)
    for turned in (False, True):
        way = slice(None, None, -1 if turned else 1)
        low, high = np.minimum.accumulate(left[way]), np.maximum.accumulate(right[way])
        # Framed rows begin and end with cells: up to a cut, from the first to the last that has.
        rows = np.maximum.accumulate(np.where(held[way], np.arange(1, number + 1), 0))
        costs = _cost(rows, np.maximum(high - low, 0), cell, rim, most)[:-1]
        total += costs[::-1] if turned else costs
    return total


def _cost(
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    cell: int,
    rim: tuple[int, int],
    most: tuple[int, int],
) -> Costs:
    """Pixels through the network for rectangles, cut evenly where they are too large."""
    down, across = np.ceil(rows / most[0]), np.ceil(columns / most[1])
    pixels = (rows * cell + down * rim[0]) * (columns * cell + across * rim[1])
    return np.asarray(pixels + PASS_PIXELS * down * across, np.float64)
