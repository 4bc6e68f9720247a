"""The plain way to what a reader gives: the whole image, padded by numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window


def mirrored(image: NDArray[Any], window: Window) -> NDArray[Any]:
    """A window of (height, width, ...) pixels, mirrored outside by ``numpy.pad``."""
    height, width = image.shape[:2]
    before = max(0, -window.y), max(0, -window.x)
    after = max(0, window.stop_y - height), max(0, window.stop_x - width)
    rest = [(0, 0)] * (image.ndim - 2)
    pads = [(before[0], after[0]), (before[1], after[1]), *rest]
    padded = np.pad(image, pads, mode="reflect")
    y, x = window.y + before[0], window.x + before[1]
    return padded[y : y + window.height, x : x + window.width]


def windows_of(height: int, width: int) -> list[Window]:
    """Inside, over each corner, around everything, and outside altogether."""
    return [
        Window(height // 3, width // 4, max(1, height // 2), max(1, width // 3)),
        Window(-7, -5, 20, 30),
        Window(height - 9, width - 11, 25, 19),
        Window(height - 3, -4, 5, 9),
        Window(-9, width - 2, 30, 4),
        Window(-height - 30, 2 * width + 5, 17, 13),
        Window(0, 0, height, width),
    ]


def chart(height: int, width: int, bands: int = 1, dtype: str = "uint8") -> NDArray[Any]:
    """Smooth with a little noise, and different everywhere; shape (height, width, bands)."""
    y, x, band = np.ogrid[:height, :width, :bands]
    noise = np.random.default_rng(7).integers(0, 8, (height, width, bands))
    values = y * 3 + x * 5 + band * 40 + noise
    largest = 1.0 if np.dtype(dtype).kind == "f" else min(np.iinfo(dtype).max, 4000)
    scale = 1 / 4000 if np.dtype(dtype).kind == "f" else 1
    return (values * scale % largest).astype(dtype)
