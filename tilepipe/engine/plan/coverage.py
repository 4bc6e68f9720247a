"""What of a tiling is computed: the blocks and tiles that hold something of the region."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import CHUNK, Tiling, Window, round_up
from tilepipe.regions.cells import Region
from tilepipe.regions.cover import cover

Tiles = tuple[tuple[Window, Window], ...]
"""Tiles of a block, each with the part of the block that it is for."""


class Coverage:
    """The blocks and tiles that are computed: all those of a tiling, or those of a region.

    The one place that says so: whoever goes through the blocks of a run goes through these. Blocks
    that are not among them are never written, and so read as no answer.

    Parameters
    ----------
    tiling
        Of the whole image.
    region
        None: all of it.
    framed
        Within each block, frame what there is of the region by tiles of their own sizes, none
        larger than the tiling's. Otherwise they are those of the tiling that hold some of it.
    """

    def __init__(self, tiling: Tiling, region: Region | None = None, framed: bool = False) -> None:
        self.tiling, self.region, self.framed = tiling, region, framed
        self._active: NDArray[np.bool_] | None = None
        """Of all tiles (or blocks, where framed), row by row of the image; None: all."""
        if region is not None:
            rows, columns = (self._parts(axis) for axis in (0, 1))
            self._active = region.holds(rows, columns)

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.tiling) if self._active is None else len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        """Block numbers, row by row."""
        return iter(self.tiling) if self._active is None else iter(self._numbers)

    def __contains__(self, number: object) -> bool:
        if self._active is None:
            return isinstance(number, int) and 0 <= number < len(self.tiling)
        return number in self._known

    @property
    def passes(self) -> int:
        """Tiles of all blocks together."""
        return self._totals[0]

    @property
    def work(self) -> int:
        """Pixels that go through the network."""
        return self._totals[1]

    @property
    def most_work(self) -> int:
        """Of a block."""
        return self._totals[2]

    @property
    def pixels(self) -> int:
        """Pixels that are asked for."""
        if self.region is None:
            return self.tiling.height * self.tiling.width
        return self.region.pixels

    def tiles(self, number: int) -> Tiles:
        """The tiles of a block that are computed; no two parts share a pixel."""
        if self.framed and self.region is not None:
            return self._frames(number, self.region)
        pairs = zip(self.tiling.tiles(number), self.tiling.parts_of(number), strict=True)
        if self._active is None:
            return tuple(pairs)
        row, column = divmod(number, self.tiling.shape[1])
        down, across = self.tiling.block_tiles
        active = self._active[row * down : (row + 1) * down, column * across :][:, :across]
        return tuple(pair for pair, is_active in zip(pairs, active.flat, strict=True) if is_active)

    def reach(self, number: int) -> Window:
        """Everything that the tiles of a block read, as one window."""
        windows = [self.tiling.window(tile) for tile, _ in self.tiles(number)]
        y, x = min(w.y for w in windows), min(w.x for w in windows)
        stop_y, stop_x = max(w.stop_y for w in windows), max(w.stop_x for w in windows)
        return Window(y, x, stop_y - y, stop_x - x)

    def inside(self, window: Window) -> NDArray[np.bool_] | None:
        """Which pixels of a window within the image are asked for; None: all."""
        if self.region is None:
            return None
        inside = self.region.inside(window)
        return None if inside.all() else inside

    def _frames(self, number: int, region: Region) -> Tiles:
        """Tiles around what a block has of the region."""
        geometry, block, cell = self.tiling.geometry, self.tiling.block_window(number), region.cell
        top, left = block.y // cell, block.x // cell
        rows, columns = -(-block.stop_y // cell), -(-block.stop_x // cell)
        rim = geometry.input_for(geometry.stride_factor) - geometry.stride_factor
        most = self.tiling.keep[0] // cell, self.tiling.keep[1] // cell
        found = []
        for y, x, height, width in cover(
            region.cells[top:rows, left:columns], cell, (rim, rim), most
        ):
            frame = Window(block.y + y * cell, block.x + x * cell, height * cell, width * cell)
            part = frame.intersect(block)
            assert part is not None, "it lies in the block"
            factor = geometry.stride_factor
            sides = round_up(part.height, factor), round_up(part.width, factor)
            found.append((Window(part.y, part.x, *sides), part))
        return tuple(found)

    @cached_property
    def _totals(self) -> tuple[int, int, int]:
        """Passes, work, and the most work of a block."""
        height, width = self.tiling.input
        if self._active is None:
            most = min(self.tiling.forward_passes, int(np.prod(self.tiling.block_tiles)))
            return self.tiling.forward_passes, self.tiling.work, most * height * width
        if not self.framed:
            passes = self._block_passes
            area = height * width
            return int(passes.sum()), int(passes.sum()) * area, int(passes.max()) * area
        windows = [[self.tiling.window(tile) for tile, _ in self.tiles(n)] for n in self._numbers]
        works = [sum(window.area for window in block) for block in windows]
        return sum(len(block) for block in windows), sum(works), max(works, default=0)

    @cached_property
    def _block_passes(self) -> NDArray[np.int64]:
        """Tiles of each block of the tiling (1, where framed), shape (rows, columns) of blocks."""
        assert self._active is not None, "asked only of a region"
        if self.framed:
            return self._active.astype(np.int64)
        down = np.add.reduceat(self._active, self._starts(0), axis=0, dtype=np.int64)
        return np.asarray(np.add.reduceat(down, self._starts(1), axis=1))

    @cached_property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(np.flatnonzero(self._block_passes).tolist())

    @cached_property
    def _known(self) -> frozenset[int]:
        return frozenset(self._numbers)

    def _parts(self, axis: int) -> NDArray[np.intp]:
        size, block = (self.tiling.height, self.tiling.width)[axis], self.tiling.block[axis]
        return _axis_parts(size, block, block if self.framed else self.tiling.keep[axis])

    def _starts(self, axis: int) -> NDArray[np.intp]:
        """The first tile of each row (column) of blocks."""
        return np.arange(self.tiling.shape[axis]) * self.tiling.block_tiles[axis]


def can_be_framed(region: Region, tiling: Tiling) -> bool:
    """Whether blocks and the largest tiles are whole cells."""
    return CHUNK % region.cell == 0 and not any(keep % region.cell for keep in tiling.keep)


@lru_cache(maxsize=64)
def _axis_parts(size: int, block: int, keep: int) -> NDArray[np.intp]:
    """First pixel, and first one after, of the part of each tile along an axis."""
    start = (np.arange(0, size, block)[:, None] + np.arange(0, block, keep)).ravel()
    start = start[start < size]
    stop = np.minimum(np.minimum(start + keep, (start // block + 1) * block), size)
    return np.stack([start, stop], axis=1)
