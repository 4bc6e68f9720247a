"""Holes: pixels of no class that one class of objects encloses, in the whole mask.

Pixels without a class are connected by edges if objects are by corners, and by corners if those are
by edges. What touches the border of the mask, pixels without an answer, or a second class, is no
hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window, WindowGrid
from tilepipe.objects.pieces import Numbers, Pieces, components, connected_pieces
from tilepipe.objects.rules import BORDER, FREE, NO_ANSWER, Parts
from tilepipe.objects.unions import Unions


def open_pieces(
    parts: Parts, read: Window, window: Window, width: int, *, corners: bool = False
) -> Pieces:
    """The pieces of a window that have no class, by edges, or by ``corners`` too.

    ``parts`` are those of ``read``, which has one more pixel than ``window`` on all sides within
    the mask.
    """
    return connected_pieces(_free(parts[window.slices(read)]), window, width, corners=corners)


def open_numbers(parts: Parts, *, corners: bool = False) -> Numbers:
    """The numbers of `open_pieces`, of a window without pixels around it."""
    return components(_free(parts), corners=corners)[0]


def _free(parts: Parts) -> Parts:
    return np.asarray(parts == FREE).view(np.uint8)


def enclosing(
    numbers: Numbers, count: int, parts: Parts, read: Window, window: Window
) -> NDArray[np.uint8]:
    """The lowest and the highest part beside each piece of `open_pieces`, (2, count).

    Beyond the border of the mask, there is no answer.
    """
    ringed = np.full((window.height + 2, window.width + 2), NO_ANSWER, np.uint8)
    ringed[read.slices(Window.around(window, window.pad(1)))] = parts
    low, high = np.full(count + 1, NO_ANSWER, np.uint8), np.zeros(count + 1, np.uint8)
    for y, x in ((0, 1), (1, 0), (1, 2), (2, 1)):
        beside = ringed[y : y + window.height, x : x + window.width]
        at = (numbers > 0) & (beside != FREE)
        np.minimum.at(low, numbers[at], beside[at])
        np.maximum.at(high, numbers[at], beside[at])
    return np.stack((low, high))[:, 1:]


def fillings(
    grid: WindowGrid,
    load: Callable[[int, int], tuple[Pieces, NDArray[np.uint8]]],
    max_hole: int,
    *,
    corners: bool = False,
) -> Iterator[tuple[int, int, Parts]]:
    """What each piece becomes: (row, column, parts), the parts (n + 1,) from piece 0 on.

    Parameters
    ----------
    grid
        The windows.
    load
        The pieces of a window, without their image, and what encloses them.
    max_hole
        Larger holes, in pixels, are kept; 0 for no limit.
    corners
        Whether the pieces are connected by corners too.
    """
    unions = Unions(grid, lambda row, column: load(row, column)[0], corners=corners)
    low, high, area = _Growing(NO_ANSWER), _Growing(FREE), [np.zeros(1, np.int64)]
    kept: list[list[NDArray[np.uint32]]] = []
    for row, (objects, numbers) in enumerate(unions.rows()):
        area.append(objects.area)
        for column, number in enumerate(numbers):
            beside = load(row, column)[1]
            low.reduce(np.minimum, number[1:], beside[0])
            high.reduce(np.maximum, number[1:], beside[1])
        kept.append(numbers)
    areas = np.concatenate(area)
    lowest, highest = low.values[: len(areas)], high.values[: len(areas)]
    is_hole = (lowest == highest) & (lowest > FREE) & (lowest < BORDER)
    if max_hole:
        is_hole &= areas <= max_hole
    becomes = np.where(is_hole, lowest, FREE).astype(np.uint8)
    for row, numbers in enumerate(kept):
        for column, number in enumerate(numbers):
            yield row, column, becomes[number]


class _Growing:
    """A value for each number, as numbers turn up."""

    def __init__(self, start: int) -> None:
        self.values = np.full(1, start, np.uint8)
        self._start = start

    def reduce(self, how: Any, numbers: NDArray[Any], values: NDArray[np.uint8]) -> None:
        most = int(numbers.max(initial=0))
        if most >= len(self.values):
            more = np.full(max(most + 1 - len(self.values), len(self.values)), self._start)
            self.values = np.concatenate((self.values, more.astype(np.uint8)))
        how.at(self.values, numbers, values)
