"""A sample of an image's pixels, from all over it, at a bounded cost."""

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
"""Most values (pixels times bands) that are decoded."""

KEPT_VALUES = 3 << 20
"""Values that are returned, at most about twice as many."""

WINDOW_PIXELS = 1 << 16
"""Least size of a window, where the image is decoded in smaller pieces."""

LARGEST_WINDOW = 64 * 2**20
"""Bytes of a window, beyond which nothing is decoded for the sake of a look."""


def sample_pixels(image: Image, level: int = 0) -> NDArray[Any]:
    """Pixels of a level that hold data in all bands, from evenly spaced windows.

    Always the same ones. What cannot be decoded is passed over.

    Returns
    -------
    ndarray, shape (pixels, bands)
        Of the image's dtype. Empty where nothing could be read, or only in pieces that are too
        large to be decoded for the sake of a look.
    """
    found = [
        pixels for windows in _runs(image, level) for pixels in _valid_pixels(image, windows, level)
    ]
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


def _valid_pixels(image: Image, windows: list[Window], level: int) -> Iterator[NDArray[Any]]:
    """Pixels of adjoining windows, a list for each, that are read at once where they can be."""
    first, last = windows[0], windows[-1]
    run = Window(first.y, first.x, first.height, last.stop_x - first.x)
    try:
        pixels, valid = read_with_valid(image, run, level)
    except UnreadableError:
        if len(windows) > 1:
            for window in windows:
                yield from _valid_pixels(image, [window], level)
        return
    whole = None if valid is None else np.asarray(valid.all(axis=2))
    for window in windows:
        inside = window.slices(run)
        part = pixels[inside]
        yield part.reshape(-1, part.shape[2]) if whole is None else part[whole[inside]]


def _runs(image: Image, level: int) -> Iterator[list[Window]]:
    """Windows of whole pieces of the file, evenly spaced, that together are not too many.

    Those that adjoin each other in a row come together, if they are not too large.
    """
    size, (rows, columns) = image.levels[level], image.chunks[level]
    width = min(size.width, columns * math.ceil(256 / columns))
    height = min(size.height, rows * max(1, WINDOW_PIXELS // (rows * width)))
    if height * width * image.decoded_bytes > LARGEST_WINDOW:
        return
    down, across = -(-size.height // height), -(-size.width // width)
    count = max(1, MOST_VALUES // image.bands // (height * width))
    rows_taken = min(down, max(1, math.isqrt(count * down // across)))
    columns_taken = min(across, max(1, count // rows_taken))
    adjoin = columns_taken == across
    adjoin &= height * size.width * image.decoded_bytes <= LARGEST_WINDOW
    for y in _spaced(rows_taken, down):
        top = y * height
        rows = min(height, size.height - top)
        lefts = [x * width for x in _spaced(columns_taken, across)]
        windows = [Window(top, left, rows, min(width, size.width - left)) for left in lefts]
        yield from [windows] if adjoin else ([window] for window in windows)


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
