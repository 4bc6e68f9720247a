"""A small picture of a mask over its image."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.drawing import (
    PAPER,
    LegendEntry,
    blend,
    centres,
    fitted,
    hatching,
    stretched,
    with_legend,
    write_png,
)
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import Image, Level
from tilepipe.products.base import NO_ANSWER
from tilepipe.products.store import ZarrMask
from tilepipe.products.thumbnail import require_same_extent, thumbnail

LONGER_SIDE = 1024
"""Longer side of the picture, in pixels; a smaller image is not enlarged."""

_FILL, _OUTLINE = 0.4, 0.9
"""Opacity of a class inside, and along its edge."""

_MOST_ENTRIES = 24
"""Classes that the legend names."""


def write_preview(mask: ZarrMask, image: Image | None, path: Path) -> None:
    """Write a PNG of the mask over its image, or on blank paper, with a legend beneath.

    Classes are painted half transparent in their colours and outlined. The background is not
    painted; pixels without an answer are hatched in grey. Larger values are painted more opaque.

    Parameters
    ----------
    mask : ZarrMask
        A mask with its pyramid.
    image : Image, optional
        The image of the mask, at whatever scale, read once and in pieces from the level that fits.
        If it has no small level, only what has an answer is read; the rest stays grey.
    path : Path
        Replaced if it exists, once the new file is complete.

    Raises
    ------
    InputError
        The mask does not have the proportions of the image.
    """
    shape = fitted(mask.shape, LONGER_SIDE)
    canvas = np.full((*shape, 3), PAPER, np.float64)
    if image is not None:
        require_same_extent(image, mask.shape)
        canvas = thumbnail(image, shape, _answered(mask)).astype(np.float64)
    unknown = _draw(canvas, mask, _read_small(mask, shape))
    classes = mask.spec.classes
    entries = [
        LegendEntry(named.name, named.rgb, filled=number != mask.spec.background)
        for number, named in enumerate(classes[:_MOST_ENTRIES])
    ]
    if unknown:
        entries.append(LegendEntry("no answer", None))
    write_png(with_legend(canvas, entries, len(classes) - _MOST_ENTRIES), path)


def _answered(mask: ZarrMask) -> Callable[[Window, Level], bool]:
    """A function that returns whether a window of a level of the image holds any answer."""
    there = np.zeros([-(-side // CHUNK) for side in mask.shape], np.bool_)
    for plane in range(mask.planes):
        for row, column in mask.stored_chunks(0, plane):
            there[row, column] = True

    def holds_any(window: Window, level: Level) -> bool:
        down, across = mask.shape[0] / level.height / CHUNK, mask.shape[1] / level.width / CHUNK
        rows = slice(math.floor(window.y * down), math.ceil(window.stop_y * down))
        columns = slice(math.floor(window.x * across), math.ceil(window.stop_x * across))
        return bool(there[rows, columns].any())

    return holds_any


def _read_small(mask: ZarrMask, shape: tuple[int, int]) -> NDArray[Any]:
    """The planes of the mask, (C, H, W), from the coarsest level that is no smaller."""
    level = max(
        number
        for number, size in enumerate(mask.levels)
        if size[0] >= shape[0] and size[1] >= shape[1]
    )
    whole = Window(0, 0, *mask.levels[level])
    rows, columns = centres(whole.height, shape[0]), centres(whole.width, shape[1])
    return np.stack(
        [
            mask.read_plane(plane, whole, level)[rows[:, None], columns[None, :]]
            for plane in range(mask.planes)
        ]
    )


def _draw(canvas: NDArray[np.float64], mask: ZarrMask, planes: NDArray[Any]) -> bool:
    """Paint the mask over the canvas in place; return whether any pixel has no answer."""
    classes = mask.spec.classes
    if not mask.spec.product.has_classes:
        unknown = np.isnan(planes).all(axis=0)
        for plane, named in zip(planes, classes, strict=True):
            shares = stretched(plane[:, :, None], np.isfinite(plane))[:, :, 0]
            blend(canvas, named.rgb, shares * _FILL * 1.5)
    else:
        unknown = (planes == NO_ANSWER).all(axis=0)
        for number, named in enumerate(classes):
            inside = planes[0] == number if mask.spec.product.flat else planes[number] == 1
            if number != mask.spec.background:
                blend(canvas, named.rgb, _opacity(inside))
    if unknown.any():
        blend(canvas, hatching(*unknown.shape), unknown * 0.75)
        return True
    return False


def _opacity(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """More opaque where a neighbour is outside; the edge of the picture does not count as one."""
    framed = np.pad(inside, 1, mode="edge")
    surrounded = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    opacity: NDArray[np.float64] = np.where(surrounded, _FILL, _OUTLINE) * inside
    return opacity
