"""Windows that reach beyond a grid, where pixels are mirrored at its borders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window, mirror_index, mirror_span


def mirroring(
    window: Window, height: int, width: int
) -> tuple[Window, Callable[[NDArray[Any]], NDArray[Any]]]:
    """Return the real pixels of a grid that a window needs, and the function that mirrors them.

    The grid has ``height`` x ``width`` pixels.
    """
    y, stop_y = mirror_span(window.y, window.height, height)
    x, stop_x = mirror_span(window.x, window.width, width)
    span = Window(y, x, stop_y - y, stop_x - x)
    if span == window:
        return span, lambda pixels: pixels
    rows = _runs(window.y, window.stop_y, height, y)
    columns = _runs(window.x, window.stop_x, width, x)

    def mirrored(pixels: NDArray[Any]) -> NDArray[Any]:
        # An axis at a time: whole rows are copied fast, single pixels only at the borders.
        if len(columns) > 1:
            pixels = np.concatenate([pixels[:, part] for part in columns], axis=1)
        if len(rows) > 1:
            pixels = np.concatenate([pixels[part] for part in rows], axis=0)
        return pixels

    return span, mirrored


def _runs(start: int, stop: int, size: int, origin: int) -> list[slice | list[int]]:
    """An axis of a window as indices into its real pixels: mirrored, as they are, mirrored."""
    first, last = min(max(start, 0), stop), max(min(stop, size), start)
    if first >= last:
        return [[], [mirror_index(i, size) - origin for i in range(start, stop)]]
    before = [mirror_index(i, size) - origin for i in range(start, first)]
    after = [mirror_index(i, size) - origin for i in range(last, stop)]
    runs: list[slice | list[int]] = [slice(first - origin, last - origin)]
    return [*([before] if before else []), *runs, *([after] if after else [])]
