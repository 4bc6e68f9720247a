"""The coarser levels of a mask, each from the one before it, in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import CHUNK, Window
from tilepipe.products.base import NO_ANSWER
from tilepipe.products.store import ZarrMask

LARGEST_PIECE = 2048
"""Side of a unit of work, in pixels of the level that is written."""


def pyramid_blocks(
    mask: ZarrMask, computed: Iterable[Window] | None = None
) -> dict[int, list[Window]]:
    """The units of work of each level from 1 on; those of one level may run in any order.

    A level needs all of the level before it. Units share no chunk.

    Parameters
    ----------
    mask : ZarrMask
        Complete at level 0.
    computed : iterable of Window, optional
        All that was written of level 0. What lies elsewhere has no answer at any level, and is left
        out. By default it is all of it.
    """
    window = Window(0, 0, *mask.shape)
    reached = squares([window] if computed is None else computed, LARGEST_PIECE * 2)
    units: dict[int, list[Window]] = {}
    for level, (height, width) in enumerate(mask.levels[1:], 1):
        units[level] = [
            Window(y, x, min(LARGEST_PIECE, height - y), min(LARGEST_PIECE, width - x))
            for y, x in (
                (row * LARGEST_PIECE, column * LARGEST_PIECE) for row, column in sorted(reached)
            )
        ]
        reached = {(row // 2, column // 2) for row, column in reached}
    return units


def squares(windows: Iterable[Window], side: int) -> set[tuple[int, int]]:
    """(row, column) of the squares, of ``side`` pixels, that any of the windows touches."""
    return {
        (row, column)
        for window in windows
        for row in range(window.y // side, -(-window.stop_y // side))
        for column in range(window.x // side, -(-window.stop_x // side))
    }


def downsample_block(mask: ZarrMask, level: int, window: Window) -> None:
    """Write one unit of a level, from the level before it: the mask and its probabilities.

    Holds a row of chunks of a unit at a time, not the whole of it; with several planes, a chunk
    of each.

    Parameters
    ----------
    mask : ZarrMask
        Whose ``level - 1`` is complete.
    level : int
        The level that is written, from 1 on.
    window : Window
        Whole chunks of it.
    """
    reduce = downsample_values if mask.kind == "values" else downsample_labels
    several = mask.planes > 1 or mask.probabilities is not None
    for part in _parts(window, CHUNK if several else window.width):
        above = _twice(part, mask.levels[level - 1])
        mask.write(part, reduce(mask.read(above, level - 1)), level)
        if mask.probabilities is not None:
            stored = mask.read_stored_probabilities(above, level - 1)
            mask.write_stored_probabilities(part, downsample_probabilities(stored), level)


def build_pyramid(mask: ZarrMask, computed: Iterable[Window] | None = None) -> None:
    """Write all coarser levels, one unit after the other; see `pyramid_blocks`."""
    for level, windows in pyramid_blocks(mask, computed).items():
        for window in windows:
            downsample_block(mask, level, window)


def downsample_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The most frequent label of each 2 x 2 pixels; the lower one in a tie.

    Parameters
    ----------
    labels : ndarray of uint8, shape (..., H, W)
        255 has no vote: it wins only where all four are 255. Odd sides are padded with it.

    Returns
    -------
    ndarray of uint8, shape (..., ceil(H / 2), ceil(W / 2))
    """
    a, b, c, d = _quarters(labels, NO_ANSWER)
    # A sorting network for four: afterwards equal labels are neighbours and 255 comes last.
    a, b = np.minimum(a, b), np.maximum(a, b)
    c, d = np.minimum(c, d), np.maximum(c, d)
    a, c = np.minimum(a, c), np.maximum(a, c)
    b, d = np.minimum(b, d), np.maximum(b, d)
    b, c = np.minimum(b, c), np.maximum(b, c)
    last = np.where((c == d) & (c != NO_ANSWER), c, a)
    middle = np.where((b == c) & (b != NO_ANSWER), b, last)
    mode: NDArray[np.uint8] = np.where(a == b, a, middle)
    return mode


def downsample_values(values: NDArray[Any]) -> NDArray[Any]:
    """The mean of each 2 x 2 pixels, NaN left out; NaN where all four are.

    Parameters
    ----------
    values : ndarray of float16 or float32, shape (..., H, W)

    Returns
    -------
    ndarray of the same dtype, shape (..., ceil(H / 2), ceil(W / 2))
    """
    quarters = _quarters(values, np.nan)
    # Wider than the pixels, so that the sum of four does not overflow.
    total = np.zeros(quarters[0].shape, np.float32 if values.dtype == np.float16 else np.float64)
    count = np.zeros(quarters[0].shape, np.uint8)
    for quarter in quarters:
        valid = ~np.isnan(quarter)
        np.add(total, quarter, out=total, where=valid)
        count += valid
    mean = np.full_like(total, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(values.dtype)


def downsample_probabilities(stored: NDArray[Any]) -> NDArray[Any]:
    """The mean of each 2 x 2 stored probabilities, float16 or uint8, shape (..., H, W)."""
    if stored.dtype == np.float16:
        return downsample_values(stored)
    quarters = _quarters(stored, NO_ANSWER)
    total = np.zeros(quarters[0].shape, np.uint16)
    count = np.zeros(quarters[0].shape, np.uint16)
    for quarter in quarters:
        valid = quarter != NO_ANSWER
        np.add(total, quarter, out=total, where=valid)
        count += valid
    mean = (total + count // 2) // np.maximum(count, 1)
    return np.where(count > 0, mean, NO_ANSWER).astype(np.uint8)


def _parts(window: Window, width: int) -> Iterator[Window]:
    for y in range(window.y, window.stop_y, CHUNK):
        for x in range(window.x, window.stop_x, width):
            yield Window(y, x, min(CHUNK, window.stop_y - y), min(width, window.stop_x - x))


def _twice(window: Window, shape: tuple[int, int]) -> Window:
    """The pixels of the level before, of ``shape``, that a window is made of."""
    y, x = 2 * window.y, 2 * window.x
    stop_y, stop_x = min(2 * window.stop_y, shape[0]), min(2 * window.stop_x, shape[1])
    return Window(y, x, stop_y - y, stop_x - x)


def _quarters(array: NDArray[Any], pad: float) -> list[NDArray[Any]]:
    height, width = array.shape[-2:]
    if height % 2 or width % 2:
        sides = [(0, 0)] * (array.ndim - 2) + [(0, height % 2), (0, width % 2)]
        array = np.pad(array, sides, constant_values=pad)
    return [array[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
