"""A small picture of a mask over its image, to see at a glance what came out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import Image, Level
from tilepipe.products.base import NO_ANSWER, MaskClass
from tilepipe.products.store import ZarrMask
from tilepipe.products.thumbnail import thumbnail
from tilepipe.storage import complete_or_absent
from tilepipe.text import one_line

LONGER_SIDE = 1024
"""Of the picture, in pixels; an image smaller than that is not enlarged."""

_FILL, _OUTLINE = 0.4, 0.9
"""Opacity of a class: inside, and along its edge."""

_HATCH_DARK, _HATCH_LIGHT = (96, 96, 96), (176, 176, 176)
_STRIPE = 4
"""Width of the stripes of "no answer", in pixels."""

_TEXT_SIZE, _ROW, _GAP = 14, 24, 10
_NARROWEST_LEGEND = 320
_MOST_ENTRIES = 24

_RGB = NDArray[np.uint8]


def write_preview(mask: ZarrMask, image: Image, level: int, path: Path) -> None:
    """Write a PNG of the mask over its image, with a legend beneath.

    Classes are half transparent in their colours, outlined; the background is not drawn; what has
    no answer is hatched in grey. Values are drawn the more opaque the larger they are.

    Parameters
    ----------
    mask : ZarrMask
        With its pyramid.
    image : Image
        That the mask is of; read once from the level that fits, in pieces. Of one without a small
        level, only what has an answer is read; the rest stays grey.
    level : int
        Of the image, at which the mask was computed.
    path : Path
        Replaced if it exists, once the new file is complete.

    Raises
    ------
    ValueError
        When the mask does not have the size of that level.
    """
    grid = image.levels[level]
    if (grid.height, grid.width) != mask.shape:
        raise ValueError(f"a mask of {mask.shape} is not of level {level} of {image.path}")
    shape = preview_shape(*mask.shape)
    canvas = thumbnail(image, shape, _answered(mask)).astype(np.float64)
    planes = _read_small(mask, shape)
    unknown = _draw(canvas, mask, planes)
    picture = Picture.fromarray(np.rint(canvas).astype(np.uint8))
    legend = _legend(mask, max(shape[1], _NARROWEST_LEGEND), with_unknown=unknown)
    whole = Picture.new("RGB", (legend.width, picture.height + legend.height), "white")
    whole.paste(picture, (0, 0))
    whole.paste(legend, (0, picture.height))
    with complete_or_absent(path) as part:
        whole.save(part, format="PNG", optimize=True)


def _answered(mask: ZarrMask) -> Callable[[Window, Level], bool]:
    """Whether a window of a level of the image holds an answer: else a large image is not read."""
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


def preview_shape(height: int, width: int) -> tuple[int, int]:
    """(height, width) of the picture of a mask: its own, or scaled down to `LONGER_SIDE`."""
    longer = max(height, width, LONGER_SIDE)
    return max(1, height * LONGER_SIDE // longer), max(1, width * LONGER_SIDE // longer)


def _read_small(mask: ZarrMask, shape: tuple[int, int]) -> NDArray[Any]:
    """The planes of the mask, (C, H, W), from the coarsest level that is no smaller."""
    level = max(
        number
        for number, size in enumerate(mask.levels)
        if size[0] >= shape[0] and size[1] >= shape[1]
    )
    height, width = mask.levels[level]
    whole = Window(0, 0, height, width)
    rows = (2 * np.arange(shape[0]) + 1) * height // (2 * shape[0])
    columns = (2 * np.arange(shape[1]) + 1) * width // (2 * shape[1])
    return np.stack(
        [
            mask.read_plane(plane, whole, level)[rows[:, None], columns[None, :]]
            for plane in range(mask.planes)
        ]
    )


def _draw(canvas: NDArray[np.float64], mask: ZarrMask, planes: NDArray[Any]) -> bool:
    """Draw over the canvas in place; whether anything was without an answer."""
    classes = mask.spec.classes
    if mask.kind == "values":
        unknown = np.isnan(planes).all(axis=0)
        for plane, named in zip(planes, classes, strict=True):
            _blend(canvas, named.rgb, _rescaled(plane) * _FILL * 1.5)
    elif mask.kind == "planes":
        unknown = (planes == NO_ANSWER).all(axis=0)
        for number, (plane, named) in enumerate(zip(planes, classes, strict=True)):
            if number != mask.spec.background:
                _blend(canvas, named.rgb, _opacity(plane == 1))
    else:
        unknown = planes[0] == NO_ANSWER
        for value, named in enumerate(classes):
            if value != mask.spec.background:
                _blend(canvas, named.rgb, _opacity(planes[0] == value))
    if unknown.any():
        _blend(canvas, _hatching(*unknown.shape), unknown * 0.75)
        return True
    return False


def _blend(canvas: NDArray[np.float64], colour: Any, opacity: NDArray[np.floating[Any]]) -> None:
    canvas += (np.asarray(colour, np.float64) - canvas) * opacity[:, :, None]


def _opacity(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Denser where a neighbour is outside; the border of the picture is no edge."""
    framed = np.pad(inside, 1, mode="edge")
    surrounded = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    opacity: NDArray[np.float64] = np.where(surrounded, _FILL, _OUTLINE) * inside
    return opacity


def _rescaled(values: NDArray[Any]) -> NDArray[np.float64]:
    """Values as 0 .. 1 between their 2nd and 98th percentile; 0 where there is none."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return np.zeros(values.shape)
    low, high = np.percentile(known, (2, 98))
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low) - low) / max(high - low, 1e-30)
    clipped: NDArray[np.float64] = np.clip(scaled, 0.0, 1.0)
    return clipped


def _hatching(height: int, width: int) -> _RGB:
    stripes = (np.arange(height)[:, None] + np.arange(width)[None, :]) // _STRIPE % 2
    return np.where(stripes[:, :, None] == 0, _HATCH_DARK, _HATCH_LIGHT).astype(np.uint8)


def _legend(mask: ZarrMask, width: int, *, with_unknown: bool) -> Picture.Image:
    font = ImageFont.load_default(size=_TEXT_SIZE)
    entries: list[tuple[str, MaskClass | None]] = [(one_line(c.name), c) for c in mask.spec.classes]
    left_out = len(entries) - _MOST_ENTRIES
    entries = entries[:_MOST_ENTRIES]
    if with_unknown:
        entries.append(("no answer", None))
    background = mask.spec.background
    transparent = None if background is None else mask.spec.classes[background]

    places, x, y = [], _GAP, _GAP // 2
    for name, _ in entries:
        needed = _ROW + int(font.getlength(name)) + 2 * _GAP
        if x > _GAP and x + needed > width:
            x, y = _GAP, y + _ROW
        places.append((x, y))
        x += needed
    if left_out > 0:
        y += _ROW

    legend = Picture.new("RGB", (width, y + _ROW + _GAP // 2), "white")
    draw = ImageDraw.Draw(legend)
    side = _TEXT_SIZE
    for (name, named), (x, y) in zip(entries, places, strict=True):
        top = y + (_ROW - side) // 2
        box = (x, top, x + side, top + side)
        if named is None:
            legend.paste(Picture.fromarray(_hatching(side + 1, side + 1)), (x, top))
            draw.rectangle(box, outline=_HATCH_DARK)
        elif named is transparent:
            draw.rectangle(box, outline=named.rgb)
        else:
            draw.rectangle(box, fill=named.rgb, outline="black")
        draw.text((x + _ROW, y + _ROW / 2), name, fill="black", font=font, anchor="lm")
    if left_out > 0:
        text = f"and {left_out} more"
        draw.text((_GAP, legend.height - _GAP / 2 - _ROW / 2), text, fill="black", anchor="lm")
    return legend
