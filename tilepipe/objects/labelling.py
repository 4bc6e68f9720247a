"""Objects of a label map in memory: connected pixels of a class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BORDER_REACH = 4
"""How far an object grows into the border class, in pixels."""

_EDGES = ndimage.generate_binary_structure(2, 1)
_CORNERS = ndimage.generate_binary_structure(2, 2)

Objects = NDArray[np.int32]
"""The number of the object at each pixel, 0 elsewhere; shape (H, W)."""


def objects_from_labels(
    labels: NDArray[Any],
    object_class: int,
    border_class: int | None = None,
    *,
    border_reach: int = BORDER_REACH,
    min_size: int = 0,
    fill_holes: bool = False,
) -> Objects:
    """The objects of a label map: the connected components of a class.

    Pixels that share an edge are connected. If the map has a class for the borders between objects,
    that class separates those that touch; each object then takes back the border pixels nearest to
    it.

    Parameters
    ----------
    labels : ndarray of integers, shape (H, W)
        The class of each pixel.
    object_class : int
        The class of the objects, or of their inner parts.
    border_class : int, optional
        The class of the borders between objects.
    border_reach : int
        How many pixels deep an object grows into the border class.
    min_size : int
        Objects with fewer pixels are left out.
    fill_holes : bool
        Whether pixels that an object encloses become part of it, before it takes border pixels.

    Returns
    -------
    ndarray of int32, shape (H, W)
        Objects are numbered 1, 2, 3 ... without gaps; 0 is no object.
    """
    objects, _ = components(labels == object_class)
    if fill_holes:
        objects = _without_holes(objects)
    if border_class is not None:
        grow(objects, labels == border_class, border_reach)
    return _renumbered(objects, min_size)


def components(inside: NDArray[np.bool_], *, corners: bool = False) -> tuple[Objects, int]:
    """The numbers and the count of connected components, by edges, or by edges and corners."""
    if not inside.any():
        return np.zeros(inside.shape, np.int32), 0
    numbered = np.empty(inside.shape, np.int32)
    count = ndimage.label(inside, _CORNERS if corners else _EDGES, output=numbered)
    return numbered, int(count)


def grow(objects: NDArray[Any], border: NDArray[np.bool_], reach: int) -> None:
    """Grow all objects into the border, in place, one pixel per step.

    The result at a pixel depends only on pixels within ``reach``, and not on the objects' numbers,
    so a window with a rim of ``reach`` gives the same result as the whole map.
    """
    for _ in range(reach):
        free = border & (objects == 0)
        if not free.any():
            return
        before = np.pad(objects, 1)
        for neighbour in (before[:-2, 1:-1], before[1:-1, :-2], before[1:-1, 2:], before[2:, 1:-1]):
            taken = free & (neighbour > 0)
            objects[taken] = neighbour[taken]
            free &= ~taken


def _without_holes(objects: Objects) -> Objects:
    """Fill the holes of objects; an object inside a hole remains an object."""
    holes, _ = components(objects == 0, corners=True)
    edge = np.concatenate((holes[0], holes[-1], holes[:, 0], holes[:, -1]))
    numbers, first = np.unique(holes, return_index=True)
    # The pixel above the topmost pixel of a hole belongs to the object around the hole.
    owners = np.zeros(int(holes.max(initial=0)) + 1, np.int32)
    y, x = np.unravel_index(first, holes.shape)
    owners[numbers] = objects[np.maximum(y - 1, 0), x]
    owners[np.unique(edge)] = 0
    return np.where(objects == 0, owners[holes], objects).astype(np.int32, copy=False)


def _renumbered(objects: Objects, min_size: int) -> Objects:
    sizes = np.bincount(objects.ravel())
    kept = (sizes > 0) & (sizes >= min_size)
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return numbers[objects]
