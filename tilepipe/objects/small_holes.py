"""Small holes, which a window with a few more pixels around it shows whole.

What `tilepipe.objects.holes` decides in passes over the whole mask follows here from the window: a
hole of at most n pixels reaches no further than n pixels.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tilepipe.objects.rules import BORDER, FREE, NO_ANSWER, Parts

LARGEST = 64
"""Pixels of a hole up to which it is filled here; for larger ones, windows would grow too much."""


def fill_small_holes(parts: Parts, max_hole: int) -> Parts:
    """Fill what one class encloses and has at most ``max_hole`` pixels.

    Right at pixels more than ``max_hole`` from the edges of the array, and from those that are
    edges of the mask at all pixels.
    """
    free, count = ndimage.label(parts == FREE)
    small = np.bincount(free.reshape(-1), minlength=count + 1) <= max_hole
    small[0] = False
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        small[free[edge]] = False
    if not small.any():
        return parts
    flat, pixel = parts.reshape(-1), np.flatnonzero(small[free])
    hole = free.reshape(-1)[pixel]
    low, high = np.full(count + 1, NO_ANSWER, np.uint8), np.zeros(count + 1, np.uint8)
    for step in (-1, 1, -parts.shape[1], parts.shape[1]):
        beside = flat[pixel + step]
        at = beside != FREE
        np.minimum.at(low, hole[at], beside[at])
        np.maximum.at(high, hole[at], beside[at])
    is_filled = small & (low == high) & (low > FREE) & (low < BORDER)
    found = parts.copy()
    chosen = is_filled[hole]
    found.reshape(-1)[pixel[chosen]] = low[hole[chosen]]
    return found
