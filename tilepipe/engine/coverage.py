"""What of a tiling is computed: the blocks and tiles that hold something of the region."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Tiling, Window
from tilepipe.regions.cells import Region


class Coverage:
    """The blocks and tiles of a tiling that are computed: all of them, or those of a region.

    The one place that says so: whoever goes through the blocks of a run goes through these. Blocks
    that are not among them are never written, and so read as no answer.
    """

    def __init__(self, tiling: Tiling, region: Region | None = None) -> None:
        self.tiling, self.region = tiling, region
        self._active: NDArray[np.bool_] | None = None
        """Of all tiles, row by row of the image; None: all."""
        if region is not None:
            rows, columns = (_parts(tiling, axis) for axis in (0, 1))
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
        if self._active is None:
            return self.tiling.forward_passes
        return int(np.count_nonzero(self._active))

    @property
    def work(self) -> int:
        """Pixels that go through the network."""
        height, width = self.tiling.input
        return self.passes * height * width

    @property
    def pixels(self) -> int:
        """Pixels that are asked for."""
        if self.region is None:
            return self.tiling.height * self.tiling.width
        return self.region.pixels

    @cached_property
    def block_passes(self) -> NDArray[np.int64]:
        """Tiles of each block of the tiling, shape (rows, columns) of blocks."""
        active = self._active
        if active is None:
            active = np.ones([len(_parts(self.tiling, axis)) for axis in (0, 1)], np.bool_)
        down = np.add.reduceat(active, self._starts(0), axis=0, dtype=np.int64)
        return np.asarray(np.add.reduceat(down, self._starts(1), axis=1))

    def tiles(self, number: int) -> tuple[tuple[Window, Window], ...]:
        """The tiles of a block that are computed, each with the part of the block it is for."""
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

    @cached_property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(np.flatnonzero(self.block_passes).tolist())

    @cached_property
    def _known(self) -> frozenset[int]:
        return frozenset(self._numbers)

    def _starts(self, axis: int) -> NDArray[np.intp]:
        """The first tile of each row (column) of blocks."""
        return np.arange(self.tiling.shape[axis]) * self.tiling.block_tiles[axis]


def _parts(tiling: Tiling, axis: int) -> NDArray[np.intp]:
    size = (tiling.height, tiling.width)[axis]
    return _axis_parts(size, tiling.block[axis], tiling.keep[axis])


@lru_cache(maxsize=1024)
def _axis_parts(size: int, block: int, keep: int) -> NDArray[np.intp]:
    """First pixel, and first one after, of the part of each tile along an axis."""
    start = (np.arange(0, size, block)[:, None] + np.arange(0, block, keep)).ravel()
    start = start[start < size]
    stop = np.minimum(np.minimum(start + keep, (start // block + 1) * block), size)
    return np.stack([start, stop], axis=1)
