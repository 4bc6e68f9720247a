"""The coarser levels of a mask, each computed from the finer one, in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from tilepipe.grid import CHUNK, Window, WindowGrid
from tilepipe.products.layer import Layer

LARGEST_PIECE = 2048
"""Side of a unit of work, in pixels of the level that is written."""


class Layers(Protocol):
    """Layers with equal levels: those of a mask, or a single `Layer`."""

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level, largest first."""

    @property
    def layers(self) -> Sequence[Layer]:
        """All of them."""


def pyramid_blocks(
    mask: Layers, computed: Iterable[Window] | None = None
) -> dict[int, list[Window]]:
    """The units of work of each level from 1 on; those of one level may run in any order.

    A level needs the whole level before it. Units share no chunk. ``computed`` are the windows of
    level 0 that were written, by default all; units without any of them are left out.
    """
    window = Window(0, 0, *mask.levels[0])
    reached = squares([window] if computed is None else computed, LARGEST_PIECE * 2)
    units: dict[int, list[Window]] = {}
    for level, shape in enumerate(mask.levels[1:], 1):
        pieces = WindowGrid(Window(0, 0, *shape), (LARGEST_PIECE, LARGEST_PIECE))
        units[level] = [pieces.window(row, column) for row, column in sorted(reached)]
        reached = {(row // 2, column // 2) for row, column in reached}
    return units


def squares(windows: Iterable[Window], side: int) -> set[tuple[int, int]]:
    """(row, column) of the squares of ``side`` pixels that any of the windows touches."""
    return {
        (row, column)
        for window in windows
        for row in range(window.y // side, -(-window.stop_y // side))
        for column in range(window.x // side, -(-window.stop_x // side))
    }


def downsample_block(mask: Layers, level: int, window: Window) -> None:
    """Write one unit of a level for all products, from the finer level, which must be complete.

    ``window`` consists of whole chunks. One row of chunks is in memory at a time, or one chunk if
    pixels have several planes or bytes.
    """
    several = sum(layer.planes * layer.product.dtype.itemsize for layer in mask.layers) > 1
    for part in WindowGrid(window, (CHUNK, CHUNK if several else window.width)):
        above = _twice(part, mask.levels[level - 1])
        for layer in mask.layers:
            layer.write(part, layer.product.reduce(layer.read(above, level - 1)), level)


def build_pyramid(mask: Layers, computed: Iterable[Window] | None = None) -> None:
    """Write all coarser levels, unit by unit; see `pyramid_blocks`."""
    for level, windows in pyramid_blocks(mask, computed).items():
        for window in windows:
            downsample_block(mask, level, window)


def _twice(window: Window, shape: tuple[int, int]) -> Window:
    """The window of the finer level, of ``shape``, from which a window is computed."""
    y, x = 2 * window.y, 2 * window.x
    stop_y, stop_x = min(2 * window.stop_y, shape[0]), min(2 * window.stop_x, shape[1])
    return Window(y, x, stop_y - y, stop_x - x)
