"""Windows, tiles and blocks: immutable, integer arithmetic only; no arrays, no I/O.

- A `Window` is a rectangle of pixels that may reach outside the image.
- A `Geometry` holds the sizes of a network's input and output, and decides which windows are exact.
- A `Tiling` covers an image with blocks, and each block with tiles of one shape and phase.
- A `Patch` is a tile in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

CHUNK = 512
"""Side of a chunk of the mask, in pixels, whatever the window."""

LARGEST_BLOCK = 4096
"""Side of the largest block that planning chooses: a kill loses that much, a write holds it."""


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


def round_down(value: int, multiple: int) -> int:
    """The largest multiple of ``multiple`` that is at most ``value``."""
    return value // multiple * multiple


def mirror_index(index: int, size: int) -> int:
    """The real pixel, ``0 .. size - 1``, that pixel ``index`` of a mirrored axis shows.

    As numpy's ``reflect``, edge pixels are not doubled, so the axis repeats with period
    ``2 * size - 2``. Works at any distance from the image.
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
    # A span is monotone between its ends except where it folds: at pixel 0 and at the last one.
    period = 2 * size - 2
    if -(-start // period) * period < stop:
        indices.append(0)
    if (-(-(start - size + 1) // period)) * period + size - 1 < stop:
        indices.append(size - 1)
    return min(indices), max(indices) + 1


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of pixels, (y, x, height, width), which may reach outside the image."""

    y: int
    x: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a window needs at least one pixel, not {self.height} x {self.width}")

    @property
    def stop_y(self) -> int:
        """The first row below the window."""
        return self.y + self.height

    @property
    def stop_x(self) -> int:
        """The first column to the right of the window."""
        return self.x + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """The number of pixels."""
        return self.height * self.width

    def pad(self, by: int) -> Window:
        """The window grown by ``by`` pixels on every side."""
        return Window(self.y - by, self.x - by, self.height + 2 * by, self.width + 2 * by)

    def shift(self, y: int, x: int) -> Window:
        """The window moved by ``(y, x)``."""
        return Window(self.y + y, self.x + x, self.height, self.width)

    @classmethod
    def around(cls, *windows: Window) -> Window:
        """The smallest window that contains all of the windows."""
        y, x = min(w.y for w in windows), min(w.x for w in windows)
        stop_y, stop_x = max(w.stop_y for w in windows), max(w.stop_x for w in windows)
        return cls(y, x, stop_y - y, stop_x - x)

    def intersect(self, other: Window) -> Window | None:
        """The pixels that both windows contain, or None."""
        y, x = max(self.y, other.y), max(self.x, other.x)
        stop_y, stop_x = min(self.stop_y, other.stop_y), min(self.stop_x, other.stop_x)
        if y >= stop_y or x >= stop_x:
            return None
        return Window(y, x, stop_y - y, stop_x - x)

    def contains(self, other: Window) -> bool:
        """Whether every pixel of ``other`` is in this window."""
        return self.intersect(other) == other

    def slices(self, origin: Window | None = None) -> tuple[slice, slice]:
        """Row and column slices of this window, relative to the corner of ``origin``."""
        y, x = (origin.y, origin.x) if origin else (0, 0)
        return slice(self.y - y, self.stop_y - y), slice(self.x - x, self.stop_x - x)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a network's input and output in pixels: the `tile` of a model file."""

    input: int = 572
    """Side of the input tile."""
    output: int = 388
    """Side of the output tile."""
    margin: int = 92
    """How far from a window's edge an output may still depend on where the window was cut."""
    stride_factor: int = 16
    """The network's total downsampling, and so the phase that all tiles must share."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "margin", "stride_factor"):
            if getattr(self, name) < (0 if name == "margin" else 1):
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.output > self.input or (self.input - self.output) % 2:
            raise ValueError(
                f"an input of {self.input} cannot give an output of {self.output}: "
                "their difference must be even, half of it at each edge"
            )
        if self.margin < self.shrink or (self.margin - self.shrink) % self.stride_factor:
            raise ValueError(
                f"the margin {self.margin} must be {self.shrink}, which the network takes off each "
                f"edge, plus a multiple of the stride factor {self.stride_factor}"
            )
        if CHUNK % self.stride_factor:
            raise ValueError(f"the stride factor {self.stride_factor} must divide {CHUNK}")
        if self.step < 1:
            raise ValueError(
                f"an input of {self.input} with a margin of {self.margin} keeps less than the "
                f"stride factor {self.stride_factor}: the tile is too small"
            )

    @property
    def shrink(self) -> int:
        """Pixels that the network takes off each edge (92 for an input of 572, output 388)."""
        return (self.input - self.output) // 2

    @property
    def step(self) -> int:
        """Distance between tiles: the largest multiple of the stride factor in the output (384)."""
        return self.kept(self.input)

    @property
    def smallest_input(self) -> int:
        """Side of the smallest valid window, which keeps one stride factor."""
        return self.input_for(self.stride_factor)

    def is_valid(self, side: int) -> bool:
        """Whether the network accepts an input of ``side`` pixels, and some outputs are kept."""
        return (side - self.input) % self.stride_factor == 0 and side >= self.smallest_input

    def kept(self, side: int) -> int:
        """The outputs kept, per axis, of a window ``side`` pixels wide."""
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
        """Row and column slices of the ``kept`` (height, width) outputs in the network's output."""
        start = self.margin - self.shrink
        return slice(start, start + kept[0]), slice(start, start + kept[1])


@dataclass(frozen=True, slots=True)
class Patch:
    """A tile in place."""

    read: Window
    """The pixels that the network sees."""
    keep: Window
    """The outputs that are exact."""
    use: Window
    """The part of `keep` that goes into the mask. No two patches use the same pixel."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Blocks that cover an image once, each cut into tiles of one shape and one phase.

    A block starts at a multiple of its own size, a whole number of chunks, so no two blocks share
    a chunk. A tile starts at a multiple of the stride factor.
    """

    height: int
    """Rows of the image, at the level that is read."""
    width: int
    """Columns of the image, at the level that is read."""
    block: tuple[int, int]
    """(height, width) of a block in pixels, multiples of `CHUNK`."""
    keep: tuple[int, int]
    """(height, width) of the outputs that each tile keeps."""
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"an image of {self.width} x {self.height} pixels is empty")
        for axis, (block, keep) in enumerate(zip(self.block, self.keep, strict=True)):
            if block < CHUNK or block % CHUNK:
                raise ValueError(f"a block of {block} is not a multiple of the chunk size {CHUNK}")
            if not 1 <= keep <= block:
                raise ValueError(f"tiles of {keep} do not fit a block of {block} (axis {axis})")
            if keep % self.geometry.stride_factor:
                factor = self.geometry.stride_factor
                raise ValueError(
                    f"tiles of {keep} are not a multiple of the stride factor {factor}"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns of blocks."""
        return -(-self.height // self.block[0]), -(-self.width // self.block[1])

    def __len__(self) -> int:
        rows, columns = self.shape
        return rows * columns

    def __iter__(self) -> Iterator[int]:
        """Block numbers, row by row."""
        return iter(range(len(self)))

    @property
    def input(self) -> tuple[int, int]:
        """(height, width) of every window that goes through the network."""
        return self.geometry.input_for(self.keep[0]), self.geometry.input_for(self.keep[1])

    def block_window(self, number: int) -> Window:
        """The pixels of block ``number``, clipped to the image."""
        blocks = WindowGrid(Window(0, 0, self.height, self.width), self.block)
        return blocks.window(*divmod(number, self.shape[1]))

    def patches(self, number: int) -> tuple[Patch, ...]:
        """The tiles of a block, row by row; each pixel of the block is used from one of them.

        A tile may reach past the block where the image clips it. The last tile of a row or column
        may overlap the one before, and then the first one's pixels are used, so that the origin of
        a pixel does not depend on what else is computed.
        """
        block = self.block_window(number)
        keeps = (
            Window(y, x, *self.keep) for y in self.starts(block, 0) for x in self.starts(block, 1)
        )
        return tuple(
            Patch(self.geometry.window_for(keep), keep, use)
            for keep, use in zip(keeps, WindowGrid(block, self.keep), strict=True)
        )

    @property
    def block_tiles(self) -> tuple[int, int]:
        """Numbers of rows and columns of tiles in a whole block."""
        return -(-self.block[0] // self.keep[0]), -(-self.block[1] // self.keep[1])

    def starts(self, block: Window, axis: int) -> list[int]:
        """The first row (``axis`` 0) or column (1) that each tile of a block keeps."""
        first, length = (block.y, block.x)[axis], block.shape[axis]
        keep, factor = self.keep[axis], self.geometry.stride_factor
        starts = list(range(first, first + length, keep))
        # If possible the last tile ends with the block, so that less is read outside the image.
        last = round_up(length, factor) - keep
        if len(starts) > 1 and last % factor == 0:
            starts[-1] = first + last
        return starts

    def full_reach(self, number: int) -> Window:
        """The window that contains everything the tiles of a block read.

        A run reads `Coverage.reach`, which is smaller where only a part of the block is computed.
        """
        block = self.block_window(number)
        rows, columns = self.starts(block, 0), self.starts(block, 1)
        ends = (Window(rows[end], columns[end], *self.keep) for end in (0, -1))
        return Window.around(*map(self.geometry.window_for, ends))

    @property
    def forward_passes(self) -> int:
        """The number of tiles of all blocks."""
        return self._axis_tiles(0) * self._axis_tiles(1)

    @property
    def work(self) -> int:
        """The number of pixels that go through the network for the whole image."""
        height, width = self.input
        return self.forward_passes * height * width

    def _axis_tiles(self, axis: int) -> int:
        size, block, keep = (self.height, self.width)[axis], self.block[axis], self.keep[axis]
        whole, rest = divmod(size, block)
        return whole * -(-block // keep) + -(-rest // keep)


def paper_tiling(height: int, width: int, geometry: Geometry, side: int | None = None) -> Tiling:
    """The tiling with square windows of ``side`` pixels, by default the model's own tile.

    Of the block sizes up to 2048 pixels, or two tiles, it takes the one in which tiles overlap
    least: 4 x 4 tiles of 384 fill a block of 1536.
    """
    keep = geometry.kept(geometry.input if side is None else side)
    largest = max(2048, round_up(2 * keep, CHUNK))
    blocks = range(round_up(keep, CHUNK), largest + 1, CHUNK)
    block = min(blocks, key=lambda b: (-(-b // keep) * keep / b, b))
    return Tiling(height, width, (block, block), (keep, keep), geometry)


def candidate_tilings(
    height: int, width: int, geometry: Geometry, largest_keep: int
) -> Iterator[Tiling]:
    """Exact tilings worth considering, with windows that keep up to ``largest_keep`` per axis.

    A larger window is among them only if it needs fewer tiles than every smaller one.
    """
    for block_y, keep_y in _axis_candidates(height, geometry, largest_keep):
        for block_x, keep_x in _axis_candidates(width, geometry, largest_keep):
            yield Tiling(height, width, (block_y, block_x), (keep_y, keep_x), geometry)


@lru_cache(maxsize=64)
def _axis_candidates(
    size: int, geometry: Geometry, largest_keep: int
) -> tuple[tuple[int, int], ...]:
    """(block, keep) along an axis; asked for anew for each one of the other axis."""
    factor = geometry.stride_factor
    best: dict[int, tuple[int, int]] = {}
    for keep in range(factor, min(largest_keep, round_up(size, factor)) + 1, factor):
        # One window a block is usual; several are better where one would leave a thin last block.
        blocks = range(round_up(keep, CHUNK), round_up(min(size, LARGEST_BLOCK), CHUNK) + 1, CHUNK)
        for block in blocks:
            whole, rest = divmod(size, block)
            tiles = whole * -(-block // keep) + -(-rest // keep)
            if tiles not in best or (keep, block) < (best[tiles][1], best[tiles][0]):
                best[tiles] = (block, keep)
    chosen: list[tuple[int, int]] = []
    for tiles in sorted(best):
        # More tiles are worth considering only if each is smaller.
        block, keep = best[tiles]
        if not chosen or keep < chosen[-1][1]:
            chosen.append((block, keep))
    return tuple(chosen)


LEAST_ROWS = 16
"""The fewest rows of a window of a `WindowGrid`, however wide the strips of a file are."""


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Windows of one size that cover an area, row by row; those at the end may be smaller."""

    area: Window
    tile: tuple[int, int]
    """(height, width) of a window."""

    @classmethod
    def along_chunks(cls, shape: tuple[int, int], chunk: tuple[int, int], side: int) -> WindowGrid:
        """Windows of about ``side`` x ``side`` pixels that follow the tiles or strips of a file.

        Parameters
        ----------
        shape, chunk : tuple of int
            (height, width) of the image, and of the tiles or strips it is stored in.
        side : int
            Side of a window; windows of a file in strips are wider, with fewer rows.
        """
        (height, width), (rows, columns) = shape, chunk
        across = min(width, max(columns, round_down(side, columns)))
        down = max(LEAST_ROWS, side * side // across)
        return cls(
            Window(0, 0, height, width), (min(height, round_down(down, rows) or down), across)
        )

    def __iter__(self) -> Iterator[Window]:
        rows, columns = -(-self.area.height // self.tile[0]), -(-self.area.width // self.tile[1])
        return (self.window(row, column) for row in range(rows) for column in range(columns))

    def window(self, row: int, column: int) -> Window:
        """The window in a row and a column of the grid."""
        area, (height, width) = self.area, self.tile
        y, x = area.y + row * height, area.x + column * width
        return Window(y, x, min(height, area.stop_y - y), min(width, area.stop_x - x))
