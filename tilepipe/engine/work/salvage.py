"""Reading around pixels that cannot be decoded, and finding the outputs that depend on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.plan.plan import Plan
from tilepipe.errors import UnreadableError
from tilepipe.grid import Window
from tilepipe.images import Image, read_with_valid
from tilepipe.images.validity import Validity

SMALLEST_PIECE = 64
"""Side of the smallest pieces, in pixels, into which an unreadable window is cut."""


def read_readable(
    image: Image, window: Window, level: int
) -> tuple[NDArray[Any], Validity, NDArray[np.bool_], str]:
    """The pixels of a window, their validity, which are unreadable, and the reason.

    Pieces that fail are cut along the borders of the image's chunks, then in halves, down to
    `SMALLEST_PIECE`. Unreadable pixels are 0 and not valid, like nodata.
    """
    pixels = np.zeros((*window.shape, image.bands), image.dtype)
    valid: Validity = np.ones((*window.shape, 1), np.bool_)
    unreadable = np.zeros(window.shape, np.bool_)
    message = ""
    pieces = [window]
    while pieces:
        piece = pieces.pop()
        try:
            pixels[piece.slices(window)], seen = read_with_valid(image, piece, level)
            if seen is not None:
                if seen.shape[2] > valid.shape[2]:
                    valid = valid.repeat(seen.shape[2], axis=2)
                valid[piece.slices(window)] = seen
        except UnreadableError as error:
            message = message or str(error)
            if parts := _cut(image, piece, level):
                pieces += parts
            else:
                unreadable[piece.slices(window)] = True
    return pixels, valid & ~unreadable[..., None], unreadable, message


def _cut(image: Image, piece: Window, level: int) -> list[Window]:
    """A piece cut in two, along a border of chunks if possible; empty if it is too small."""
    size, chunk = image.levels[level], image.chunks[level]
    across = _border(piece.y, piece.stop_y, size.height, chunk[0])
    if across is not None:
        return _cut_at(piece, 0, across)
    down = _border(piece.x, piece.stop_x, size.width, chunk[1])
    if down is not None:
        return _cut_at(piece, 1, down)
    if max(piece.shape) <= SMALLEST_PIECE:
        return []
    if piece.height >= piece.width:
        return _cut_at(piece, 0, piece.y + piece.height // 2)
    return _cut_at(piece, 1, piece.x + piece.width // 2)


def _cut_at(piece: Window, axis: int, at: int) -> list[Window]:
    """A piece cut in two at a row (``axis`` 0) or a column (1)."""
    if axis == 0:
        above = Window(piece.y, piece.x, at - piece.y, piece.width)
        return [above, Window(at, piece.x, piece.stop_y - at, piece.width)]
    left = Window(piece.y, piece.x, piece.height, at - piece.x)
    return [left, Window(piece.y, at, piece.height, piece.stop_x - at)]


def _border(start: int, stop: int, size: int, chunk: int) -> int | None:
    """The chunk border nearest to the middle of a range, mirrored outside the image, or None."""
    inside = range(chunk, size, chunk)
    last = 2 * (size - 1)
    lines = [*inside, *(1 - line for line in inside), *(last + 1 - line for line in inside)]
    found = [line for line in lines if start < line < stop]
    return min(found, key=lambda line: abs(2 * line - start - stop), default=None)


def affected(
    unreadable: NDArray[np.bool_], reach: Window, block: Window, plan: Plan
) -> NDArray[np.bool_]:
    """The outputs of a block that depend on unreadable pixels: those within the margin of one."""
    geometry = plan.tiling.geometry
    spread = geometry.margin + geometry.stride_factor
    # A square dilation by running sums is exact, and its cost does not depend on the margin.
    grown = unreadable
    for axis in (0, 1):
        grown = _dilate(grown, spread, axis)
    # In a region, the pixels that were read may not contain the whole block.
    touching = np.zeros(block.shape, np.bool_)
    common = block.intersect(reach)
    if common is not None:
        touching[common.slices(block)] = grown[common.slices(reach)]
    return touching


def _dilate(mask: NDArray[np.bool_], distance: int, axis: int) -> NDArray[np.bool_]:
    length = mask.shape[axis]
    sums = np.concatenate(
        [np.zeros_like(mask.take([0], axis), np.int32), mask.cumsum(axis, dtype=np.int32)], axis
    )
    index = np.arange(length)
    high = np.minimum(index + distance + 1, length)
    low = np.maximum(index - distance, 0)
    return np.asarray(sums.take(high, axis) > sums.take(low, axis))
