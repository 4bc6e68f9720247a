"""Rings of objects that lie in several blocks, joined from the pieces that the blocks left.

Memory holds the ends of all pieces, and the points of the objects asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.objects.outlines import Outlines
from tilepipe.objects.spill import Borders
from tilepipe.objects.tracing import EACH, Pieces, begins
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
    """(r,): the place of its first point (`Pieces.first`)."""
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

    def outlines(self, pieces: Callable[[int], Pieces]) -> Outlines:
        """The outlines of their objects.

        ``pieces`` gives the pieces of a block, by its number; each block is asked for once.
        """
        begin = offsets_of(self.size)
        points, nodes = np.empty((begin[-1], 2), np.int32), np.empty(begin[-1], bool)
        for block in np.unique(self.block).tolist():
            here = np.flatnonzero(self.block == block)
            found, index, size = pieces(block), self.index[here], self.size[here]
            there, here = ranges(found.offsets[index], size), ranges(begin[:-1][here], size)
            points[here], nodes[here] = found.points[there], found.nodes[there]
        rings = begin[self.offsets]
        sizes = np.diff(rings)
        turned = ranges(np.zeros(len(sizes), np.int64), sizes) + np.repeat(self.shift, sizes)
        order = np.repeat(rings[:-1], sizes) + turned % np.repeat(sizes, sizes)
        polygons = begins(self.number, self.polygon)
        objects = np.searchsorted(polygons, begins(self.number))
        return Outlines(points[order], rings, polygons, objects, nodes[order])


class Joining:
    """Collects the pieces of all blocks, but their points, and joins them."""

    def __init__(self) -> None:
        self._pieces: list[Pieces] = []
        self._blocks: list[int] = []
        self._first_part = [0]
        self._pairs: list[Ints] = []
        self._open: dict[Place, tuple[Borders, int]] = {}

    def add(self, block: int, place: Place, pieces: Pieces, borders: Borders) -> None:
        """Add a block; those above it and to its left come before it."""
        first = self._first_part[-1]
        self._first_part.append(first + len(borders.parts))
        self._pieces.append(pieces)
        self._blocks.append(block)
        row, column = place
        for other, theirs, ours in (
            (self._open.get((row - 1, column)), "below", borders.above),
            (self._open.get((row, column - 1)), "after", borders.before),
        ):
            if other is not None:
                self._join(*other, theirs, borders, first, ours)
        self._open.pop((row - 1, column), None)
        self._open[place] = borders, first

    def _join(
        self, one: Borders, first_one: int, side: str, other: Borders, first: int, ours: Ints
    ) -> None:
        theirs = getattr(one, side)
        same = (theirs > 0) & (ours > 0) & (one.parts[theirs] == other.parts[ours])
        pairs = np.stack((theirs[same] + first_one, ours[same] + first), axis=1)
        self._pairs.append(np.unique(pairs, axis=0))

    def rings(self) -> Rings:
        """Join all pieces to rings."""
        blocks = len(self._blocks)
        counts = [len(pieces) for pieces in self._pieces]
        block = np.repeat(np.array(self._blocks, np.int64), counts)
        index = ranges(np.zeros(blocks), np.array(counts))
        part = self._whole_parts(counts)
        sizes = [np.diff(pieces.offsets) for pieces in self._pieces]
        ends = {
            name: np.concatenate([getattr(p, name) for p in self._pieces] or [np.zeros(0, int)])
            for name in EACH
        }
        ends |= {"block": block, "index": index, "part": part}  # the part over all blocks
        ends["size"] = np.concatenate(sizes or [np.zeros(0, np.int64)])
        # So that a walk begins with the piece that has the first point of its ring.
        order = np.argsort(ends["first"], kind="stable")
        return _rings({name: values[order] for name, values in ends.items()})

    def _whole_parts(self, counts: list[int]) -> Ints:
        """The part of each piece, joined over blocks."""
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *self._pairs])
        whole = groups(self._first_part[-1], pairs[:, 0], pairs[:, 1])
        own = np.concatenate([np.zeros(0, np.int64), *(p.part for p in self._pieces)])
        return np.asarray(whole[own + np.repeat(np.array(self._first_part[:-1], np.int64), counts)])


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
