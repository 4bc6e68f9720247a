"""A look at an image: some of its pixels, from all over it, at a bounded cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import UnreadableError
from tilepipe.grid import Window
from tilepipe.images.base import Image
from tilepipe.images.windowed import read_with_valid

MOST_VALUES = 3 << 22
"""Values (pixels times bands) that are decoded."""

KEPT_VALUES = 3 << 20
"""Values that are returned, at most about twice as many."""

WINDOW_PIXELS = 1 << 16
"""Least size of a window, where the image is decoded in smaller pieces."""

LARGEST_WINDOW = 64 * 2**20
"""Bytes of a window, beyond which nothing is decoded for the sake of a look."""


def sample_pixels(image: Image, level: int = 0) -> NDArray[Any]:
    """Pixels of a level that hold data, from evenly spaced windows; always the same ones.

    What cannot be decoded is passed over.

    Returns
    -------
    ndarray, shape (pixels, bands)
        Of the image's dtype. Empty where nothing could be read, or only in pieces that are too
        large to be decoded for the sake of a look.
    """
    found = []
    for window in _windows(image, level):
        try:
            pixels, valid = read_with_valid(image, window, level)
        except UnreadableError:
            continue
        # Data in every band, where validity is told band by band.
        known = ... if valid is None else np.atleast_3d(valid).all(2)
        found.append(pixels[known].reshape(-1, image.bands))
    if not found:
        return np.empty((0, image.bands), image.dtype)
    together = np.concatenate(found)
    return together[:: max(1, together.size // KEPT_VALUES)]


def usual_range(image: Image) -> tuple[float, float] | None:
    """Round values between which nearly all of an image lies; None where they cannot be told.

    The 0.1th and the 99.9th percentile of a sample of all bands, rounded outwards to three digits;
    from 0 where the lower one is near it.
    """
    pixels = sample_pixels(image)
    pixels = pixels[np.isfinite(pixels)]
    if not pixels.size:
        return None
    low, high = (float(value) for value in np.percentile(pixels, (0.1, 99.9)))
    if 0 <= low < high / 20:
        low = 0.0
    low, high = _rounded(low, math.floor), _rounded(high, math.ceil)
    return (low, high) if low < high else None


def _windows(image: Image, level: int) -> Iterator[Window]:
    """Windows of whole pieces of the file, evenly spaced, that together are not too many."""
    size, (rows, columns) = image.levels[level], image.chunks[level]
    width = min(size.width, columns * math.ceil(256 / columns))
    height = min(size.height, rows * max(1, WINDOW_PIXELS // (rows * width)))
    if height * width * image.decoded_bytes > LARGEST_WINDOW:
        return
    down, across = -(-size.height // height), -(-size.width // width)
    count = max(1, MOST_VALUES // image.bands // (height * width))
    rows_taken = min(down, max(1, math.isqrt(count * down // across)))
    columns_taken = min(across, max(1, count // rows_taken))
    for y in _spaced(rows_taken, down):
        for x in _spaced(columns_taken, across):
            top, left = y * height, x * width
            yield Window(top, left, min(height, size.height - top), min(width, size.width - left))


def _spaced(count: int, total: int) -> Iterator[int]:
    """``count`` of the numbers below ``total``, evenly spaced."""
    return ((2 * i + 1) * total // (2 * count) for i in range(count))


def _rounded(value: float, towards: Callable[[float], int]) -> float:
    """To three digits."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    # Rounded before: 0.3 / 0.001 is a little less than 300.
    return float(f"{towards(round(value / unit, 6)) * unit:.3g}")
