"""Outlines with fewer points, or smooth ones, that still part the same pixels.

A border runs along the edges of pixels. Each edge lies between the centres of two pixels, and a
changed border still passes between them, one pair after another: so whoever fills it by the centres
of pixels gets the mask that it came from. No two borders can cross, as no two pass between the same
centres; nothing vanishes, and no hole leaves its polygon.

Where several objects meet, outlines are split into arcs; these points stay. An arc is changed by
what it is alone, and read in one direction from whatever side: so neighbours still share it, and
an object can be changed without its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.objects.outlines import Outlines
from tilepipe.objects.walks import offsets_of, ranges

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ROOM = 0.45
"""How far a smooth border moves from the corner of a pixel along each axis; less than 1/2."""

NEAR = 0.1
"""Points of a smooth border are left out where it moves by no more, in pixels."""

STEPS = 5
"""How often each point of a smooth border is drawn and pushed back."""

DRAWN, PUSHED = 0.5, -0.53
"""The share of the way to the middle of its neighbours that a corner is drawn, and then pushed back
so that objects do not shrink (Taubin, SIGGRAPH 1995)."""

CLEAR = 1e-6
"""Twice the area by which a line must miss the centre of a pixel, so that rounding is nothing."""


def simplified(outlines: Outlines, tolerance: float = math.inf) -> Outlines:
    """Outlines with as few points as it takes to part the same pixels.

    Corners of pixels are drawn to the middle of their neighbours once, to lie along the border and
    not beside it, and thinned out as Douglas and Peucker do. Points are multiples of 1/4 pixel, and
    a border moves by less than one.

    Parameters
    ----------
    outlines : Outlines
        Along pixel edges, with nodes.
    tolerance : float
        How far a border may move at most where points are left out, in pixels.
    """
    corners = _Corners(outlines)
    places = corners.drawn((DRAWN,))
    return corners.outlines(outlines, places, _kept(places, corners, tolerance))


def smoothed(outlines: Outlines, steps: int = STEPS, near: float = NEAR) -> Outlines:
    """Outlines without the steps of pixels.

    As in surface nets (Gibson, MICCAI 1998), each corner of a pixel on a border is drawn to the
    middle of its neighbours several times, but stays within half a pixel of where it was. It is
    pushed back each time, so objects keep their areas, but for about 0.1 %.

    Parameters
    ----------
    outlines : Outlines
        Along pixel edges, with nodes.
    steps : int
        How often corners are drawn and pushed back.
    near : float
        Points are left out where the border moves by no more than this, in pixels.
    """
    corners = _Corners(outlines)
    places = corners.drawn((DRAWN, PUSHED) * steps)
    return corners.outlines(outlines, places, _kept(places, corners, near))


class _Corners:
    """All corners of pixels that outlines pass, not only those where they turn."""

    def __init__(self, outlines: Outlines) -> None:
        assert outlines.nodes is not None, "only outlines along pixel edges have nodes"
        points = outlines.points.astype(np.int64)
        sizes = np.diff(outlines.rings)
        step = points[_after(outlines.rings)] - points
        length = np.abs(step).sum(axis=1)
        along = ranges(np.zeros(len(points), np.int64), length)
        which = np.repeat(np.arange(len(points)), length)
        self.points = points[which] + np.sign(step)[which] * along[:, None]
        self.nodes = outlines.nodes[which] & (along == 0)
        self.rings = offsets_of(length)[outlines.rings]
        """Where each ring begins."""
        self.after = _after(self.rings)
        self.before = np.empty_like(self.after)
        self.before[self.after] = np.arange(len(self.after))
        breaks = self.nodes.copy()
        whole = np.ones(len(sizes), bool)
        whole[np.repeat(np.arange(len(sizes)), np.diff(self.rings))[self.nodes]] = False
        breaks[self.rings[:-1][whole]] = True
        self.breaks = breaks
        """Where arcs begin: at nodes, or where a ring without any begins."""

    def drawn(self, shares: Sequence[float]) -> Floats:
        """Where corners are once drawn to the middle of their neighbours by shares of the way."""
        still = self.points.astype(np.float64)
        places: Floats = still
        for share in shares:
            middle = (places[self.before] + places[self.after]) / 2
            drawn = np.clip(places + share * (middle - places), still - ROOM, still + ROOM)
            places = np.where(self.nodes[:, None], still, drawn)
        return places

    def outlines(
        self, outlines: Outlines, places: NDArray[Any], kept: NDArray[np.bool_]
    ) -> Outlines:
        """The same objects with some of the corners as their points, moved to ``places``."""
        ring = np.repeat(np.arange(len(self.rings) - 1), np.diff(self.rings))[kept]
        chosen = places[kept]
        begin = np.searchsorted(ring, np.arange(len(self.rings)))
        # Rings begin with the first of their points in raster order, as those along edges do.
        order = np.lexsort((chosen[:, 0], chosen[:, 1], ring))
        sizes = np.diff(begin)
        first = order[begin[:-1]] - begin[:-1]
        at = ranges(np.zeros(len(sizes), np.int64), sizes) + np.repeat(first, sizes)
        turned = np.repeat(begin[:-1], sizes) + at % np.repeat(sizes, sizes)
        points = chosen[turned].astype(np.int32 if places.dtype.kind == "i" else np.float64)
        return Outlines(points, begin, outlines.polygons, outlines.objects)


@dataclass(frozen=True, slots=True)
class _Arcs:
    """The arcs of outlines, each in the direction in which both its sides read it."""

    corners: Ints
    """The corners of one arc after another, both its ends included."""
    offsets: Ints
    """(arcs + 1,): where each begins."""

    @classmethod
    def of(cls, corners: _Corners) -> _Arcs:
        begin = np.flatnonzero(corners.breaks)
        ring = np.searchsorted(corners.rings, begin, side="right") - 1
        # The last arc of a ring goes on at the ring's beginning, up to its first break.
        base, stop = corners.rings[:-1][ring], corners.rings[1:][ring]
        following = np.append(begin[1:], 0)
        first = begin[np.searchsorted(begin, base)]
        end = np.where(following >= stop, first + stop - base, following)
        end[-1:] = first[-1:] + stop[-1:] - base[-1:]
        sizes = end - begin + 1
        offsets = offsets_of(sizes)
        size = np.repeat(stop - base, sizes)
        found = ranges(begin, sizes) - np.repeat(base, sizes)
        found = found % size + np.repeat(base, sizes)
        y, x = corners.points[:, 1], corners.points[:, 0]
        place = y * (int(x.max(initial=0)) + 1) + x
        one, two = place[found[offsets[:-1]]], place[found[offsets[:-1] + 1]]
        last, second = place[found[offsets[1:] - 1]], place[found[offsets[1:] - 2]]
        back = (one > last) | ((one == last) & (two > second))
        number = ranges(np.zeros(len(sizes), np.int64), sizes)
        mirrored = np.repeat(sizes, sizes) - 1 - number
        number = np.where(np.repeat(back, sizes), mirrored, number)
        return cls(found[np.repeat(offsets[:-1], sizes) + number], offsets)


def _kept(places: Floats, corners: _Corners, tolerance: float) -> NDArray[np.bool_]:
    """Which corners remain where each arc is split until its chords are good enough.

    A chord is, if it passes between the centres of the pixels on both sides of each of the edges
    that it stands for, and no corner is farther from it than the tolerance. It is split at the
    corner farthest from it.
    """
    kept: NDArray[np.bool_] = corners.breaks.copy()
    if not len(kept):
        return kept
    arcs = _Arcs.of(corners)
    still = corners.points[arcs.corners]
    points = places[arcs.corners]
    start, stop = arcs.offsets[:-1], arcs.offsets[1:] - 1
    while len(start):
        long = stop - start > 1
        start, stop = start[long], stop[long]
        farthest, distance = _farthest(points, start, stop)
        split = (distance > tolerance) | ~_passes(points, still, start, stop)
        middle = farthest[split]
        kept[arcs.corners[middle]] = True
        start, stop = (
            np.concatenate((start[split], middle)),
            np.concatenate((middle, stop[split])),
        )
    return kept


def _farthest(points: Floats, start: Ints, stop: Ints) -> tuple[Ints, Floats]:
    """The first of the points farthest from each chord, and how far that is."""
    inner = stop - start - 1
    index = ranges(start + 1, inner)
    begin = np.repeat(points[start], inner, axis=0)
    chord = points[stop] - points[start]
    length = np.hypot(chord[:, 0], chord[:, 1])
    offset = points[index] - begin
    across = np.abs(_cross(np.repeat(chord, inner, axis=0), offset))
    # A chord from a point to itself has no length.
    apart = np.hypot(offset[:, 0], offset[:, 1])
    lengths = np.repeat(length, inner)
    distance = np.divide(across, lengths, out=apart, where=lengths > 0)
    if not len(start):
        return start, np.zeros(0)
    offsets = offsets_of(inner)
    most = np.maximum.reduceat(distance, offsets[:-1])
    best = np.flatnonzero(distance == np.repeat(most, inner))
    return index[best[np.searchsorted(best, offsets[:-1])]], most


def _passes(points: Floats, still: Ints, start: Ints, stop: Ints) -> NDArray[np.bool_]:
    """Whether each chord passes between the centres of pixels as the edges it stands for do."""
    if not len(start):
        return np.zeros(0, bool)
    edges = stop - start
    index = ranges(start, edges)
    step = still[index + 1] - still[index]
    middle = (still[index] + still[index + 1]) / 2
    side = np.stack((-step[:, 1], step[:, 0]), axis=1) / 2
    begin = np.repeat(points[start], edges, axis=0)
    chord = np.repeat(points[stop] - points[start], edges, axis=0)
    one, other = _cross(chord, middle + side - begin), _cross(chord, middle - side - begin)
    good: NDArray[np.bool_] = (one > CLEAR) & (other < -CLEAR)
    passes = np.logical_and.reduceat(good, offsets_of(edges)[:-1])
    return np.asarray(passes, bool)


def _cross(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0])


def _after(rings: Ints) -> Ints:
    """The index of the point after each, around rings that begin at ``rings``."""
    after = np.arange(1, int(rings[-1]) + 1)
    after[rings[1:] - 1] = rings[:-1]
    return after
