"""Where the strips and tiles of a TIFF lie: one level of one image, in pages of one layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tilepipe.grid import Window
from tilepipe.images.byte_ranges import FileBytes, ObjectBytes
from tilepipe.images.source import UndecodableError

RAW_BYTES = 2**18
"""About how much of an uncompressed strip is read at a time, however large the strip is."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One level of one image: pages of one layout that together hold its bands."""

    pages: tuple[Any, ...]
    """A `tifffile.TiffPage` or `TiffFrame` for each group of bands."""
    files: tuple[FileBytes | ObjectBytes, ...]
    """Where the pages lie."""
    shifts: tuple[int, ...]
    """Added to the offsets in a page: planes of ImageJ lie one behind the other."""
    height: int
    width: int
    samples: int
    """Samples of each page."""
    separate: bool
    """Whether each sample has strips or tiles of its own (PlanarConfiguration 2)."""
    chunk: tuple[int, int]
    """(rows, columns) of a strip or tile, or of a part of a raw strip."""
    raw_rows: int | None = None
    """Rows of a strip, where strips are not compressed and so can be read in part."""

    def segments(self, window: Window) -> Iterator[tuple[int, Window]]:
        """Number, counted in one page and sample, and extent of all that a window touches."""
        rows, columns = self.chunk
        across = -(-self.width // columns)
        for row in range(window.y // rows, -(-window.stop_y // rows)):
            for column in range(window.x // columns, -(-window.stop_x // columns)):
                y, x = row * rows, column * columns
                height, width = min(rows, self.height - y), min(columns, self.width - x)
                yield row * across + column, Window(y, x, height, width)

    @property
    def per_sample(self) -> int:
        """Segments that one sample takes where each has its own."""
        return -(-self.height // self.chunk[0]) * -(-self.width // self.chunk[1])

    @property
    def _stored(self) -> int:
        """As `per_sample`, of what the file holds: raw strips count whole."""
        return self.per_sample if self.raw_rows is None else -(-self.height // self.raw_rows)

    def locate(self, index: int, sample: int, number: int) -> tuple[int, int, int]:
        """Number in its page, offset and count of bytes of a segment; 0 bytes if left out."""
        page, shift = self.pages[index], self.shifts[index]
        stored, skip = number, 0
        if self.raw_rows is not None:
            stored, skip = divmod(number * self.chunk[0], self.raw_rows)
        stored += sample * self._stored
        if stored >= min(len(page.dataoffsets), len(page.databytecounts)):
            return stored, 0, 0
        offset, count = page.dataoffsets[stored], page.databytecounts[stored]
        if not offset or not count:
            return stored, 0, 0
        if self.raw_rows is not None:
            rows = min(self.chunk[0], self.height - number * self.chunk[0])
            if (skip + rows) * self.row_bytes > count:
                raise UndecodableError(f"strip {stored} is shorter than it should be")
            offset, count = offset + skip * self.row_bytes, rows * self.row_bytes
        return stored, offset + shift, count

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a raw strip."""
        samples = 1 if self.separate else self.samples
        return int(self.width * samples * self.pages[0].keyframe.dtype.itemsize)

    @property
    def sparse(self) -> bool:
        """Whether the file leaves out some segment."""
        total = self._stored * (self.samples if self.separate else 1)
        return any(
            min(len(page.dataoffsets), len(page.databytecounts)) < total
            or 0 in page.databytecounts
            or 0 in page.dataoffsets
            for page in self.pages
        )


def chunk_of(keyframe: Any) -> tuple[int, int]:
    """(rows, columns) of a page's tiles or strips, or of a part of a raw strip."""
    if keyframe.is_tiled:
        return keyframe.tilelength, keyframe.tilewidth
    rows = min(keyframe.rowsperstrip, keyframe.imagelength)
    if is_raw(keyframe):
        separate = keyframe.planarconfig == 2
        row_bytes = keyframe.imagewidth * keyframe.dtype.itemsize
        row_bytes *= 1 if separate else keyframe.samplesperpixel
        largest = max(1, min(rows, RAW_BYTES // row_bytes))
        # A whole part of the strip, so that none lies in two.
        rows = next(part for part in range(largest, 0, -1) if rows % part == 0)
    return rows, keyframe.imagewidth


def is_raw(keyframe: Any) -> bool:
    """Whether strips are rows of numbers one after the other, as they will be in memory."""
    return (
        not keyframe.is_tiled
        and keyframe.compression == 1
        and keyframe.predictor == 1
        and keyframe.fillorder == 1
        and keyframe.dtype is not None
        and keyframe.bitspersample == keyframe.dtype.itemsize * 8
        and not keyframe.is_subsampled
    )
