"""A large image as a small picture, read piece by piece and averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.drawing import RGB, as_rgb, centres, shown_as_bytes
from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import Window, WindowGrid
from tilepipe.images import Image, read_with_valid
from tilepipe.images.base import Level

_PIECE = 2048
"""Side of the windows that are read, if the file's tiles allow it."""

PROPORTIONS = 0.01
"""By how much the proportions of an image and of its mask may differ, beside rounding."""

_QUICKLY_READ = 2**26
"""Pixels of the largest level that is read as a whole, whatever is shown of it."""


def thumbnail(
    image: Image,
    shape: tuple[int, int],
    is_shown: Callable[[Window, Level], bool] = lambda _window, _level: True,
) -> RGB:
    """An image as RGB of ``shape`` (height, width), shape (height, width, 3).

    It is made from the coarsest level that is large enough; each pixel is the mean of those that
    it covers. Pixels of a smaller image are repeated. Bytes of one, three or four bands are shown
    as they are; other images are stretched band by band. Memory does not depend on the size of the
    image. Pixels that cannot be read stay grey; so do those that ``is_shown`` excludes, if the
    coarsest level is still large.

    Parameters
    ----------
    image : Image
        The image.
    shape : tuple of int
        (height, width) of the result.
    is_shown : callable, optional
        Whether a window of a level needs to be read; asked only if the level is large.
    """
    fitting = [
        number
        for number, level in enumerate(image.levels)
        if level.height >= shape[0] and level.width >= shape[1]
    ]
    height, width = image.shape[:2]
    held = min(shape[0], height), min(shape[1], width)
    means, valid = _averaged(image, max(fitting, default=0), held, is_shown)
    as_bytes = shown_as_bytes(image.dtype, image.bands)
    rgb = as_rgb(means, as_bytes=as_bytes, valid=valid)
    return rgb[centres(held[0], shape[0])[:, None], centres(held[1], shape[1])[None, :]]


def require_same_extent(image: Image, mask: tuple[int, int]) -> None:
    """Refuse an image of other proportions than a mask of (height, width), at whatever scale.

    Raises
    ------
    InputError
        The mask cannot be of the whole image.
    """
    height, width = image.shape[:2]
    down, across = height / mask[0], width / mask[1]
    # Sides are rounded to whole pixels of the coarser of the two.
    rounding = sum(1 / min(sides) for sides in zip((height, width), mask, strict=True))
    if max(down / across, across / down) > (1 + PROPORTIONS) * (1 + rounding):
        raise InputError(
            f"{image.path} is {width} x {height} pixels, and the mask {mask[1]} x {mask[0]} (width "
            "x height), whose proportions differ; give the image that the mask is of"
        )


def _averaged(
    image: Image, level: int, shape: tuple[int, int], is_shown: Callable[[Window, Level], bool]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Means of the bands that are shown, (H, W, 1 or 3), and where there are data, (H, W)."""
    height, width = image.levels[level].height, image.levels[level].width
    bands = 3 if image.bands >= 3 else 1
    sums = np.zeros((*shape, bands))
    counts = np.zeros((*shape, bands))
    all_of_it = height * width <= _QUICKLY_READ
    for window in WindowGrid.along_chunks((height, width), image.chunks[level], _PIECE):
        if not all_of_it and not is_shown(window, image.levels[level]):
            continue
        try:
            pixels, valid = read_with_valid(image, window, level)
        except UnreadableError:
            continue
        rows, row_starts = _cells(window.y, window.height, height, shape[0])
        columns, column_starts = _cells(window.x, window.width, width, shape[1])
        cells = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        for band in range(bands):
            # Side by side, numpy adds them several times as fast.
            plane = np.ascontiguousarray(pixels[:, :, band])
            known = _known(plane, None if valid is None else valid[:, :, band % valid.shape[2]])
            if known is None:
                counts[..., band][cells] += np.outer(
                    np.diff([*row_starts, window.height]), np.diff([*column_starts, window.width])
                )
            else:
                counts[..., band][cells] += _summed(known, row_starts, column_starts)
                plane = np.where(known, plane, 0)
            sums[..., band][cells] += _summed(plane, row_starts, column_starts)
    return sums / np.maximum(counts, 1), np.asarray(counts.any(axis=2))


def _cells(start: int, length: int, size: int, cells: int) -> tuple[NDArray[np.intp], list[int]]:
    """The cells that ``length`` pixels fall into, and the pixel at which each one starts.

    Every cell in between has pixels, as there are at least as many pixels as cells.
    """
    found, starts = np.unique(
        np.arange(start, start + length, dtype=np.intp) * cells // size, return_index=True
    )
    return found, starts.tolist()


def _known(plane: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Where a plane holds numbers that count; None: everywhere."""
    if plane.dtype.kind != "f":
        return valid
    finite = np.asarray(np.isfinite(plane))
    return finite if valid is None else np.asarray(finite & valid)


def _summed(
    pixels: NDArray[np.generic], row_starts: list[int], column_starts: list[int]
) -> NDArray[np.float64]:
    """The sum of each cell, (rows, columns); of a cell of one pixel that pixel."""
    if len(row_starts) == pixels.shape[0]:
        rows = pixels.astype(np.float64)
    else:
        rows = np.add.reduceat(pixels, row_starts, axis=0, dtype=np.float64)
    if len(column_starts) == pixels.shape[1]:
        return rows
    columns: NDArray[np.float64] = np.add.reduceat(rows, column_starts, axis=1)
    return columns
