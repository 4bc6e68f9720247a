"""A picture of where a mask is right and wrong, over the image where that is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.products.base import NO_ANSWER, Kind
from tilepipe.storage import complete_or_absent

LONGER_SIDE = 1600
"""Of the picture, in pixels; a smaller mask is shown as it is, or enlarged by a whole factor."""

_ENLARGED_BELOW = 800

# Okabe and Ito's colours: told apart by those who see red and green alike, too.
_FOUND, _WRONG, _MISSED, _CONFUSED = (0, 158, 115), (213, 94, 0), (0, 114, 178), (204, 121, 167)
_UNKNOWN, _PAPER = (110, 110, 110), 235
_OPACITY, _FOUND_OPACITY = 0.85, 0.45

_FOUND_ENTRY = "found (true positive)"
_LEGEND = (
    (_FOUND, _FOUND_ENTRY),
    (_WRONG, "not there (false positive)"),
    (_MISSED, "missed (false negative)"),
    (_CONFUSED, "other class"),
    (_UNKNOWN, "no answer"),
)
_TEXT_SIZE, _ROW, _GAP = 14, 24, 10
_NARROWEST = 320

_RGB = NDArray[np.uint8]


class Sample:
    """Every so many pixels of mask and truth, gathered as their windows pass.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the mask.
    planes : int
        Of it.
    kind : Kind
        Labels are kept as bins, values as they are.
    """

    def __init__(self, shape: tuple[int, int], planes: int, kind: Kind) -> None:
        longer = max(*shape, LONGER_SIDE)
        height, width = (max(1, side * LONGER_SIDE // longer) for side in shape)
        self._rows = (2 * np.arange(height) + 1) * shape[0] // (2 * height)
        self._columns = (2 * np.arange(width) + 1) * shape[1] // (2 * width)
        self.full_shape = shape
        dtype = np.float32 if kind == "values" else np.uint16
        self.mask: NDArray[Any] = np.zeros((planes, height, width), dtype)
        self.truth: NDArray[Any] = np.zeros_like(self.mask)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self._rows.size, self._columns.size

    def add(self, window: Window, mask: NDArray[Any], truth: NDArray[Any]) -> None:
        """Keep what a window, (C, H, W), holds of the sample."""
        top, bottom = np.searchsorted(self._rows, (window.y, window.stop_y))
        left, right = np.searchsorted(self._columns, (window.x, window.stop_x))
        rows = (self._rows[top:bottom] - window.y)[:, None]
        columns = (self._columns[left:right] - window.x)[None, :]
        self.mask[:, top:bottom, left:right] = mask[:, rows, columns]
        self.truth[:, top:bottom, left:right] = truth[:, rows, columns]


def write_errors(
    sample: Sample,
    tables: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    path: Path,
    image: Path | None = None,
) -> None:
    """Write a PNG of what was found, what is not there, and what was missed.

    Parameters
    ----------
    sample : Sample
        Of mask and truth.
    tables : list
        For each plane what the bins of mask and truth mean, as classes; class 0 is background.
    path : Path
        Replaced if it exists.
    image : Path, optional
        Shown in grey beneath.

    Raises
    ------
    InputError
        The image does not have the shape of the mask, or the picture cannot be written.
    """
    canvas = _grey(image, sample)
    shown = []
    colours = np.zeros((len(_LEGEND) + 1, 3))
    opacity = np.zeros(len(_LEGEND) + 1)
    for number, (colour, name) in enumerate(_LEGEND, start=1):
        colours[number] = colour
        opacity[number] = _FOUND_OPACITY if name == _FOUND_ENTRY else _OPACITY
    kinds = _kinds(sample, tables)
    for number, entry in enumerate(_LEGEND, start=1):
        if (kinds == number).any():
            shown.append(entry)
    canvas += (colours[kinds] - canvas) * opacity[kinds][:, :, None]
    _save(np.rint(canvas).astype(np.uint8), shown, path)


def write_differences(sample: Sample, path: Path) -> None:
    """Write a PNG of predicted minus true values of the first plane: red too much, blue too little.

    Raises
    ------
    InputError
        The picture cannot be written.
    """
    difference = sample.mask[0].astype(np.float64) - sample.truth[0]
    known = np.isfinite(difference)
    top = float(np.percentile(np.abs(difference[known]), 98)) if known.any() else 0.0
    share = np.clip(np.where(known, difference, 0) / (top or 1.0), -1, 1)[:, :, None]
    colour = np.where(share > 0, _WRONG, _MISSED)
    rgb = _PAPER + (colour - _PAPER) * np.abs(share)
    rgb = np.where(known[:, :, None], rgb, _UNKNOWN)
    entries = [(_WRONG, f"{top:.4g} or more too much"), (_MISSED, f"{top:.4g} or more too little")]
    _save(np.rint(rgb).astype(np.uint8), entries, path)


def _kinds(
    sample: Sample, tables: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
) -> NDArray[np.intp]:
    """For each pixel the entry of the legend, from 1 on, that it is drawn as; 0 is not drawn."""
    kinds = np.zeros(sample.shape, np.intp)
    for plane, (mask_table, truth_table) in enumerate(tables):
        said, true = mask_table[sample.mask[plane]], truth_table[sample.truth[plane]]
        found = np.select(
            [
                true == NO_ANSWER,
                said == NO_ANSWER,
                (said == true) & (true > 0),
                (said > 0) & (true == 0),
                (said == 0) & (true > 0),
                said != true,
            ],
            [0, 5, 1, 2, 3, 4],
            0,
        )
        # Of several planes, an error in one shows over what is right in another.
        kinds = np.where((found > 1) | (kinds == 0), found, kinds)
    return kinds


def _grey(image: Path | None, sample: Sample) -> NDArray[np.float64]:
    if image is None:
        return np.full((*sample.shape, 3), float(_PAPER))
    from tilepipe.images import open_image
    from tilepipe.products.thumbnail import thumbnail

    opened = open_image(image)
    try:
        height, width = opened.shape[:2]
        scale = [full / own for full, own in zip(sample.full_shape, (height, width), strict=True)]
        # A mask of a coarser level is as many times smaller in both directions, but for rounding.
        if abs(scale[0] / scale[1] - 1) > 0.02 or height < sample.shape[0]:
            raise InputError(
                f"{image} has {height} x {width} pixels, and the mask has {sample.full_shape[0]} x "
                f"{sample.full_shape[1]}; give the image that the mask is of"
            )
        rgb = thumbnail(opened, sample.shape).astype(np.float64)
    finally:
        opened.close()
    grey = rgb @ (0.299, 0.587, 0.114)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _save(rgb: _RGB, entries: list[tuple[tuple[int, int, int], str]], path: Path) -> None:
    factor = max(1, _ENLARGED_BELOW // max(rgb.shape[:2]))
    rgb = rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    picture = Picture.fromarray(rgb)
    legend = _legend(entries, max(_NARROWEST, picture.width))
    whole = Picture.new("RGB", (legend.width, picture.height + legend.height), "white")
    whole.paste(picture, (0, 0))
    whole.paste(legend, (0, picture.height))
    try:
        with complete_or_absent(path) as part:
            whole.save(part, format="PNG", optimize=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another") from error


def _legend(entries: list[tuple[tuple[int, int, int], str]], width: int) -> Picture.Image:
    font = ImageFont.load_default(size=_TEXT_SIZE)
    places, x, y = [], _GAP, _GAP // 2
    for _, name in entries:
        needed = _ROW + int(font.getlength(name)) + 2 * _GAP
        if x > _GAP and x + needed > width:
            x, y = _GAP, y + _ROW
        places.append((x, y))
        x += needed
    legend = Picture.new("RGB", (width, y + _ROW + _GAP // 2), "white")
    draw = ImageDraw.Draw(legend)
    for (colour, name), (x, y) in zip(entries, places, strict=True):
        top = y + (_ROW - _TEXT_SIZE) // 2
        draw.rectangle((x, top, x + _TEXT_SIZE, top + _TEXT_SIZE), fill=colour, outline="black")
        draw.text((x + _ROW, y + _ROW / 2), name, fill="black", font=font, anchor="lm")
    return legend
