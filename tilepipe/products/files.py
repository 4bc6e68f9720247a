"""Tiles streamed from a mask, for exports as TIFF."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import tifffile
from numpy.typing import NDArray

from tilepipe.grid import CHUNK, Window
from tilepipe.products.content import Content, Form

READ_BYTES = 2 << 20
"""Neighbouring chunks of up to this size are read, and so decoded, together."""

THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
"""Threads that read and encode; memory allows a few."""

LARGEST_CLASSIC_TIFF = 2 << 30
"""The most bytes of uncompressed pixels for which a classic TIFF is written."""


def deflated_tiles(
    content: Content, level: int, planes: Sequence[int], *, predicted: bool = False
) -> Iterator[bytes]:
    """Deflated tiles of 512 x 512, row by row, padded with "no answer".

    A tile holds the samples of all ``planes``, those of a pixel side by side. Tiles that are not
    stored, because they have no answer, are all the same bytes, and deflated once. So a mask of a
    small region costs little more than the region. With ``predicted``, pixels are floats, and
    TIFF's predictor for these is applied.
    """
    nothing = np.full((CHUNK, CHUNK, len(planes)), content.nothing, content.form.dtype)
    encode = _encoder(predicted=predicted)
    deflated_nothing = encode(nothing)
    stored = set().union(*(content.stored_chunks(level, plane) for plane in planes))
    height, width = content.levels[level]
    across = max(1, READ_BYTES // nothing.nbytes)
    waiting: deque[list[bytes] | Future[list[bytes]]] = deque()

    def encoded(row: int, columns: range) -> list[bytes]:
        y, x = row * CHUNK, columns[0] * CHUNK
        window = Window(y, x, min(CHUNK, height - y), min(len(columns) * CHUNK, width - x))
        pixels = np.full((CHUNK, len(columns) * CHUNK, len(planes)), nothing[0, 0])
        for sample, plane in enumerate(planes):
            there = pixels[: window.height, : window.width, sample]
            there[...] = content.read_plane(plane, window, level)
        tiles = (pixels[:, x : x + CHUNK] for x in range(0, pixels.shape[1], CHUNK))
        return [encode(np.ascontiguousarray(tile)) for tile in tiles]

    with ThreadPoolExecutor(THREADS) as pool:
        for row in range(-(-height // CHUNK)):
            for first in range(0, -(-width // CHUNK), across):
                columns = range(first, min(first + across, -(-width // CHUNK)))
                if any((row, column) in stored for column in columns):
                    waiting.append(pool.submit(encoded, row, columns))
                else:
                    waiting.append([deflated_nothing] * len(columns))
                if len(waiting) > 2 * THREADS:
                    yield from _result(waiting.popleft())
        while waiting:
            yield from _result(waiting.popleft())


def _result(tiles: list[bytes] | Future[list[bytes]]) -> list[bytes]:
    return tiles if isinstance(tiles, list) else tiles.result()


def _encoder(*, predicted: bool) -> Callable[[NDArray[np.generic]], bytes]:
    deflate: Callable[..., bytes] = tifffile.TIFF.COMPRESSORS[tifffile.COMPRESSION.ADOBE_DEFLATE]
    if not predicted:
        return deflate
    predict = partial(tifffile.TIFF.PREDICTORS[tifffile.PREDICTOR.FLOATINGPOINT], axis=-2)
    return lambda tile: deflate(predict(tile))


def needs_bigtiff(form: Form) -> bool:
    """Whether a TIFF of this form could exceed the classic format, by its size alone."""
    pixels = sum(height * width for height, width in form.spec.levels)
    return pixels * form.pixel_bytes > LARGEST_CLASSIC_TIFF
