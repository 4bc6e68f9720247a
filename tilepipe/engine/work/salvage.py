"""Reading around what cannot be decoded, and which outputs depend on it."""

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
"""Where a window cannot be read, it is halved down to pieces of this many pixels a side."""


def read_readable(
    image: Image, window: Window, level: int
) -> tuple[NDArray[Any], Validity, NDArray[np.bool_], str]:
    """What can be read of a window: pixels, where they are valid, which unreadable, and why not.

    Cuts what fails along the borders of the image's chunks, then in halves, until it is read or no
    larger than `SMALLEST_PIECE`. Pixels that cannot be read are 0 and not valid, so that they enter
    the network as nodata does.
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
    """A piece in two: along a border of chunks, so that one of them costs no other; else halves."""
    size, chunk = image.levels[level], image.chunks[level]
    across = _border(piece.y, piece.stop_y, size.height, chunk[0])
    if across is not None:
        above = Window(piece.y, piece.x, across - piece.y, piece.width)
        return [above, Window(across, piece.x, piece.stop_y - across, piece.width)]
    down = _border(piece.x, piece.stop_x, size.width, chunk[1])
    if down is not None:
        left = Window(piece.y, piece.x, piece.height, down - piece.x)
        return [left, Window(piece.y, down, piece.height, piece.stop_x - down)]
    return _halves(piece) if max(piece.shape) > SMALLEST_PIECE else []


def _border(start: int, stop: int, size: int, chunk: int) -> int | None:
    """The border of chunks nearest the middle of a range, mirrored outside the image, or None."""
    inside = range(chunk, size, chunk)
    last = 2 * (size - 1)
    lines = [*inside, *(1 - line for line in inside), *(last + 1 - line for line in inside)]
    found = [line for line in lines if start < line < stop]
    return min(found, key=lambda line: abs(2 * line - start - stop), default=None)


def _halves(piece: Window) -> list[Window]:
    if piece.height >= piece.width:
        half = piece.height // 2
        return [
            Window(piece.y, piece.x, half, piece.width),
            Window(piece.y + half, piece.x, piece.height - half, piece.width),
        ]
    half = piece.width // 2
    return [
        Window(piece.y, piece.x, piece.height, half),
        Window(piece.y, piece.x + half, piece.height, piece.width - half),
    ]


def affected(
    unreadable: NDArray[np.bool_], reach: Window, block: Window, plan: Plan
) -> NDArray[np.bool_]:
    """Outputs of a block that depend on unreadable pixels: those within the margin of one."""
    geometry = plan.tiling.geometry
    spread = geometry.margin + geometry.stride_factor
    # A square dilation by running sums, rows first: exact, and independent of its size.
    grown = unreadable
    for axis in (0, 1):
        grown = _dilate(grown, spread, axis)
    # What is read may not hold all of the block, where the region does not.
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
