"""Putting tiles into a COG for which GDAL has written everything else.

GDAL would decode and compress the tiles of a mask a second time. So it writes a COG whose tiles are
all left out, and they are put in here, in the layout that GDAL gives such a file.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

MARGIN = 4
"""Bytes that GDAL writes before a tile (its size) and after it (its last four bytes again)."""

_SIZES = {3: 2, 4: 4, 16: 8}
"""Bytes of a number, by its TIFF type: SHORT, LONG, LONG8."""


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


def put_tiles(
    skeleton: Path, target: Path, levels: int, tiles: Callable[[int], Iterable[bytes]]
) -> None:
    """Write a COG from one that was written with ``SPARSE_OK`` and has no tile.

    Parameters
    ----------
    levels
        The number of its levels.
    tiles
        Returns the compressed tiles of a level, row by row.

    Raises
    ------
    ValueError
        When the skeleton has tiles, or another number of them.
    OverflowError
        When the file becomes too large for GDAL's offsets.
    OSError
        When the skeleton is not whole, or the file cannot be written.
    """
    found, order = _levels_of(skeleton, levels)
    if any(any(level.offsets) for level in found):
        raise ValueError(f"{skeleton} has tiles")
    with skeleton.open("rb") as source, target.open("wb") as out:
        shutil.copyfileobj(source, out)
        for number, level in reversed(list(enumerate(found))):  # the coarsest comes first
            places = range(len(level.offsets))
            for place, tile in zip(places, tiles(number), strict=True):
                level.offsets[place], level.counts[place] = out.tell() + MARGIN, len(tile)
                out.write(len(tile).to_bytes(MARGIN, "little"))
                out.write(tile)
                out.write(tile[-MARGIN:])
        for level in found:
            for position, array in level.arrays(order):
                out.seek(position)
                out.write(array)


def _levels_of(skeleton: Path, levels: int) -> tuple[list[_Level], str]:
    """The levels of a skeleton and its byte order; OSError if a part of it is missing."""
    size = skeleton.stat().st_size
    try:
        with tifffile.TiffFile(skeleton) as file:
            # GDAL may not report an error while it closes a file.
            whole = len(file.pages) == levels and all(
                tag.valueoffset + tag.valuebytecount <= size
                for page in file.pages
                for tag in page.tags
            )
            if whole:
                return [_Level.of(page) for page in file.pages], file.byteorder
    except (tifffile.TiffFileError, LookupError, ValueError):
        pass
    raise OSError(errno.EIO, "cannot be written: GDAL left it incomplete", str(skeleton))
