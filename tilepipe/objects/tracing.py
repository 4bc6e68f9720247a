"""The outlines of labels along the edges of their pixels, of all objects of a window at once.

An edge lies on a side of a pixel whose neighbour there has another label, and is walked with the
pixel on its right hand, as seen on a screen (y downwards): along the top to the right, and on. So
by the sign of the area of their coordinates as they are, rings outside are counter-clockwise and
holes clockwise; on a map, whose y points up, the other way round.

A polygon must not pinch. Where two pixels of an object touch only by a corner, the walk stays with
the pixel it follows if they belong to different 4-connected parts, each a polygon of its own, and
changes to the other pixel if they belong to the same part; so no ring comes to a point twice.

A window makes the edges of its own pixels, and knows a rim of one pixel. What goes on in other
windows ends in open chains; so does a walk at a corner where it takes other windows to tell whether
two parts are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.objects.outlines import Outlines
from tilepipe.objects.runs import Runs
from tilepipe.objects.walks import ENDS, offsets_of, ranges, walks

Ints = NDArray[np.int64]

RIGHT, DOWN, LEFT, UP = range(4)
"""Directions of edges; the next one is a turn to the right."""

LAST = np.iinfo(np.int64).max
"""The first place of a chain without points: after all others."""


EACH = (
    "number", "part", "closed", "outside", "first", "first_at",
    "start", "start_direction", "end", "end_direction",
)  # fmt: skip
"""The arrays of `Chains` with an entry for each."""


@dataclass(frozen=True, slots=True)
class Chains:
    """Closed chains (rings) and open ones (parts of rings) of the outlines of a window's objects.

    They are in order of their object, their part, and the first of their points, in raster order;
    of a part, the ring outside comes before the holes if both are closed. Places are counted in the
    whole image: ``y * (width + 1) + x`` is the place of a corner of a pixel, where ``width`` is the
    image's.
    """

    number: Ints
    """(k,): the label."""
    part: Ints
    """(k,): the part of `Runs`."""
    closed: NDArray[np.bool_]
    """(k,): whether it is a ring."""
    outside: NDArray[np.bool_]
    """(k,): whether its ring is outside, should the first of its points be the ring's first."""
    first: Ints
    """(k,): the place of the first of its points, in raster order."""
    first_at: Ints
    """(k,): where that point is in the piece."""
    start: Ints
    """(k,): the place at which it begins, which may lie between two points in line."""
    start_direction: Ints
    end: Ints
    """(k,): the place at which it ends; never a point of it."""
    end_direction: Ints
    points: NDArray[np.int32]
    """(P, 2): x and y of its points in the whole image."""
    nodes: NDArray[np.bool_]
    """(P,): as in `Outlines`."""
    offsets: Ints
    """(k + 1,): where each begins in `points`."""

    def __len__(self) -> int:
        return len(self.number)

    def take(self, chosen: NDArray[Any]) -> Chains:
        """Some of them, by their indices or by a mask."""
        index = np.arange(len(self))[chosen]
        sizes = np.diff(self.offsets)[index]
        named = {name: getattr(self, name)[index] for name in EACH}
        points = ranges(self.offsets[index], sizes)
        return Chains(
            **named, points=self.points[points], nodes=self.nodes[points], offsets=offsets_of(sizes)
        )

    def outlines(self) -> Outlines:
        """The outlines of the objects, where all pieces are rings."""
        assert self.closed.all(), "open chains are joined first"
        parts = begins(self.number, self.part)
        return Outlines(
            self.points,
            self.offsets,
            parts,
            np.searchsorted(parts, begins(self.number)),
            self.nodes,
        )


_NONE = Chains(
    **{name: np.zeros(0, bool if name in ("closed", "outside") else np.int64) for name in EACH},
    points=np.zeros((0, 2), np.int32),
    nodes=np.zeros(0, bool),
    offsets=np.zeros(1, np.int64),
)
"""Of a window without labels."""


def begins(*keys: Ints) -> Ints:
    """Where in sorted arrays a group of equals begins, and the end of the last."""
    count = len(keys[0])
    new = np.zeros(count, bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.append(np.flatnonzero(new), count)


def crossing(labels: NDArray[Any]) -> Ints:
    """The labels with pixels on both sides of a window's border, sorted.

    ``labels`` has the window and a rim of one pixel.
    """
    found = [np.zeros(0, np.int64)]
    for turns in range(4):
        turned = np.rot90(labels, turns)
        beyond, row = turned[0], turned[1, 1:-1]
        for shift in range(3):
            same = beyond[shift : shift + len(row)] == row
            found.append(row[same & (row > 0)].astype(np.int64))
    return np.unique(np.concatenate(found))


def open_parts(labels: NDArray[Any], runs: Runs) -> NDArray[np.bool_]:
    """Whether each part of a window goes on beyond its border; ``labels`` has a rim of one."""
    found = np.zeros(int(runs.part.max(initial=0)) + 1, bool)
    for turns in range(4):
        turned, inside = np.rot90(labels, turns), np.rot90(runs.of_pixel, turns)
        same = turned[0, 1:-1] == turned[1, 1:-1]
        found[runs.part[inside[0, same]]] = True
    found[0] = False
    return found


def trace(labels: NDArray[Any], runs: Runs, window: Window, image_width: int) -> Chains:
    """The outlines of all labels of a window.

    Parameters
    ----------
    labels : ndarray of integers, shape (H + 2, W + 2)
        The window with a rim of one pixel, 0 outside the image.
    runs : Runs
        Of the window without the rim.
    window : Window
        Where it lies in the image.
    image_width : int
        Columns of the image.
    """
    edges = _Edges(labels, runs)
    successor = edges.successors(open_parts(labels, runs))
    order, offsets = walks(successor)
    if not len(order):
        return _NONE
    begin, last = order[offsets[:-1]], order[offsets[1:] - 1]
    node = edges.nodes()[order]
    turning = edges.turns()[order] | node
    # Edges are in order of vertices, so the lowest of a walk begins at the first of its points.
    lowest = np.minimum.reduceat(np.where(turning, order, len(order)), offsets[:-1])
    some = lowest < len(order)
    lowest = np.where(some, lowest, begin)
    before = np.empty(len(order), np.int64)
    before[order] = np.cumsum(turning) - turning
    kept = np.append(before[begin], np.count_nonzero(turning))

    def place(vertex: Ints) -> Ints:
        y, x = np.divmod(vertex, edges.stride)
        return (y + window.y) * (image_width + 1) + x + window.x

    y, x = np.divmod(edges.vertex[order[turning]], edges.stride)
    pieces = Chains(
        number=edges.number[begin],
        part=edges.part[begin],
        closed=successor[last] >= 0,
        outside=(edges.direction[lowest] == RIGHT) & some,
        first=np.where(some, place(edges.vertex[lowest]), LAST),
        first_at=before[lowest] - kept[:-1],
        start=place(edges.vertex[begin]),
        start_direction=edges.direction[begin],
        end=place(edges.vertex[last] + edges.step[last]),
        end_direction=edges.direction[last],
        points=np.stack((x + window.x, y + window.y), axis=1).astype(np.int32),
        nodes=node[turning],
        offsets=kept,
    )
    return pieces.take(np.lexsort((pieces.first, ~pieces.outside, pieces.part, pieces.number)))


class _Edges:
    """The edges of a window's pixels, in raster order of the vertices at which they begin.

    A vertex has the flat index of the pixel to its upper left, in the window with its rim.
    """

    def __init__(self, labels: NDArray[Any], runs: Runs) -> None:
        self.stride = stride = labels.shape[1]
        self._labels = labels.ravel()
        height, width = runs.of_pixel.shape
        # The pixels around a vertex, as seen by whoever leaves it in each direction.
        up_left, up_right, down_left, down_right = 0, 1, stride, stride + 1
        self._ahead_right = np.array([down_right, down_left, up_left, up_right])
        self._ahead_left = np.array([up_right, down_right, down_left, up_left])
        self._behind_right = np.array([down_left, up_left, up_right, down_right])
        self._behind_left = np.array([up_left, up_right, down_right, down_left])
        core = labels[1:-1, 1:-1]
        beyond = {
            RIGHT: labels[:-2, 1:-1], DOWN: labels[1:-1, 2:],
            LEFT: labels[2:, 1:-1], UP: labels[1:-1, :-2],
        }  # fmt: skip
        some, codes = core > 0, []
        for direction, other in beyond.items():
            y, x = np.divmod(np.flatnonzero((core != other) & some), width)
            vertex = (y + 1) * stride + (x + 1) - self._ahead_right[direction]
            codes.append(vertex * 4 + direction)
        self._codes = np.sort(np.concatenate(codes))
        self.vertex, self.direction = np.divmod(self._codes, 4)
        self.step = np.array([1, stride, -1, -stride])[self.direction]
        rimmed = np.zeros((height + 2, width + 2), np.int32)
        rimmed[1:-1, 1:-1] = runs.of_pixel
        rimmed[1:-1, 1:-1] += 1
        self._runs, self._part_of = rimmed.ravel(), np.concatenate(([0], runs.part))
        owner = self.vertex + self._ahead_right[self.direction]
        self.number = self._labels[owner].astype(np.int64)
        self.part = self._parts(owner)

    def _parts(self, pixels: Ints) -> Ints:
        """The parts of pixels; 0 in the rim."""
        return np.asarray(self._part_of[self._runs[pixels]])

    def successors(self, is_open: NDArray[np.bool_]) -> Ints:
        """The edge after each; `ENDS` where that is another window's, or its to tell."""
        direction, end = self.direction, self.vertex + self.step
        right = self._labels[end + self._ahead_right[direction]] == self.number
        left = self._labels[end + self._ahead_left[direction]] == self.number
        turned = (direction + np.where(right, np.where(left, -1, 0), 1)) & 3
        pinch = np.flatnonzero(~right & left)
        mine = self.part[pinch]
        other = self._parts(end[pinch] + self._ahead_left[direction[pinch]])
        turned[pinch] = (direction[pinch] + np.where(mine == other, -1, 1)) & 3
        inside = self._parts(end + self._ahead_right[turned]) > 0
        inside[pinch[(mine != other) & is_open[mine] & ((other == 0) | is_open[other])]] = False
        successor = np.full(len(end), ENDS)
        codes = end[inside] * 4 + turned[inside]
        successor[inside] = np.searchsorted(self._codes, codes)
        return successor

    def nodes(self) -> NDArray[np.bool_]:
        """Whether more than two borders between labels meet where each edge begins."""
        ring = (0, 1, self.stride + 1, self.stride, 0)
        around = [self._labels[self.vertex + step] for step in ring]
        meeting = np.zeros(len(self.vertex), np.int8)
        for one, other in pairwise(around):
            meeting += one != other
        return np.asarray(meeting > 2)

    def turns(self) -> NDArray[np.bool_]:
        """Whether the walk turns where each edge begins."""
        right = self._labels[self.vertex + self._behind_right[self.direction]] == self.number
        left = self._labels[self.vertex + self._behind_left[self.direction]] == self.number
        return np.asarray(~right | left)
