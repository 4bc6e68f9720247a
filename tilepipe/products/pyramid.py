"""The coarser levels of a mask, each computed from the finer one, in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import CHUNK, Window, WindowGrid
from tilepipe.products.layer import Layer
from tilepipe.products.product import PixelForm

LARGEST_PIECE = 2048
"""Side of a unit of work, in pixels of the level that is written."""

STRIP_BYTES = 1 << 20
"""The bytes of finer pixels that are reduced at a time, when they are in memory already."""


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


def within(window: Window, levels: Sequence[tuple[int, int]]) -> list[Window]:
    """The parts of levels 1, 2 ... that depend on a window of level 0 alone, in whole chunks.

    ``levels`` are (height, width) of each level. The first part that would share a chunk with the
    window's neighbours ends the list, so a window of 2048 has two, and one of 1536 none.
    """
    parts: list[Window] = []
    for finer in levels[:-1]:
        ends = (window.stop_y, finer[0]), (window.stop_x, finer[1])
        if any(start % (2 * CHUNK) for start in (window.y, window.x)) or any(
            stop % (2 * CHUNK) and stop != size for stop, size in ends
        ):
            break
        y, x = window.y // 2, window.x // 2
        window = Window(y, x, -(-window.stop_y // 2) - y, -(-window.stop_x // 2) - x)
        parts.append(window)
    return parts


def write_parts(mask: Layers, parts: Sequence[Window], pixels: Sequence[NDArray[Any]]) -> None:
    """Write parts of levels 1, 2 ... from the pixels of level 0, an array for each layer.

    ``parts`` are the first ones, or all, of `within`. The chunks are those that `downsample_block`
    would write.
    """
    for layer, finer in zip(mask.layers, pixels, strict=True):
        for level, part in enumerate(parts, 1):
            finer = _reduced(layer.product, finer)
            layer.write(part, finer, level)


def _reduced(form: PixelForm, finer: NDArray[Any]) -> NDArray[Any]:
    """`PixelForm.reduce` strip by strip, so that what it takes besides is bounded."""
    height, width = finer.shape[-2:]
    coarser = np.empty((*finer.shape[:-2], -(-height // 2), -(-width // 2)), finer.dtype)
    rows = max(1, STRIP_BYTES * height // finer.nbytes // 2)
    for row in range(0, coarser.shape[-2], rows):
        strip = finer[..., 2 * row : 2 * (row + rows), :]
        coarser[..., row : row + rows, :] = form.reduce(strip)
    return coarser


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
