"""What all exports share: complete files only, and tiles streamed from a mask."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat

import numpy as np
import tifffile

from tilepipe.grid import CHUNK, Window
from tilepipe.products.base import MaskSpec
from tilepipe.products.store import ZarrMask

CHUNKS_A_READ = 8
"""Chunks that lie beside each other are read together, so that they are decoded together."""

ENCODE_THREADS = 2

LARGEST_CLASSIC_TIFF = 2 << 30
"""Bytes of pixels, uncompressed, above which offsets of 4 bytes are no longer trusted."""


def deflated_tiles(
    mask: ZarrMask,
    level: int,
    plane: int,
    *,
    compression: int | None = None,
    empty: bytes | None = None,
) -> Iterator[bytes]:
    """Whole tiles of 512 x 512 of one plane, row by row, as a TIFF holds them.

    Filled up with "no answer". Of a tile without any answer, which is not stored, all are copies of
    one, so that a mask of a small region costs little more than the region.

    Parameters
    ----------
    compression : int, optional
        As of zlib; 6 by default.
    empty : bytes, optional
        Instead of a tile that is not stored.
    """
    encode = partial(
        tifffile.TIFF.COMPRESSORS[tifffile.COMPRESSION.ADOBE_DEFLATE], level=compression
    )
    nothing = np.full((CHUNK, CHUNK), mask.spec.fill, mask.dtype)
    deflated_nothing = encode(nothing) if empty is None else empty
    stored = mask.stored_chunks(level, plane)
    height, width = mask.levels[level]
    with ThreadPoolExecutor(ENCODE_THREADS) as pool:
        for row in range(-(-height // CHUNK)):
            for first in range(0, -(-width // CHUNK), CHUNKS_A_READ):
                columns = range(first, min(first + CHUNKS_A_READ, -(-width // CHUNK)))
                if not any((row, column) in stored for column in columns):
                    yield from repeat(deflated_nothing, len(columns))
                    continue
                y, x = row * CHUNK, first * CHUNK
                window = Window(y, x, min(CHUNK, height - y), min(len(columns) * CHUNK, width - x))
                pixels = np.full((CHUNK, len(columns) * CHUNK), mask.spec.fill, mask.dtype)
                pixels[: window.height, : window.width] = mask.read_plane(plane, window, level)
                whole = (pixels[:, x : x + CHUNK] for x in range(0, pixels.shape[1], CHUNK))
                yield from pool.map(encode, map(np.ascontiguousarray, whole))


def needs_bigtiff(spec: MaskSpec) -> bool:
    """Whether a file of this mask could outgrow classic TIFF; from its size alone."""
    pixels = sum(height * width for height, width in spec.levels)
    return pixels * spec.planes * spec.dtype.itemsize > LARGEST_CLASSIC_TIFF
