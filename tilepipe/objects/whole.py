"""Objects of pixels in memory: the same rules as across windows, in one window."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window, WindowGrid
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects import basins
from tilepipe.objects.growth import grow
from tilepipe.objects.holes import enclosing, fillings, open_pieces
from tilepipe.objects.pieces import Pieces, connected_pieces, split_pieces
from tilepipe.objects.rules import BORDER, Parts
from tilepipe.objects.specks import absorb, speck_borders
from tilepipe.objects.unions import Unions
from tilepipe.objects.walks import in_order_of_first

Numbers = NDArray[np.int64]


def number_parts(parts: Parts, rule: ObjectRule, *, corners: bool = True) -> Numbers:
    """Number the objects of a mask in memory.

    Parameters
    ----------
    parts : ndarray of uint8, shape (H, W)
        The part of an object that each pixel is (`tilepipe.objects.rules`).
    rule : ObjectRule
        How pixels become objects.
    corners : bool
        Whether pixels that share a corner are connected, and not only those that share an edge;
        basins, of split objects, always are.

    Returns
    -------
    ndarray of int64, shape (H, W)
        1, 2, 3 ... in raster order of the objects' first pixels; 0 for no object.
    """
    whole = Window(0, 0, parts.shape[0], parts.shape[1])
    if rule.fill_holes:
        parts = filled(parts, rule.max_hole, corners=corners)
    if rule.method == "split":
        depth = round(rule.depth * basins.UNIT)
        pieces = split_pieces(parts, whole, whole, whole.width, depth)
    else:
        depth, pieces = 1, connected_pieces(parts, whole, whole.width, corners=corners)
    unions = Unions(WindowGrid(whole, whole.shape), lambda _row, _column: pieces, depth=depth)
    _, (numbers,) = next(unions.rows())
    found = numbers.astype(np.int64)[pieces.numbers]
    if rule.method == "seeded":
        found = grow(found, parts == BORDER, rule.reach)
    return in_raster_order(_without_specks(found, rule))


def filled(parts: Parts, max_hole: int = 0, *, corners: bool = True) -> Parts:
    """Fill what one class encloses, up to ``max_hole`` pixels (0: whatever its size)."""
    whole = Window(0, 0, parts.shape[0], parts.shape[1])
    pieces = open_pieces(parts, whole, whole, whole.width, corners=not corners)
    beside = enclosing(pieces.numbers, len(pieces.part), parts, whole, whole)

    def load(_row: int, _column: int) -> tuple[Pieces, NDArray[np.uint8]]:
        return pieces, beside

    grid = WindowGrid(whole, whole.shape)
    (_, _, becomes), *_ = fillings(grid, load, max_hole, corners=not corners)
    return np.where(pieces.numbers > 0, becomes[pieces.numbers], parts).astype(np.uint8)


def in_raster_order(numbers: NDArray[Any]) -> Numbers:
    """Renumber objects 1, 2, 3 ... by their first pixels, without gaps."""
    found = np.zeros(numbers.shape, np.int64)
    there = numbers > 0
    found[there] = in_order_of_first(numbers[there]) + 1
    return found


def _without_specks(numbers: Numbers, rule: ObjectRule) -> Numbers:
    sizes = np.bincount(numbers.reshape(-1))
    is_speck = sizes < rule.min_area
    is_speck[0] = False
    if not is_speck.any():
        return numbers
    if rule.specks == "merge":
        becomes: Numbers = absorb(is_speck, *speck_borders(numbers, is_speck))
        return becomes[numbers]
    kept: Numbers = np.where(is_speck[numbers], 0, numbers)
    return kept
