"""Tiles streamed from a mask, for exports as TIFF."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat

import numpy as np
import tifffile

from tilepipe.grid import CHUNK, Window
from tilepipe.products.content import Content, Form

CHUNKS_A_READ = 8
"""Neighbouring chunks that are read, and so decoded, together."""

ENCODE_THREADS = 2

LARGEST_CLASSIC_TIFF = 2 << 30
"""The most bytes of uncompressed pixels for which a classic TIFF is written."""


def deflated_tiles(
    content: Content,
    level: int,
    plane: int,
    *,
    compression: int | None = None,
    empty: bytes | None = None,
) -> Iterator[bytes]:
    """Deflated tiles of 512 x 512 of one plane, row by row, padded with "no answer".

    Tiles that are not stored, because they have no answer, are all the same bytes: ``empty``, by
    default a deflated tile. So a mask of a small region costs little more than the region.
    ``compression`` is zlib's level, by default 6.
    """
    encode = partial(
        tifffile.TIFF.COMPRESSORS[tifffile.COMPRESSION.ADOBE_DEFLATE], level=compression
    )
    nothing = np.full((CHUNK, CHUNK), content.nothing, content.form.dtype)
    deflated_nothing = encode(nothing) if empty is None else empty
    stored = content.stored_chunks(level, plane)
    height, width = content.levels[level]
    with ThreadPoolExecutor(ENCODE_THREADS) as pool:
        for row in range(-(-height // CHUNK)):
            for first in range(0, -(-width // CHUNK), CHUNKS_A_READ):
                columns = range(first, min(first + CHUNKS_A_READ, -(-width // CHUNK)))
                if not any((row, column) in stored for column in columns):
                    yield from repeat(deflated_nothing, len(columns))
                    continue
                y, x = row * CHUNK, first * CHUNK
                window = Window(y, x, min(CHUNK, height - y), min(len(columns) * CHUNK, width - x))
                pixels = np.full((CHUNK, len(columns) * CHUNK), content.nothing, nothing.dtype)
                pixels[: window.height, : window.width] = content.read_plane(plane, window, level)
                whole = (pixels[:, x : x + CHUNK] for x in range(0, pixels.shape[1], CHUNK))
                yield from pool.map(encode, map(np.ascontiguousarray, whole))


def needs_bigtiff(form: Form) -> bool:
    """Whether a TIFF of this form could exceed the classic format, by its size alone."""
    pixels = sum(height * width for height, width in form.spec.levels)
    return pixels * form.pixel_bytes > LARGEST_CLASSIC_TIFF
