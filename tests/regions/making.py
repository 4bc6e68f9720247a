"""What tests of tissue, and of what looks for it, share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


def slide(height: int, width: int, seed: int = 0) -> tuple[NDArray[np.uint8], Bools]:
    """Pink and purple blobs on glass that is a little yellow, with noise, dust and a pen's dot."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    tissue = ((y - 0.4 * height) / (0.25 * height)) ** 2 + ((x - 0.3 * width) / (0.2 * width)) ** 2
    other = ((y - 0.7 * height) / (0.15 * height)) ** 2 + ((x - 0.75 * width) / (0.1 * width)) ** 2
    inside = (tissue < 1) | (other < 1)
    pixels = np.full((height, width, 3), (243, 242, 238), np.float32)
    pixels[inside] = (226, 190, 214)
    pixels[inside & ((y // 9 + x // 7) % 5 == 0)] = (110, 70, 140)
    pixels[20:24, 700:704] = (40, 60, 150)
    pixels += rng.normal(0, 4, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8), inside
