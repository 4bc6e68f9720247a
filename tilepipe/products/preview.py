"""A small picture of a mask over its image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.drawing import (
    PAPER,
    LegendEntry,
    ScaleBar,
    beside,
    blend,
    centres,
    fitted,
    hatching,
    with_legend,
    write_png,
)
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import Image, Level
from tilepipe.images.ranges import ShownRange
from tilepipe.products.base import NO_ANSWER
from tilepipe.products.content import content_of
from tilepipe.products.ranges import shown_ranges
from tilepipe.products.store import ZarrMask
from tilepipe.products.thumbnail import require_same_extent, thumbnail

LONGER_SIDE = 1024
"""Longer side of the picture, in pixels; a smaller image is not enlarged."""

_FILL, _OUTLINE = 0.4, 0.9
"""Opacity of a class inside, and along its edge."""

_MOST_ENTRIES = 24
"""Classes that the legend names."""


def write_preview(mask: ZarrMask, image: Image | None, path: Path) -> None:
    """Write a PNG of the mask over its image, and the image alone, with a legend beneath.

    Without an image, the mask is drawn on blank paper.

    Classes are painted half transparent in their colours and outlined. The background is not
    painted; pixels without an answer are hatched in grey. Larger values are painted more opaque.
    There is a scale bar if the pixel size is a length.

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
    canvas, panels = np.full((*shape, 3), PAPER, np.float64), []
    if image is not None:
        require_same_extent(image, mask.shape)
        panels = [thumbnail(image, shape, _answered(mask))]
        canvas = panels[0].astype(np.float64)
    ranges = shown_ranges(content_of(mask))
    unknown = _draw(canvas, mask, _read_small(mask, shape), ranges)
    classes, names = mask.spec.classes, [named.name for named in mask.spec.classes]
    if not mask.spec.product.has_classes:
        shown = zip(names, ranges, strict=True)
        names = [f"{name}: {each.low:.4g} to {each.high:.4g}" for name, each in shown]
    entries = [
        LegendEntry(name, named.rgb, filled=number != mask.spec.background)
        for number, (name, named) in enumerate(zip(names, classes, strict=True))
    ][:_MOST_ENTRIES]
    if unknown:
        entries.append(LegendEntry("no answer", None))
    left_out, scale = len(classes) - _MOST_ENTRIES, _scale_bar(mask, shape[1])
    write_png(with_legend(beside([canvas, *panels]), entries, left_out, scale), path)


def _scale_bar(mask: ZarrMask, width: int) -> ScaleBar | None:
    """A scale bar for a picture of ``width`` pixels; None if the pixel size is no known length."""
    size = None if mask.pixel_size is None else mask.pixel_size.metres()
    if size is None:
        return None
    return ScaleBar.fitting(size[1] * mask.shape[1] / width, width)


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


def _draw(
    canvas: NDArray[np.float64],
    mask: ZarrMask,
    planes: NDArray[Any],
    ranges: Sequence[ShownRange],
) -> bool:
    """Paint the mask over the canvas in place; return whether any pixel has no answer."""
    classes = mask.spec.classes
    if not mask.spec.product.has_classes:
        unknown = np.isnan(planes).all(axis=0)
        for plane, named, each in zip(planes, classes, ranges, strict=True):
            shares = np.clip((plane - each.low) / (each.high - each.low), 0, 1)
            blend(canvas, named.rgb, np.nan_to_num(shares) * _FILL * 1.5)
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
