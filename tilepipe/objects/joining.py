"""Rings of objects that lie in several blocks, joined from the pieces that the blocks left.

Memory holds the ends of all pieces, and the points of the objects asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.objects.outlines import Outlines
from tilepipe.objects.spill import Borders
from tilepipe.objects.tracing import EACH, Chains, begins
from tilepipe.objects.walks import groups, offsets_of, ranges, walks

Ints = NDArray[np.int64]

Place = tuple[int, int]
"""The row and the column of a block."""


@dataclass(frozen=True, slots=True)
class Rings:
    """The rings of the objects that lie in several blocks, in the order of a table."""

    number: Ints
    """(r,): the object of each."""
    polygon: Ints
    """(r,): the polygon of each, in any order of numbers."""
    first: Ints
    """(r,): the place of its first point (`Chains.first`)."""
    shift: Ints
    """(r,): where that point is in the first of its pieces."""
    offsets: Ints
    """(r + 1,): where the pieces of each begin in `block`, `index` and `size`."""
    block: Ints
    """(k,): the block of each piece, by its number."""
    index: Ints
    """(k,): which of the block's pieces it is."""
    size: Ints
    """(k,): its points."""

    def of(self, start: int, stop: int) -> Rings:
        """The rings of objects with numbers from ``start`` to before ``stop``."""
        a, b = np.searchsorted(self.number, (start, stop))
        offsets = self.offsets[a : b + 1]
        pieces = slice(offsets[0], offsets[-1])
        return Rings(
            self.number[a:b], self.polygon[a:b], self.first[a:b], self.shift[a:b],
            offsets - offsets[0], self.block[pieces], self.index[pieces], self.size[pieces],
        )  # fmt: skip

    def outlines(self, pieces: Callable[[int], Chains]) -> Outlines:
        """The outlines of their objects.

        ``pieces`` gives the pieces of a block, by its number; each block is asked for once.
        """
        begin = offsets_of(self.size)
        points, nodes = np.empty((begin[-1], 2), np.int32), np.empty(begin[-1], bool)
        order = np.argsort(self.block, kind="stable")
        bounds = begins(self.block[order])
        for a, b in pairwise(bounds.tolist()):
            here = order[a:b]
            found, size = pieces(int(self.block[here[0]])), self.size[here]
            there, here = ranges(found.offsets[self.index[here]], size), ranges(begin[here], size)
            points[here], nodes[here] = found.points[there], found.nodes[there]
        rings = begin[self.offsets]
        # One by one, as a ring can be about as large as memory.
        for ring in np.flatnonzero(self.shift).tolist():
            own, shift = slice(rings[ring], rings[ring + 1]), -int(self.shift[ring])
            points[own] = np.roll(points[own], shift, axis=0)
            nodes[own] = np.roll(nodes[own], shift)
        polygons = begins(self.number, self.polygon)
        objects = np.searchsorted(polygons, begins(self.number))
        return Outlines(points, rings, polygons, objects, nodes)

    def points_of(self) -> tuple[Ints, Ints]:
        """The numbers of their objects, and the points of each."""
        objects = begins(self.number)
        points = offsets_of(self.size)[self.offsets[objects]]
        return self.number[objects[:-1]], np.diff(points)


_ENDS = {
    "number": np.int64, "part": np.int64, "closed": bool, "outside": bool, "first": np.int64,
    "first_at": np.int32, "start": np.int64, "start_direction": np.int8, "end": np.int64,
    "end_direction": np.int8, "block": np.int32, "index": np.int32, "size": np.int32,
}  # fmt: skip
"""What is known of each piece, in as few bytes as it takes: there may be millions."""


class Joining:
    """Collects the pieces of all blocks, but their points, and joins them."""

    def __init__(self) -> None:
        self._ends = {name: [np.zeros(0, dtype)] for name, dtype in _ENDS.items()}
        self._parts = 0
        self._pairs = [np.zeros((0, 2), np.int64)]
        self._open: dict[Place, tuple[Borders, int]] = {}

    def add(self, block: int, place: Place, pieces: Chains, borders: Borders) -> None:
        """Add a block; those above it and to its left come before it."""
        first = self._parts
        self._parts += len(borders.parts)
        known = {name: getattr(pieces, name) for name in EACH} | {
            "part": pieces.part + first,
            "block": np.full(len(pieces), block),
            "index": np.arange(len(pieces)),
            "size": np.diff(pieces.offsets),
        }
        for name, values in known.items():
            self._ends[name].append(values.astype(_ENDS[name]))
        row, column = place
        for other, theirs, ours in (
            (self._open.pop((row - 1, column), None), "below", borders.above),
            (self._open.get((row, column - 1)), "after", borders.before),
        ):
            if other is not None:
                self._join(*other, theirs, borders, first, ours)
        self._open[place] = borders, first

    def _join(
        self, one: Borders, first_one: int, side: str, other: Borders, first: int, ours: Ints
    ) -> None:
        theirs = getattr(one, side)
        same = (theirs > 0) & (ours > 0) & (one.parts[theirs] == other.parts[ours])
        pairs = np.stack((theirs[same] + first_one, ours[same] + first), axis=1)
        self._pairs.append(np.unique(pairs, axis=0))

    def rings(self) -> Rings:
        """Join all pieces to rings; nothing can be added after that."""
        # So that a walk begins with the piece that has the first point of its ring.
        order = np.argsort(np.concatenate(self._ends["first"]), kind="stable")
        ends = {name: np.concatenate(self._ends.pop(name))[order] for name in _ENDS}
        pairs = np.concatenate(self._pairs)
        ends["part"] = groups(self._parts, pairs[:, 0], pairs[:, 1])[ends["part"]]
        return _rings(ends)


def _rings(ends: Mapping[str, NDArray[Any]]) -> Rings:
    order, offsets = walks(_successors(ends))
    head = order[offsets[:-1]]
    number, part, first = (ends[name][head] for name in ("number", "part", "first"))
    outside = ends["outside"][head]
    # A polygon comes where its ring outside begins.
    begin = np.zeros(int(part.max(initial=-1)) + 1, np.int64)
    begin[part[outside]] = first[outside]
    rank = np.lexsort((first, ~outside, begin[part], number))
    sizes = np.diff(offsets)[rank]
    pieces = order[ranges(offsets[rank], sizes)]
    return Rings(
        number[rank], part[rank], first[rank], ends["first_at"][head][rank], offsets_of(sizes),
        *(ends[name][pieces] for name in ("block", "index", "size")),
    )  # fmt: skip


def _successors(ends: Mapping[str, NDArray[Any]]) -> Ints:
    """The piece with which the ring of each goes on; of a closed one, itself."""
    successor = np.arange(len(ends["number"]))
    chain = np.flatnonzero(~ends["closed"])
    number, count = ends["number"][chain], len(chain)
    meets = _equal_keys(
        np.concatenate((number, number)),
        np.concatenate((ends["end"][chain], ends["start"][chain])),
    )
    end, start = meets[:count], meets[count:]
    ending, leaving = np.argsort(end, kind="stable"), np.argsort(start, kind="stable")

    def both(of: Ints, order: Ints) -> tuple[Ints, Ints]:
        """The first and the last in ``order`` of those that meet where each chain ends."""
        at = of[order]
        return order[np.searchsorted(at, end)], order[np.searchsorted(at, end, "right") - 1]

    one, other = both(start, leaving)
    # At a corner where two pixels of an object touch, two chains end and two begin.
    first, last = both(end, ending)
    rival = np.where(np.arange(count) == first, last, first)
    part = ends["part"][chain]
    turn = np.where(part == part[rival], -1, 1)
    wanted = (ends["end_direction"][chain] + turn) & 3
    chosen = np.where(ends["start_direction"][chain][other] == wanted, other, one)
    chosen = np.where(one == other, one, chosen)
    assert np.array_equal(start[chosen], end), "every chain goes on where it ends"
    successor[chain] = chain[chosen]
    return successor


def _equal_keys(number: Ints, place: Ints) -> Ints:
    """Numbers that are equal where both keys are."""
    order = np.lexsort((place, number))
    sizes = np.diff(begins(number[order], place[order]))
    found = np.empty(len(order), np.int64)
    found[order] = np.repeat(np.arange(len(sizes)), sizes)
    return found
