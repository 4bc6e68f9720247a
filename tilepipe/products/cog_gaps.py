"""Filling in the tiles that GDAL leaves out of a sparse COG.

GDAL takes as long to compress an empty tile as any other, and in the mask of a small region nearly
all tiles are empty. So GDAL leaves them out, and they are filled in here as copies of one, in the
layout that GDAL gives such a file. They cannot stay out: many readers take a missing tile for
zeros, which is a class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

MARGIN = 4
"""Bytes that GDAL writes before a tile (its size) and after it (its last four bytes again)."""

_SIZES = {3: 2, 4: 4, 16: 8}
"""Bytes of a number, by its TIFF type: SHORT, LONG, LONG8."""

COPIED_BYTES = 16 << 20
"""The number of bytes that are copied at a time."""


@dataclass(slots=True)
class _Level:
    """The positions and sizes of a level's tiles, with the tags that hold them."""

    offsets: list[int]
    counts: list[int]
    tags: tuple[Any, Any]

    @classmethod
    def of(cls, page: Any) -> _Level:
        tags = page.tags["TileOffsets"], page.tags["TileByteCounts"]
        return cls(list(page.dataoffsets), list(page.databytecounts), tags)

    def arrays(self, order: str) -> Iterator[tuple[int, bytes]]:
        """The content of the tags, and its position; OverflowError if a value does not fit."""
        for tag, values in zip(self.tags, (self.offsets, self.counts), strict=True):
            dtype = np.dtype(f"{order}u{_SIZES[int(tag.dtype)]}")
            if max(values) > np.iinfo(dtype).max:
                raise OverflowError(f"tag {tag.name} cannot hold {max(values)}")
            yield tag.valueoffset, np.array(values, dtype).tobytes()


def fill_gaps(sparse: Path, target: Path, fill: float, deflated: Callable[[], bytes]) -> None:
    """Write a COG with the tiles that a sparse one, written with ``SPARSE_OK``, lacks.

    The pixels of missing tiles are ``fill``. ``deflated`` returns such a tile, compressed like the
    others; it is called only if one is missing. Both files must be on the same disk.

    Raises
    ------
    ValueError
        When the missing tiles have another value.
    OverflowError
        When the file becomes too large for GDAL's offsets.
    """
    with tifffile.TiffFile(sparse) as file:
        levels = [_Level.of(page) for page in file.pages]
        order, nodata = file.byteorder, file.pages[0].nodata
    if all(all(level.offsets) for level in levels):
        sparse.replace(target)
        return
    if not np.array_equal(nodata, fill, equal_nan=True):
        raise ValueError(f"tiles of {nodata} are missing, not of {fill}")
    nothing = deflated()
    begin = min(
        (offset for level in levels for offset in level.offsets if offset),
        default=sparse.stat().st_size + MARGIN,
    )
    block = len(nothing).to_bytes(MARGIN, "little") + nothing + nothing[-MARGIN:]
    with sparse.open("rb") as source, target.open("wb") as out:
        _copy(source, out, 0, begin - MARGIN)
        for level in reversed(levels):  # the coarsest comes first
            for number, (offset, count) in enumerate(zip(level.offsets, level.counts, strict=True)):
                level.offsets[number] = out.tell() + MARGIN
                if offset:
                    _copy(source, out, offset - MARGIN, count + 2 * MARGIN)
                else:
                    level.counts[number] = len(nothing)
                    out.write(block)
        for level in levels:
            for place, array in level.arrays(order):
                out.seek(place)
                out.write(array)


def _copy(source: BinaryIO, target: BinaryIO, start: int, size: int) -> None:
    source.seek(start)
    while size > 0 and (piece := source.read(min(size, COPIED_BYTES))):
        target.write(piece)
        size -= len(piece)
