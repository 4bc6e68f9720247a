"""Holes that each object encloses, filled once objects have numbers.

Unlike those of a class (`tilepipe.objects.holes`), they may have other objects of that class in
them, which remain objects of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.objects.holes import enclosing, open_pieces
from tilepipe.objects.job import Workspace
from tilepipe.objects.passes import by_place
from tilepipe.objects.pieces import Pieces
from tilepipe.objects.rules import NO_ANSWER
from tilepipe.objects.unions import Unions


def fill_enclosed(work: Workspace) -> None:
    """Give the holes of each object its number, in the ``numbers`` of a workspace."""
    for window in work.windows():
        work.save("holes", window, _outside(work, window))
    load = by_place(work, lambda window: Pieces.from_tables(work.load("holes", window)))
    unions = Unions(work.grid, load, corners=not work.job.corners)
    first = [np.full(1, -1)]
    for windows, (holes, names) in zip(work.rows(), unions.rows(), strict=True):
        first.append(holes.first)
        for window, name in zip(windows, names, strict=True):
            work.save("fillings", window, {"hole": name})
    owner = _owners(work, np.concatenate(first))
    array = work.array("numbers")
    for window in work.windows():
        becomes = owner[work.load("fillings", window)["hole"]]
        if becomes.any():
            numbers = np.asarray(array[window.slices()])
            pieces = _free(work, numbers, window, window).numbers
            array[window.slices()] = np.where(pieces > 0, becomes[pieces], numbers)


def _outside(work: Workspace, window: Window) -> dict[str, NDArray[Any]]:
    """The pieces outside all objects, the object above the first pixel of each, and which are open.

    Open are those that touch the border of the mask.
    """
    read = window.pad(1).intersect(work.grid.area)
    assert read is not None, "the window is in the mask"
    numbers = np.asarray(work.array("numbers")[read.slices()])
    pieces = _free(work, numbers, read, window)
    inside = (numbers > 0).astype(np.uint8)
    _, beside = enclosing(pieces.numbers, len(pieces.part), inside, read, window)
    y, x = np.divmod(pieces.first, work.grid.area.width)
    above = numbers[np.maximum(y - 1 - read.y, 0), x - read.x]
    return {**pieces.tables, "above": above, "open": beside == NO_ANSWER}


def _free(work: Workspace, numbers: NDArray[Any], read: Window, window: Window) -> Pieces:
    inside = (numbers > 0).astype(np.uint8)
    corners = not work.job.corners
    return open_pieces(inside, read, window, work.grid.area.width, corners=corners)


def _owners(work: Workspace, first: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The object that encloses each hole, from hole 0, which is none; 0 for those that are open."""
    owner, is_open = np.zeros(len(first), np.uint32), np.zeros(len(first), bool)
    for window in work.windows():
        piece, hole = work.load("holes", window), work.load("fillings", window)["hole"][1:]
        # The pixel above the topmost pixel of a hole belongs to the object around the hole.
        begins = first[hole] == piece["first"]
        owner[hole[begins]] = piece["above"][begins]
        is_open[hole[piece["open"]]] = True
    owner[is_open] = 0
    return owner
