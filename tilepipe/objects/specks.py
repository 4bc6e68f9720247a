"""Specks: objects too small to stand alone, joined to the neighbour with the longest common border.

Borders are counted window by window, in edges of pixels, and summed; the sums do not depend on the
windows, and neither does what becomes of a speck.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class SpeckBorders(NamedTuple):
    """How long the borders between specks and the objects beside them are; arrays (n,).

    Sorted by speck, then neighbour, each pair once.
    """

    specks: Ids
    """The number of the speck."""
    neighbours: Ids
    """The number of an object beside it, which is no speck."""
    edges: Ids
    """Edges of pixels that both share."""


def speck_borders(
    ids: NDArray[Any], is_speck: NDArray[np.bool_], shape: tuple[int, int] | None = None
) -> SpeckBorders:
    """Count the pixel edges between specks and other objects, in a window.

    An edge lies between a pixel and the next one to the right or below, and belongs to the window
    of the former. So the counts of windows that partition an image add up to those of the image.

    Parameters
    ----------
    ids : ndarray of integers, shape (H, W)
        The number of the object at each pixel; 0 is none. The window, and one more column on the
        right and one more row below where the image goes on there.
    is_speck : ndarray of bool, shape (N + 1,)
        Whether each object is a speck, by its number.
    shape : (rows, columns), optional
        Of the window itself; if left out, ``ids`` has no pixels beyond it.
    """
    rows, columns = ids.shape if shape is None else shape
    ids = ids[: rows + 1, : columns + 1]
    pairs = np.concatenate(
        [
            _across(ids[:rows, :-1], ids[:rows, 1:], is_speck),
            _across(ids[:-1, :columns], ids[1:, :columns], is_speck),
        ],
        axis=1,
    )
    return _counted(pairs[0], pairs[1], np.ones(pairs.shape[1], np.int64))


def summed(parts: Iterable[SpeckBorders]) -> SpeckBorders:
    """Sum the counts of several windows."""
    none = SpeckBorders(*(np.zeros(0, np.int64) for _ in SpeckBorders._fields))
    columns = zip(none, *parts, strict=True)
    return _counted(*(np.concatenate(column) for column in columns))


def absorb(
    is_speck: NDArray[np.bool_],
    specks: NDArray[Any],
    neighbours: NDArray[Any],
    edges: NDArray[Any],
) -> Ids:
    """Find what each object becomes once specks have joined their neighbours.

    A speck joins the object with which it shares most edges, the one with the lowest number if
    there are several. A speck beside no other object, or only beside specks, becomes none.

    Parameters
    ----------
    is_speck : ndarray of bool, shape (N + 1,)
        Whether each object is a speck, by its number.
    specks, neighbours, edges : ndarrays of integers, shape (n,)
        As in `SpeckBorders`, of all windows, in any order; a pair may appear more than once.

    Returns
    -------
    ndarray of int64, shape (N + 1,)
        The number that each object takes, by the one it has: its own, its neighbour's, or 0.
    """
    becomes = np.where(is_speck, 0, np.arange(len(is_speck)))
    speck, neighbour, length = _counted(specks, neighbours, edges)
    order = np.lexsort((neighbour, -length, speck))
    speck, neighbour = speck[order], neighbour[order]
    best = np.ones(len(speck), np.bool_)
    best[1:] = speck[1:] != speck[:-1]
    becomes[speck[best]] = neighbour[best]
    return becomes


def _across(one: NDArray[Any], other: NDArray[Any], is_speck: NDArray[np.bool_]) -> Ids:
    """The speck and its neighbour at each edge between pixels and the next ones, shape (2, n)."""
    differ = (one != other) & (one > 0) & (other > 0)
    ends = np.stack((one[differ], other[differ])).astype(np.int64, copy=False)
    specks = is_speck[ends]
    kept = specks[0] != specks[1]
    ends = ends[:, kept]
    return np.where(specks[0, kept], ends, ends[::-1])


def _counted(specks: NDArray[Any], neighbours: NDArray[Any], edges: NDArray[Any]) -> SpeckBorders:
    order = np.lexsort((neighbours, specks))
    pairs = np.stack((specks[order], neighbours[order])).astype(np.int64, copy=False)
    first = np.ones(pairs.shape[1], np.bool_)
    first[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(0)
    starts = np.flatnonzero(first)
    lengths = np.asarray(edges)[order].astype(np.int64, copy=False)
    sums = np.add.reduceat(lengths, starts) if len(starts) else np.zeros(0, np.int64)
    return SpeckBorders(pairs[0, starts], pairs[1, starts], sums)
