"""The pieces of objects in one window, and what is known at its edge of where they go on.

A window is numbered by itself. What belongs to one piece within it is final; which pieces of
neighbouring windows belong together is decided later (`tilepipe.objects.unions`) from what is kept
of the pixels along its edge: the basin and the height of each. Where objects are not split, each
piece is one flat basin, so that both kinds are joined by one rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tilepipe.grid import Window
from tilepipe.objects import basins
from tilepipe.objects.rules import BORDER, FREE, Parts
from tilepipe.objects.walks import connected

_CORNERS = ndimage.generate_binary_structure(2, 2)

Numbers = NDArray[np.int32]
Pixels = NDArray[np.int64]
"""Flat indices of pixels in the whole mask: ``y * width + x``."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of a window: connected pixels of an object, as far as the window tells."""

    numbers: Numbers
    """(H, W): the piece of each pixel, from 1 on in raster order of first pixels; 0 for none."""
    part: Parts
    """(n,): the class of each piece."""
    area: NDArray[np.int64]
    """(n,): its pixels."""
    first: Pixels
    """(n,): its first pixel."""
    basin_piece: Numbers
    """(b,): the piece of each basin that touches the edge of the window, or reaches over it."""
    basin_peak: NDArray[np.int16]
    """(b,): its greatest height; -1 if it is outside the window."""
    basin_exit: Pixels
    """(b,): the pixel just outside the window to which its pointers lead; -1 if inside."""
    edge_basin: tuple[Numbers, Numbers, Numbers, Numbers]
    """The basins along the first and last row and the first and last column, from 1 on; 0 for
    none."""
    edge_height: tuple[basins.Heights, basins.Heights, basins.Heights, basins.Heights]
    """Their heights."""
    passes: NDArray[np.int32]
    """(m, 3): two basins with a common border, one of which has its peak elsewhere, and the highest
    way over that border. Whether it joins them is not known yet."""

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """All but `numbers`, as arrays by name."""
        found: dict[str, NDArray[Any]] = {}
        for each in fields(self)[1:]:
            value = getattr(self, each.name)
            if isinstance(value, tuple):
                found |= {f"{each.name}_{n}": part for n, part in enumerate(value)}
            else:
                found[each.name] = value
        return found

    @classmethod
    def from_tables(cls, tables: dict[str, NDArray[Any]]) -> Pieces:
        """The pieces that `tables` came from, without numbers."""
        values: dict[str, Any] = {"numbers": np.zeros((0, 0), np.int32)}
        for each in fields(cls)[1:]:
            if each.name.startswith("edge_"):
                values[each.name] = tuple(tables[f"{each.name}_{n}"] for n in range(4))
            else:
                values[each.name] = tables[each.name]
        return cls(**values)


def connected_pieces(parts: Parts, window: Window, width: int, *, corners: bool = True) -> Pieces:
    """The components of each class.

    Parameters
    ----------
    parts
        (H, W): of the window.
    window
        Where it is in the mask.
    width
        Of the mask.
    corners
        Whether pixels that share a corner are connected, and not only those that share an edge.
    """
    numbers, classes = components(parts, corners=corners)
    flat = np.zeros(parts.shape, np.int16)
    touching = np.unique(np.concatenate(_edges(numbers)))
    touching = touching[touching > 0]
    basin = np.zeros(len(classes) + 1, np.int32)
    basin[touching] = np.arange(1, len(touching) + 1)
    return _described(
        numbers, classes, window, width,
        basin_piece=touching.astype(np.int32),
        basin_peak=np.zeros(len(touching), np.int16),
        basin_exit=np.full(len(touching), -1, np.int64),
        edge_basin=tuple(basin[strip] for strip in _edges(numbers)),
        edge_height=_edges(flat),
        passes=np.zeros((0, 3), np.int32),
    )  # fmt: skip


def components(parts: Parts, *, corners: bool = True) -> tuple[Numbers, Parts]:
    """The numbers of the components of each class, (H, W), as in `Pieces`, and their classes."""
    numbers, total = np.zeros(parts.shape, np.int32), 0
    part = [np.zeros(0, np.uint8)]
    for value in _classes_in(parts):
        found, count = ndimage.label(parts == value, _CORNERS if corners else None)
        if total:
            np.copyto(numbers, found + total, where=found > 0)
        else:
            numbers = found
        part.append(np.full(count, value, np.uint8))
        total += count
    classes = np.concatenate(part)
    numbers, order = _in_raster_order(numbers, len(classes))
    return numbers, classes[order]


def split_pieces(parts: Parts, read: Window, window: Window, width: int, depth: int) -> Pieces:
    """The parts of each class's components that narrow necks connect, see `basins`.

    Parameters
    ----------
    parts
        (H, W): of the window and `basins.HALO` pixels around it, as far as they are in the mask.
    read
        Where they are in the mask.
    window
        The window itself.
    width
        Of the mask.
    depth
        Two basins are one if the way between them is less than this below the lower of their
        peaks, in 1/64 pixels.
    """
    ringed = Window.around(window, window.pad(1))
    height = np.full(ringed.shape, -1, np.int16)
    here = ringed.intersect(read)
    assert here is not None, "the window is within what was read"
    whole = np.zeros(ringed.shape, np.uint8)
    whole[here.slices(ringed)] = parts[here.slices(read)]
    for value in _classes_in(parts):
        found = basins.heights(parts == value)[here.slices(read)]
        np.copyto(height[here.slices(ringed)], found, where=found >= 0)
    target = _pointers_by_class(height, whole)
    return _Basins(height, basins.follow(target), whole, ringed, width, depth).pieces()


def _classes_in(parts: Parts) -> list[int]:
    most = int(np.where(parts < BORDER, parts, FREE).max(initial=FREE))
    if most <= FREE + 1:  # mostly so, and seen in a tenth of the time
        return [most] * (most > FREE)
    present = np.flatnonzero(np.bincount(parts.reshape(-1), minlength=256))
    return [int(value) for value in present if FREE < value < BORDER]


def _pointers_by_class(height: basins.Heights, parts: Parts) -> NDArray[np.int32]:
    """Pointers that do not leave a class."""
    present = _classes_in(parts)
    if len(present) == 1:
        return basins.pointers(height)
    target = np.arange(height.size, dtype=np.int32).reshape(height.shape)
    for value in present:
        own = parts == value
        np.copyto(target, basins.pointers(np.where(own, height, np.int16(-1))), where=own)
    return target


class _Basins:
    """The basins of one window, with a ring of one pixel around it."""

    def __init__(
        self,
        height: basins.Heights,
        ends: NDArray[np.int32],
        parts: Parts,
        ringed: Window,
        width: int,
        depth: int,
    ) -> None:
        self._ringed, self._width, self._depth = ringed, width, depth
        self._core = (slice(1, -1), slice(1, -1))
        self._height, self._part = height[self._core], parts[self._core]
        inside = self._height >= 0
        # Basins are numbered from 1 on: first those with their peak in the window, then others.
        flat = np.arange(height.size, dtype=np.int32).reshape(height.shape)
        peaks = flat[self._core][inside & (ends[self._core] == flat[self._core])]
        led = ends[self._core][inside]
        ring = np.ones(height.shape, bool)
        ring[self._core] = False
        exits = np.unique(led[ring.reshape(-1)[led]])
        named = np.zeros(height.size, np.int32)
        named[peaks] = np.arange(1, len(peaks) + 1)
        named[exits] = np.arange(len(peaks) + 1, len(peaks) + len(exits) + 1)
        self._basin = np.zeros(inside.shape, np.int32)
        self._basin[inside] = named[led]
        self._peak = np.concatenate(
            ([-1], height.reshape(-1)[peaks], np.full(len(exits), -1))
        ).astype(np.int16)
        y, x = np.divmod(exits.astype(np.int64), height.shape[1])
        where = (y + ringed.y) * width + x + ringed.x
        self._exit = np.concatenate((np.full(1 + len(peaks), -1, np.int64), where))

    def pieces(self) -> Pieces:
        """The pieces: basins joined as far as this window tells."""
        one, other, way = self._borders()
        joins = np.zeros(len(one), bool)
        for basin in (one, other):
            known = self._peak[basin] >= 0
            joins |= known & (way > self._peak[basin].astype(np.int32) - self._depth)
        size = len(self._peak)
        piece = connected(size, one[joins], other[joins])
        open_ends = (self._peak[one] < 0) | (self._peak[other] < 0)
        left = ~joins & open_ends & (piece[one] != piece[other])
        passes = _highest(one[left], other[left], way[left], size)
        numbers = piece[self._basin].astype(np.int32)
        part = np.zeros(int(piece.max(initial=0)) + 1, np.uint8)
        part[numbers] = self._part
        numbers, order = _in_raster_order(numbers, len(part) - 1)
        renamed = np.zeros(len(part), np.int32)
        renamed[order + 1] = np.arange(1, len(order) + 1)
        return self._kept(numbers, part[1:][order], renamed[piece], passes)

    def _kept(
        self, numbers: Numbers, part: Parts, piece: Numbers, passes: NDArray[np.int32]
    ) -> Pieces:
        """What is kept of the basins: those at the edge of the window, and those led out of it."""
        strips = _edges(self._basin)
        kept = np.unique(
            np.concatenate((*strips, np.flatnonzero(self._exit >= 0), passes[:, :2].reshape(-1)))
        )
        kept = kept[kept > 0]
        named = np.zeros(len(self._peak), np.int32)
        named[kept] = np.arange(1, len(kept) + 1)
        passes = passes.copy()
        passes[:, :2] = named[passes[:, :2]]
        window = Window(
            self._ringed.y + 1, self._ringed.x + 1, *(side - 2 for side in self._ringed.shape)
        )
        return _described(
            numbers, part, window, self._width,
            basin_piece=piece[kept].astype(np.int32),
            basin_peak=self._peak[kept],
            basin_exit=self._exit[kept],
            edge_basin=tuple(named[strip] for strip in strips),
            edge_height=_edges(self._height),
            passes=passes,
        )  # fmt: skip

    def _borders(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Each pair of neighbours in two basins of one class: the basins, and the lower height."""
        basin: Numbers = self._basin.reshape(-1)
        part, height = self._part.reshape(-1), self._height.reshape(-1)
        found: list[tuple[Any, Any, Any]] = [(np.zeros(0, np.int32),) * 3]
        width = self._ringed.width - 2
        for here, there, at, step in _neighbours(self._basin.shape):
            differ = self._basin[here] != self._basin[there]  # so do few
            _, across = differ.shape
            y, x = np.divmod(np.flatnonzero(differ), across)
            pixel = at + y * width + x
            other = pixel + step
            met = (basin[pixel] > 0) & (basin[other] > 0) & (part[pixel] == part[other])
            pixel, other = pixel[met], other[met]
            way = np.minimum(height[pixel], height[other])
            found.append((basin[pixel], basin[other], way.astype(np.int32)))
        one, other, way = (np.concatenate(each) for each in zip(*found, strict=True))
        return one, other, way


def _neighbours(
    shape: tuple[int, ...],
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], int, int]]:
    """Slices of an array that pair each pixel with its neighbours, each pair once.

    With them, the flat index of the first pixel, and how many pixels on its neighbour is.
    """
    height, width = shape
    for y, x in ((0, 1), (1, -1), (1, 0), (1, 1)):
        rows = slice(0, height - y), slice(y, height)
        left, right = slice(max(0, -x), width - max(0, x)), slice(max(0, x), width + min(0, x))
        yield (rows[0], left), (rows[1], right), max(0, -x), y * width + x


def _highest(
    one: NDArray[Any], other: NDArray[Any], way: NDArray[Any], size: int
) -> NDArray[np.int32]:
    """The highest way for each pair of basins, (m, 3)."""
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other)
    pair, at = np.unique(low * size + high, return_inverse=True)
    best = np.full(len(pair), -1, np.int64)
    np.maximum.at(best, at.reshape(-1), way)
    return np.stack((*np.divmod(pair, size), best), axis=1).astype(np.int32)


def _in_raster_order(numbers: Numbers, count: int) -> tuple[Numbers, NDArray[np.intp]]:
    """Renumber 1 .. count by first pixels; also the old index (from 0) of each."""
    first, _ = _first_and_area(numbers, count)
    order = np.argsort(first, kind="stable")
    if (first[1:] > first[:-1]).all():
        return numbers, order
    renamed = np.zeros(count + 1, np.int32)
    renamed[order + 1] = np.arange(1, count + 1)
    return renamed[numbers], order


def _first_and_area(numbers: Numbers, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The flat index of the first pixel of each of 1 .. count, and its pixels."""
    flat = numbers.reshape(-1)
    begins = np.ones(flat.shape, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    starts = np.flatnonzero(begins)
    lengths, value = np.diff(starts, append=flat.size), flat[starts]
    first = np.zeros(count + 1, np.int64)
    first[value[::-1]] = starts[::-1]  # of several values for one place, numpy keeps the last
    area = np.bincount(value, lengths, count + 1).astype(np.int64)
    return first[1:], area[1:]


def _edges(array: NDArray[Any]) -> tuple[Any, Any, Any, Any]:
    return array[0].copy(), array[-1].copy(), array[:, 0].copy(), array[:, -1].copy()


def _described(numbers: Numbers, part: Parts, window: Window, width: int, **rest: Any) -> Pieces:
    count = len(part)
    first, area = _first_and_area(numbers, count)
    y, x = np.divmod(first, window.width)
    first = (y + window.y) * width + x + window.x
    return Pieces(numbers, part, area, first, **rest)
