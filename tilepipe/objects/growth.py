"""Growing seeds into the border class, all at once and step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def grow(seeds: NDArray[Any], border: NDArray[np.bool_], reach: int) -> NDArray[Any]:
    """Grow all seeds at once, by pixels that share an edge, for at most ``reach`` steps.

    Where two arrive at a pixel in the same step, the one with the lower number has it. The result
    at a pixel depends on what lies within ``reach`` pixels of it, so a window with so many pixels
    around it gives what the whole mask gives.

    Parameters
    ----------
    seeds : ndarray of unsigned integers, shape (H, W)
        The number of the seed at each pixel; 0 for none.
    border : ndarray of bool, shape (H, W)
        Where they may grow.
    reach : int
        The number of steps.
    """
    none = np.iinfo(seeds.dtype).max
    # With 0 as the greatest number, the least of the neighbours is the one that has the pixel.
    found = np.where(seeds == 0, none, seeds)
    for _ in range(reach):
        free = border & (found == none)
        if not free.any():
            break
        before = np.pad(found, 1, constant_values=none)
        least = np.minimum(before[:-2, 1:-1], before[2:, 1:-1])
        np.minimum(least, before[1:-1, :-2], out=least)
        np.minimum(least, before[1:-1, 2:], out=least)
        arrived = free & (least != none)
        if not arrived.any():
            break
        found[arrived] = least[arrived]
    return np.where(found == none, 0, found).astype(seeds.dtype, copy=False)
