"""Which blocks and tiles of a tiling are computed: those that touch the region."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import CHUNK, Patch, Tiling, Window, round_up
from tilepipe.regions.cells import Region
from tilepipe.regions.cover import cover


class Coverage:
    """The blocks and tiles that a run computes: all those of a tiling, or those of a region.

    Nothing else decides this. Other blocks are never written, and so read as no answer.

    Parameters
    ----------
    tiling
        The tiling of the whole image.
    region
        Where to compute; None: everywhere.
    framed
        Whether the tiles of a block are cut to the region, none larger than those of the tiling.
        Otherwise they are the tiles of the tiling that touch the region.
    """

    def __init__(self, tiling: Tiling, region: Region | None = None, framed: bool = False) -> None:
        self.tiling, self.region, self.framed = tiling, region, framed
        # Which tiles (or blocks, where framed), row by row of the image; None: all.
        self._active: NDArray[np.bool_] | None = None
        if region is not None:
            rows, columns = (self._parts(axis) for axis in (0, 1))
            self._active = region.holds(rows, columns)

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.tiling) if self._active is None else len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        """Block numbers, row by row."""
        return iter(self.tiling) if self._active is None else iter(self._numbers)

    def __contains__(self, number: object) -> bool:
        if self._active is None:
            return isinstance(number, int) and 0 <= number < len(self.tiling)
        return number in self._known

    def in_order(self) -> Iterator[int]:
        """Block numbers as a run takes them: row by row; where framed, the largest tile first.

        Memory for smaller tiles is there already, and time for fresh memory is spent once.
        """
        if not self.framed or self.region is None:
            return iter(self)
        largest = {n: self.patches(n)[0].read.area for n in self}
        return iter(sorted(self, key=lambda number: -largest[number]))

    @property
    def passes(self) -> int:
        """The number of tiles of all blocks."""
        return self._totals[0]

    @property
    def work(self) -> int:
        """The number of pixels that go through the network."""
        return self._totals[1]

    @property
    def most_work(self) -> int:
        """The number of pixels that go through the network for the most expensive block."""
        return self._totals[2]

    @cached_property
    def windows(self) -> dict[tuple[int, int], int]:
        """How many windows of each (height, width) go through the network."""
        if not self.framed or self.region is None:
            return {self.tiling.input: self.passes}
        blocks = (self.patches(number) for number in self)
        return dict(Counter(patch.read.shape for block in blocks for patch in block))

    @property
    def pixels(self) -> int:
        """The number of pixels in the region."""
        whole = self.tiling.height * self.tiling.width
        return whole if self.region is None else self.region.pixels

    def patches(self, number: int) -> tuple[Patch, ...]:
        """The tiles of a block that are computed: row by row; where framed, the largest first."""
        if self.framed and self.region is not None:
            return self._frames(number, self.region)
        patches = self.tiling.patches(number)
        if self._active is None:
            return patches
        row, column = divmod(number, self.tiling.shape[1])
        down, across = self.tiling.block_tiles
        active = self._active[row * down : (row + 1) * down, column * across :][:, :across]
        return tuple(patch for patch, is_on in zip(patches, active.flat, strict=True) if is_on)

    def reach(self, number: int) -> Window:
        """The window that contains everything the computed tiles of a block read."""
        return Window.around(*(patch.read for patch in self.patches(number)))

    def inside(self, window: Window) -> NDArray[np.bool_] | None:
        """Which pixels of a window within the image belong to the region; None: all."""
        if self.region is None:
            return None
        inside = self.region.inside(window)
        return None if inside.all() else inside

    def _frames(self, number: int, region: Region) -> tuple[Patch, ...]:
        """Tiles cut to the part of the region in a block."""
        geometry, block, cell = self.tiling.geometry, self.tiling.block_window(number), region.cell
        top, left = block.y // cell, block.x // cell
        rows, columns = -(-block.stop_y // cell), -(-block.stop_x // cell)
        factor = geometry.stride_factor
        rim = geometry.input_for(factor) - factor
        most = self.tiling.keep[0] // cell, self.tiling.keep[1] // cell
        found = []
        for y, x, height, width in cover(
            region.cells[top:rows, left:columns], cell, (rim, rim), most
        ):
            frame = Window(block.y + y * cell, block.x + x * cell, height * cell, width * cell)
            use = frame.intersect(block)
            assert use is not None, "it lies in the block"
            keep = Window(use.y, use.x, round_up(use.height, factor), round_up(use.width, factor))
            found.append(Patch(geometry.window_for(keep), keep, use))
        return tuple(sorted(found, key=lambda patch: -patch.read.area))

    @cached_property
    def _totals(self) -> tuple[int, int, int]:
        """`passes`, `work` and `most_work`."""
        height, width = self.tiling.input
        if self._active is None:
            most = min(self.tiling.forward_passes, int(np.prod(self.tiling.block_tiles)))
            return self.tiling.forward_passes, self.tiling.work, most * height * width
        if not self.framed:
            passes = self._block_passes
            area = height * width
            return int(passes.sum()), int(passes.sum()) * area, int(passes.max()) * area
        blocks = [self.patches(number) for number in self._numbers]
        works = [sum(patch.read.area for patch in block) for block in blocks]
        return sum(map(len, blocks)), sum(works), max(works, default=0)

    @cached_property
    def _block_passes(self) -> NDArray[np.int64]:
        """The number of tiles in each block (1 where framed), shape (rows, columns) of blocks."""
        assert self._active is not None, "there is a region"
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
        """The number of the first tile in each row (column) of blocks."""
        return np.arange(self.tiling.shape[axis]) * self.tiling.block_tiles[axis]


def can_be_framed(region: Region, tiling: Tiling) -> bool:
    """Whether blocks, and the largest tiles, consist of whole cells of the region."""
    return CHUNK % region.cell == 0 and not any(keep % region.cell for keep in tiling.keep)


@lru_cache(maxsize=64)
def _axis_parts(size: int, block: int, keep: int) -> NDArray[np.intp]:
    """Along one axis, the first pixel that each tile uses, and the first after them."""
    start = (np.arange(0, size, block)[:, None] + np.arange(0, block, keep)).ravel()
    start = start[start < size]
    stop = np.minimum(np.minimum(start + keep, (start // block + 1) * block), size)
    return np.stack([start, stop], axis=1)
