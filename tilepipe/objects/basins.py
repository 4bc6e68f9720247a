"""Basins: where touching objects are parted in a mask that does not tell them apart.

A pixel's height is its distance to the background, capped and smoothed. Each pixel points to its
highest neighbour, so that all pixels whose pointers lead to the same peak are a basin. Two basins
belong to one object unless the way between them leads far enough down. Heights depend on a
neighbourhood of `HALO` pixels, so basins are the same however the mask is cut into windows, and no
step needs the whole mask.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CAP = 24
"""Pixels; deeper inside an object, all heights are equal."""

SIGMA = 1.0
"""Of the Gaussian that smooths distances, in pixels."""

TRUNCATED = 4
"""Where the Gaussian is cut off, in pixels."""

UNIT = 64
"""Heights are whole numbers of this part of a pixel, so that they are the same everywhere."""

HALO = CAP + TRUNCATED + 1
"""How far around a window its pointers depend on the mask."""

Heights = NDArray[np.int16]

_NEIGHBOURS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
"""In raster order, the order in which equally high neighbours are preferred."""


def heights(inside: NDArray[np.bool_]) -> Heights:
    """The height of each pixel of a mask in 1/64 pixels, -1 outside of it.

    Right up to `HALO` - 1 pixels from the edges of the array that are no edges of the image.
    """
    distance = np.sqrt(np.arange(CAP * CAP + 1, dtype=np.float64))[squared_distances(inside)]
    smooth = ndimage.gaussian_filter(distance, SIGMA, mode="nearest", radius=TRUNCATED)
    np.rint(np.multiply(smooth, UNIT, out=smooth), out=smooth)
    height: Heights = smooth.astype(np.int16)
    np.copyto(height, np.int16(-1), where=~inside)
    return height


STRIP = 64
"""Rows whose squared distances are found at a time, so that they stay in the processor's cache."""


def squared_distances(inside: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """The square of each pixel's distance to the background, at most ``CAP ** 2``; shape (H, W).

    What is beyond the edge of the array is no background. Exact, as all are whole numbers; a
    transform without a cap takes several times as long.
    """
    along = np.empty(inside.shape, np.uint16)
    far = np.uint16(CAP * CAP)
    padded = np.full((inside.shape[0] + 2 * CAP, inside.shape[1]), far)
    np.copyto(padded[CAP:-CAP], np.uint16(0), where=~inside)
    for top in range(0, len(inside), STRIP):
        strip = padded[top : top + STRIP + 2 * CAP]
        _nearest(strip, along[top : top + STRIP])
    found = np.empty_like(along)
    for top in range(0, len(inside), STRIP):
        strip = np.pad(along[top : top + STRIP], ((0, 0), (CAP, CAP)), constant_values=far)
        _nearest(strip.T, found[top : top + STRIP].T)
    return found


def _nearest(squares: NDArray[np.uint16], out: NDArray[np.uint16]) -> None:
    """The least of ``squares`` and the square of how far away it is, along the first axis.

    ``squares`` has `CAP` more rows than ``out`` on both sides.
    """
    rows = len(out)
    out[:] = squares[CAP : CAP + rows]
    beside = np.empty_like(out)
    for far in range(1, CAP):
        if far * far >= out.max():
            return
        for start in (CAP - far, CAP + far):
            np.add(squares[start : start + rows], np.uint16(far * far), out=beside)
            np.minimum(out, beside, out=out)


def pointers(height: Heights) -> NDArray[np.int32]:
    """The flat index of the pixel to which each pixel points, or its own; shape (H, W).

    Pixels at the edge of the array, and those outside of the mask, point to themselves.
    """
    rows, columns = height.shape
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    if min(rows, columns) < 3:
        return index
    centre = (slice(1, -1), slice(1, -1))
    best = height[centre].copy()
    step = np.zeros(best.shape, np.int32)
    for y, x in _NEIGHBOURS:
        there = height[1 + y : rows - 1 + y, 1 + x : columns - 1 + x]
        higher = there > best
        np.copyto(best, there, where=higher)
        np.copyto(step, np.int32(y * columns + x), where=higher)
    step[height[centre] < 0] = 0
    index[centre] += step
    return index


def follow(target: NDArray[np.int32]) -> NDArray[np.int32]:
    """The flat index of the pixel to which each pixel's pointers lead in the end; shape (H, W)."""
    flat = target.reshape(-1)
    moving = np.flatnonzero(flat != np.arange(flat.size, dtype=np.int32))
    now = flat[moving]
    while moving.size:
        further = flat[now]
        changed = further != now
        moving, now = moving[changed], further[changed]
        flat[moving] = now
    return flat.reshape(target.shape)
