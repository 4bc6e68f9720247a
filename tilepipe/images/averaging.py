"""A level of an image made small: the mean of the pixels in each cell, read in bounded pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window, round_down
from tilepipe.images.base import Image

PIECE = 2048
"""About the side of what is read at a time, where the file's tiles allow it."""

Starts = NDArray[np.intp]
"""First row, or column, of each cell, in ascending order; the first cell starts at 0."""

Look = Callable[[Window], tuple[NDArray[Any], NDArray[np.bool_]] | None]
"""Reads a piece of a level: its values, (height, width, bands), and where these are known,
(height, width, bands) or (height, width, 1); None to leave the piece out."""


def averaged(
    image: Image, level: int, rows: Starts, columns: Starts, bands: int, look: Look, dtype: type
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Average the known pixels in each cell of a level.

    Returns
    -------
    means : ndarray of ``dtype``, shape (cells down, cells across, bands)
        0 where nothing is known.
    known : ndarray of bool, shape (cells down, cells across)
        Whether a value of any band is.
    """
    sums: NDArray[Any] = np.zeros((len(rows), len(columns), bands), dtype)
    counts = np.zeros_like(sums)
    for piece in pieces(image, level):
        found = look(piece)
        if found is None:
            continue
        down, row_starts = _cells(rows, piece.y, piece.stop_y)
        across, column_starts = _cells(columns, piece.x, piece.stop_x)
        for total, values in zip((sums, counts), found, strict=True):
            part = np.add.reduceat(values, row_starts, axis=0, dtype=dtype)
            total[down, across] += np.add.reduceat(part, column_starts, axis=1)
    return sums / np.maximum(counts, 1), np.asarray(counts.any(axis=2))


def pieces(image: Image, level: int) -> Iterator[Window]:
    """Cut a level into windows of about as many pixels each, along its tiles or strips."""
    size, (rows, columns) = image.levels[level], image.chunks[level]
    across = min(size.width, max(columns, round_down(PIECE, columns)))
    down = max(1, PIECE * PIECE // across)
    down = min(size.height, round_down(down, rows) or down)
    for y in range(0, size.height, down):
        for x in range(0, size.width, across):
            yield Window(y, x, min(down, size.height - y), min(across, size.width - x))


def _cells(starts: Starts, first: int, stop: int) -> tuple[slice, Starts]:
    """The cells that some pixels of an axis lie in, and where among them each cell starts."""
    begin = int(np.searchsorted(starts, first, side="right")) - 1
    end = int(np.searchsorted(starts, stop))
    return slice(begin, end), np.maximum(starts[begin:end] - first, 0)
