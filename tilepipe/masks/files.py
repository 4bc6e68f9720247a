"""What all exports share: complete files only, and tiles streamed from a mask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import CHUNK, Window
from tilepipe.masks.base import MaskSpec
from tilepipe.masks.store import ZarrMask
from tilepipe.places.settling import settle_folder

CHUNKS_A_READ = 8
"""Chunks that lie beside each other are read together, so that they are decoded together."""

LARGEST_CLASSIC_TIFF = 2 << 30
"""Bytes of pixels, uncompressed, above which offsets of 4 bytes are no longer trusted."""


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file takes its own name when, and only when, that succeeds."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        yield part
        # Renamed only when it is on the disk: some file systems tell no sooner that they are full.
        with part.open("r+b") as written:
            os.fsync(written.fileno())
        part.replace(path)
        settle_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def tiles(mask: ZarrMask, level: int, plane: int) -> Iterator[NDArray[Any]]:
    """Whole tiles of 512 x 512 of one plane, row by row; filled up with "no answer"."""
    for window, pixels in rows_of_tiles(mask, level, plane):
        for x in range(0, window.width, CHUNK):
            tile = pixels[:, x : x + CHUNK]
            if tile.shape != (CHUNK, CHUNK):
                whole = np.full((CHUNK, CHUNK), mask.spec.fill, mask.dtype)
                whole[: tile.shape[0], : tile.shape[1]] = tile
                tile = whole
            yield np.ascontiguousarray(tile)


def rows_of_tiles(mask: ZarrMask, level: int, plane: int) -> Iterator[tuple[Window, NDArray[Any]]]:
    """The pixels of a plane, row by row of chunks, a few chunks at a time."""
    height, width = mask.levels[level]
    step = CHUNK * CHUNKS_A_READ
    for y in range(0, height, CHUNK):
        for x in range(0, width, step):
            window = Window(y, x, min(CHUNK, height - y), min(step, width - x))
            yield window, mask.read_plane(plane, window, level)


def needs_bigtiff(spec: MaskSpec) -> bool:
    """Whether a file of this mask could outgrow classic TIFF; from its size alone."""
    pixels = sum(height * width for height, width in spec.levels)
    return pixels * spec.planes * spec.dtype.itemsize > LARGEST_CLASSIC_TIFF
