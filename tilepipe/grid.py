"""Windows, tiles and blocks: immutable, integer arithmetic only; no arrays, no I/O.

Three ideas, each built on the one before it:

- a `Window` is a rectangle of pixels that may reach outside the image;
- a `Geometry` says what a network takes and gives, and from it which windows are exact;
- a `Tiling` covers an image with blocks, and each block with tiles, all of one shape and phase.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CHUNK = 512
"""Side of a chunk of the mask, in pixels, whatever the window."""

LARGEST_BLOCK = 4096
"""Side of the largest block chosen unasked: what a kill can lose, and what a write holds."""


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


def round_down(value: int, multiple: int) -> int:
    """The largest multiple of ``multiple`` that is at most ``value``."""
    return value // multiple * multiple


def mirror_index(index: int, size: int) -> int:
    """Where pixel ``index`` of a mirrored axis lies within ``0 .. size - 1``.

    The axis repeats with period ``2 * size - 2``, its edge pixels not doubled: numpy's
    ``reflect``, for any distance from the image, also where it is smaller than the margin.
    """
    if size == 1:
        return 0
    period = 2 * size - 2
    folded = index % period
    return folded if folded < size else period - folded


def mirror_span(start: int, length: int, size: int) -> tuple[int, int]:
    """The half-open range of real pixels that ``start .. start + length`` mirrors onto."""
    stop = start + length
    if size == 1 or length >= 2 * size - 2:
        return 0, size
    if start >= 0 and stop <= size:
        return start, stop
    indices = [mirror_index(start, size), mirror_index(stop - 1, size)]
    # Between its two ends a span is monotone but where it folds: at pixel 0 and at the last one.
    period = 2 * size - 2
    if -(-start // period) * period < stop:
        indices.append(0)
    if (-(-(start - size + 1) // period)) * period + size - 1 < stop:
        indices.append(size - 1)
    return min(indices), max(indices) + 1


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of pixels, (y, x, height, width); may reach outside the image."""

    y: int
    x: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a window needs at least one pixel, not {self.height} x {self.width}")

    @property
    def stop_y(self) -> int:
        """First row below the window."""
        return self.y + self.height

    @property
    def stop_x(self) -> int:
        """First column right of the window."""
        return self.x + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Pixels."""
        return self.height * self.width

    def pad(self, before: int, after: int | None = None) -> Window:
        """Grown by ``before`` at top and left, by ``after`` (or as much) at bottom and right."""
        grown = before + (before if after is None else after)
        return Window(self.y - before, self.x - before, self.height + grown, self.width + grown)

    def shift(self, y: int, x: int) -> Window:
        """Moved by ``(y, x)``."""
        return Window(self.y + y, self.x + x, self.height, self.width)

    def intersect(self, other: Window) -> Window | None:
        """The pixels common to both, or None."""
        y, x = max(self.y, other.y), max(self.x, other.x)
        stop_y, stop_x = min(self.stop_y, other.stop_y), min(self.stop_x, other.stop_x)
        if y >= stop_y or x >= stop_x:
            return None
        return Window(y, x, stop_y - y, stop_x - x)

    def contains(self, other: Window) -> bool:
        """Whether every pixel of ``other`` is in this window."""
        return self.intersect(other) == other

    def slices(self, origin: Window | None = None) -> tuple[slice, slice]:
        """Row and column slices of this window, counted from the corner of ``origin``."""
        y, x = (origin.y, origin.x) if origin else (0, 0)
        return slice(self.y - y, self.stop_y - y), slice(self.x - x, self.stop_x - x)


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a network takes and gives: the `tile` of a model file."""

    input: int = 572
    """Side of the tile that goes in, pixels."""
    output: int = 388
    """Side of what comes out."""
    margin: int = 92
    """How far from a window's edge an output may still depend on where the window was cut."""
    stride_factor: int = 16
    """Total downsampling: the phase on which tiles must agree."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "margin", "stride_factor"):
            if getattr(self, name) < (0 if name == "margin" else 1):
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.output > self.input or (self.input - self.output) % 2:
            raise ValueError(
                f"an input of {self.input} cannot give an output of {self.output}: "
                "what is lost must be even, as much at each edge"
            )
        if self.margin < self.shrink or (self.margin - self.shrink) % self.stride_factor:
            raise ValueError(
                f"the margin {self.margin} must be {self.shrink}, what the network takes off each "
                f"edge, or more by a multiple of the stride factor {self.stride_factor}"
            )
        if CHUNK % self.stride_factor:
            raise ValueError(f"the stride factor {self.stride_factor} must divide {CHUNK}")
        if self.step < 1:
            raise ValueError(
                f"an input of {self.input} with a margin of {self.margin} keeps no whole stride "
                f"factor of {self.stride_factor}: the tile is too small"
            )

    @property
    def shrink(self) -> int:
        """Pixels that the network itself takes off each edge (92 for 572 in, 388 out)."""
        return (self.input - self.output) // 2

    @property
    def step(self) -> int:
        """Distance between tiles: the most whole stride factors that fit in the output (384)."""
        return self.kept(self.input)

    @property
    def smallest_input(self) -> int:
        """The smallest valid window: it keeps one stride factor."""
        return self.input_for(self.stride_factor)

    def is_valid(self, side: int) -> bool:
        """Whether ``side`` is an input the network takes and of which something can be kept."""
        return (side - self.input) % self.stride_factor == 0 and side >= self.smallest_input

    def kept(self, side: int) -> int:
        """Outputs kept, per axis, of a window ``side`` pixels wide."""
        return max(0, round_down(side - 2 * self.margin, self.stride_factor))

    def input_for(self, keep: int) -> int:
        """The smallest valid input that keeps ``keep`` outputs, a multiple of the stride factor."""
        if keep < 1 or keep % self.stride_factor:
            raise ValueError(f"{keep} is not a multiple of the stride factor {self.stride_factor}")
        least = keep + 2 * self.margin
        return least + (self.input - least) % self.stride_factor

    def window_for(self, kept: Window) -> Window:
        """The window to read so that the outputs ``kept`` are exact."""
        return Window(
            kept.y - self.margin,
            kept.x - self.margin,
            self.input_for(kept.height),
            self.input_for(kept.width),
        )

    def crop(self, kept: tuple[int, int]) -> tuple[slice, slice]:
        """Where the ``kept`` (height, width) outputs lie in what the network returns."""
        start = self.margin - self.shrink
        return slice(start, start + kept[0]), slice(start, start + kept[1])


@dataclass(frozen=True, slots=True)
class Tiling:
    """Blocks that cover an image once, each cut into tiles of one shape and one phase.

    A block starts at a multiple of its own size, a whole number of chunks, so no two blocks share
    a chunk. A tile starts at a multiple of the stride factor.
    """

    height: int
    """Rows of the image, at the level that is read."""
    width: int
    """Columns."""
    block: tuple[int, int]
    """Size of a block in pixels (rows, columns), multiples of `CHUNK`."""
    keep: tuple[int, int]
    """Outputs kept of each tile (rows, columns)."""
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"an image of {self.height} x {self.width} has no pixels")
        for axis, (block, keep) in enumerate(zip(self.block, self.keep, strict=True)):
            if block < CHUNK or block % CHUNK:
                raise ValueError(f"a block of {block} is no multiple of the chunk size {CHUNK}")
            if not 1 <= keep <= block:
                raise ValueError(f"tiles of {keep} do not fit a block of {block} (axis {axis})")
            if keep % self.geometry.stride_factor:
                raise ValueError(
                    f"tiles of {keep} are off the phase, {self.geometry.stride_factor}"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of blocks, (rows, columns)."""
        return -(-self.height // self.block[0]), -(-self.width // self.block[1])

    def __len__(self) -> int:
        rows, columns = self.shape
        return rows * columns

    def __iter__(self) -> Iterator[int]:
        """Block numbers, row by row."""
        return iter(range(len(self)))

    @property
    def input(self) -> tuple[int, int]:
        """Size (rows, columns) of every window that goes through the network."""
        return self.geometry.input_for(self.keep[0]), self.geometry.input_for(self.keep[1])

    def block_window(self, number: int) -> Window:
        """The pixels of block ``number``, clipped to the image."""
        row, column = divmod(number, self.shape[1])
        y, x = row * self.block[0], column * self.block[1]
        return Window(y, x, min(self.block[0], self.height - y), min(self.block[1], self.width - x))

    def tiles(self, number: int) -> tuple[Window, ...]:
        """The outputs that each tile of a block keeps; the last may overlap the one before it.

        A tile may reach past the block where the block is clipped by the image.
        """
        block = self.block_window(number)
        rows = self._starts(block.height, axis=0)
        columns = self._starts(block.width, axis=1)
        return tuple(Window(block.y + y, block.x + x, *self.keep) for y in rows for x in columns)

    def parts_of(self, number: int) -> tuple[Window, ...]:
        """The part of a block that each of its `tiles` is for: each pixel is in one of them.

        Where tiles overlap, the pixels are the first one's, so that which tile a pixel comes from
        does not depend on what else is computed.
        """
        block, (rows, columns) = self.block_window(number), self.keep
        return tuple(
            Window(y, x, min(rows, block.stop_y - y), min(columns, block.stop_x - x))
            for y in range(block.y, block.stop_y, rows)
            for x in range(block.x, block.stop_x, columns)
        )

    @property
    def block_tiles(self) -> tuple[int, int]:
        """Number of tiles of a whole block, (rows, columns)."""
        return -(-self.block[0] // self.keep[0]), -(-self.block[1] // self.keep[1])

    def _starts(self, length: int, axis: int) -> list[int]:
        keep, factor = self.keep[axis], self.geometry.stride_factor
        starts = list(range(0, length, keep))
        # Pulled back to end with the block where it can, so that less is read outside the image.
        last = round_up(length, factor) - keep
        if len(starts) > 1 and last % factor == 0:
            starts[-1] = last
        return starts

    def window(self, tile: Window) -> Window:
        """What is read for a tile."""
        return self.geometry.window_for(tile)

    def full_reach(self, number: int) -> Window:
        """What all tiles of a block read, as one window.

        A run reads `Coverage.reach`, which is smaller where only a part of the block is computed.
        """
        windows = [self.window(tile) for tile in self.tiles(number)]
        y, x = min(w.y for w in windows), min(w.x for w in windows)
        stop_y, stop_x = max(w.stop_y for w in windows), max(w.stop_x for w in windows)
        return Window(y, x, stop_y - y, stop_x - x)

    @property
    def forward_passes(self) -> int:
        """Tiles of all blocks together."""
        return self._axis_tiles(0) * self._axis_tiles(1)

    @property
    def work(self) -> int:
        """Pixels that go through the network, over the whole image."""
        height, width = self.input
        return self.forward_passes * height * width

    def _axis_tiles(self, axis: int) -> int:
        size, block, keep = (self.height, self.width)[axis], self.block[axis], self.keep[axis]
        whole, rest = divmod(size, block)
        return whole * -(-block // keep) + -(-rest // keep)


def paper_tiling(height: int, width: int, geometry: Geometry, side: int | None = None) -> Tiling:
    """The tiling with square windows of ``side`` (the model's own tile when None).

    The block is the one, of up to 2048 pixels or two tiles a side, in which tiles overlap least:
    tiles of 384 share blocks of 1536, 4 x 4.
    """
    keep = geometry.kept(geometry.input if side is None else side)
    largest = max(2048, round_up(2 * keep, CHUNK))
    blocks = range(round_up(keep, CHUNK), largest + 1, CHUNK)
    block = min(blocks, key=lambda b: (-(-b // keep) * keep / b, b))
    return Tiling(height, width, (block, block), (keep, keep), geometry)


def candidate_tilings(
    height: int, width: int, geometry: Geometry, largest_keep: int
) -> Iterator[Tiling]:
    """Exact tilings worth considering, of windows that keep up to ``largest_keep`` per axis.

    For each axis, only the windows that no smaller one beats: as the window grows, fewer tiles.
    """
    for block_y, keep_y in _axis_candidates(height, geometry, largest_keep):
        for block_x, keep_x in _axis_candidates(width, geometry, largest_keep):
            yield Tiling(height, width, (block_y, block_x), (keep_y, keep_x), geometry)


def _axis_candidates(size: int, geometry: Geometry, largest_keep: int) -> list[tuple[int, int]]:
    factor = geometry.stride_factor
    best: dict[int, tuple[int, int]] = {}
    for keep in range(factor, min(largest_keep, round_up(size, factor)) + 1, factor):
        # Mostly one window a block; where that leaves a thin last block, one of several windows.
        blocks = range(round_up(keep, CHUNK), round_up(min(size, LARGEST_BLOCK), CHUNK) + 1, CHUNK)
        for block in blocks:
            whole, rest = divmod(size, block)
            tiles = whole * -(-block // keep) + -(-rest // keep)
            if tiles not in best or (keep, block) < (best[tiles][1], best[tiles][0]):
                best[tiles] = (block, keep)
    chosen: list[tuple[int, int]] = []
    for tiles in sorted(best):
        # More tiles are worth a thought only if each is smaller.
        block, keep = best[tiles]
        if not chosen or keep < chosen[-1][1]:
            chosen.append((block, keep))
    return chosen


LEAST_ROWS = 16
"""Rows of a window of a `WindowGrid`, however wide the strips of a file are."""


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Windows of one size that cover an area, row by row; the last ones may be smaller."""

    area: Window
    tile: tuple[int, int]
    """(height, width) of a window."""

    @classmethod
    def along_chunks(cls, shape: tuple[int, int], chunk: tuple[int, int], side: int) -> WindowGrid:
        """Windows of about ``side`` x ``side`` pixels that follow the tiles or strips of a file.

        Parameters
        ----------
        shape, chunk : tuple of int
            (height, width) of the file's image, and of what is decoded together.
        side : int
            A file in strips is read in windows as wide as the image, with fewer rows.
        """
        (height, width), (rows, columns) = shape, chunk
        across = min(width, max(columns, round_down(side, columns)))
        down = max(LEAST_ROWS, side * side // across)
        return cls(
            Window(0, 0, height, width), (min(height, round_down(down, rows) or down), across)
        )

    def __iter__(self) -> Iterator[Window]:
        area, (height, width) = self.area, self.tile
        for y in range(area.y, area.stop_y, height):
            for x in range(area.x, area.stop_x, width):
                yield Window(y, x, min(height, area.stop_y - y), min(width, area.stop_x - x))
