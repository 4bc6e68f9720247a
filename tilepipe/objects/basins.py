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
    if inside.all():
        distance = np.full(inside.shape, float(CAP))
    else:
        distance = np.minimum(ndimage.distance_transform_edt(inside), CAP)
    smooth = ndimage.gaussian_filter(distance, SIGMA, mode="nearest", radius=TRUNCATED)
    return np.where(inside, np.rint(smooth * UNIT), -1).astype(np.int16)


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
        step[higher] = y * columns + x
    step[height[centre] < 0] = 0
    index[centre] += step
    return index


def follow(target: NDArray[np.int32]) -> NDArray[np.int32]:
    """The flat index of the pixel to which each pixel's pointers lead in the end; shape (H, W)."""
    flat = target.reshape(-1)
    moving = np.flatnonzero(flat != np.arange(flat.size, dtype=np.int32))
    while moving.size:
        further = flat[flat[moving]]
        changed = further != flat[moving]
        flat[moving] = further
        moving = moving[changed]
    return flat.reshape(target.shape)
