"""Drawing of arrays: overlays, legends, contact sheets, and the style of plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from tilepipe.storage import complete_or_absent
from tilepipe.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RGB = NDArray[np.uint8]
"""A picture, shape (height, width, 3)."""

Colour = tuple[int, int, int]
"""Red, green and blue, 0 .. 255."""

NO_DATA_COLOUR = (232, 232, 232)
"""The colour of pixels that hold no data, or could not be read."""

PAPER = 235
"""The grey of the sheet on which a mask without its image is drawn."""

_HATCH_DARK, _HATCH_LIGHT = (96, 96, 96), (176, 176, 176)
_STRIPE = 4
"""Width of the stripes of a hatching, in pixels."""

_STRETCH = (2.0, 98.0)
"""Percentiles that become black and white."""

_TEXT_SIZE, _ROW, _GAP = 14, 24, 10
_WIDE = 1.5
"""Pictures that are wider than so many times their height are not put side by side."""

_UNITS = (("nm", 1e-9), ("µm", 1e-6), ("mm", 1e-3), ("m", 1.0), ("km", 1e3))
"""The units of a scale bar, in metres."""

_NARROWEST = 320
"""Smallest width of a legend, in pixels."""

_CELL = 384
"""Side of a panel of a contact sheet, in pixels."""


def fitted(shape: tuple[int, int], longest: int) -> tuple[int, int]:
    """``shape`` (height, width), scaled down if its longer side exceeds ``longest``."""
    longer = max(*shape, longest)
    return max(1, shape[0] * longest // longer), max(1, shape[1] * longest // longer)


def centres(size: int, count: int) -> NDArray[np.intp]:
    """The middle pixel of each of ``count`` equal parts of an axis of ``size`` pixels."""
    return (2 * np.arange(count, dtype=np.intp) + 1) * size // (2 * count)


def stretched(values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values as 0 .. 1 between their 2nd and 98th percentile, band by band; 0 where not valid.

    Parameters
    ----------
    values : ndarray of numbers, shape (H, W, C)
    valid : ndarray of bool, shape (H, W)
        Where there are values, all of them finite.
    """
    if not valid.any():
        return np.zeros(values.shape)
    known = values[valid].astype(np.float64)
    low, high = np.percentile(known, _STRETCH, axis=0)
    shares = np.zeros(values.shape)
    shares[valid] = np.clip((known - low) / np.where(high > low, high - low, 1), 0, 1)
    return shares


def as_rgb(
    pixels: NDArray[Any],
    *,
    as_bytes: bool | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> RGB:
    """An image of any number of bands, (H, W, C), as a picture of its first three or its first.

    Parameters
    ----------
    pixels : ndarray of numbers, shape (H, W, C)
    as_bytes : bool, optional
        Whether values of 0 .. 255 are shown as they are [as `shown_as_bytes` has it]; otherwise
        each band is stretched.
    valid : ndarray of bool, shape (H, W), optional
        Where there are data [where all bands are finite]; the rest is `NO_DATA_COLOUR`.
    """
    shown = pixels[:, :, : 3 if pixels.shape[2] >= 3 else 1]
    if as_bytes is None:
        as_bytes = shown_as_bytes(pixels.dtype, pixels.shape[2])
    if valid is None:
        valid = np.isfinite(shown).all(axis=2)
    values = shown if as_bytes else 255 * stretched(shown, valid)
    everywhere = bool(valid.all())  # where there is nothing to pick out, which takes longest
    levels: RGB = np.rint(np.clip(values if everywhere else values[valid], 0, 255)).astype(np.uint8)
    if everywhere and levels.shape[2] == 3:
        return levels
    rgb = np.full((*shown.shape[:2], 3), NO_DATA_COLOUR, np.uint8)
    rgb[valid] = levels.reshape(-1, levels.shape[-1])
    return rgb


def shown_as_bytes(dtype: np.dtype[Any], bands: int) -> bool:
    """Whether an image is shown as it is: bytes of grey or colours, with or without alpha."""
    return dtype == np.uint8 and bands in (1, 3, 4)


def colour_mapped(values: NDArray[Any], name: str, low: float, high: float) -> RGB:
    """Values (H, W) from ``low`` to ``high`` in the colours of a matplotlib map; NaN is grey."""
    from matplotlib import colormaps

    shares = (values - low) / (high - low if high > low else 1.0)
    rgb = np.asarray(colormaps[name](shares, bytes=True)[:, :, :3])
    rgb[np.isnan(values)] = NO_DATA_COLOUR
    return rgb


def blend(canvas: NDArray[np.float64], colour: Any, opacity: NDArray[Any]) -> None:
    """Paint a colour, or a picture, over a canvas (H, W, 3) in place; opacity is (H, W), 0 .. 1."""
    canvas += (np.asarray(colour, np.float64) - canvas) * opacity[:, :, None]


def hatching(height: int, width: int) -> RGB:
    """Diagonal grey stripes, which stand for "no answer"."""
    stripes = (np.arange(height)[:, None] + np.arange(width)[None, :]) // _STRIPE % 2
    return np.where(stripes[:, :, None] == 0, _HATCH_DARK, _HATCH_LIGHT).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """An entry of a legend: a name, and the swatch before it."""

    name: str
    colour: Colour | None
    """None for a hatched swatch."""
    filled: bool = True
    """Otherwise the swatch is an outline, as of a class that is not drawn."""


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A bar of a known length."""

    pixels: float
    """Its length in the picture."""
    text: str
    """Its true length: ``200 µm``."""

    @classmethod
    def fitting(cls, metres: float, width: int) -> ScaleBar | None:
        """The longest bar of 1, 2 or 5 of a unit within a quarter of a picture's width.

        Parameters
        ----------
        metres
            The length of a pixel of the picture.
        width
            The picture's width in pixels; None is returned if even a pixel is too long for it.
        """
        longest = metres * width / 4
        power = 10.0 ** math.floor(math.log10(longest))
        length = next(n for n in (5, 2, 1) if n * power <= longest * (1 + 1e-9)) * power
        units = [each for each in _UNITS if each[1] <= length * (1 + 1e-9)]
        name, factor = units[-1] if units else _UNITS[0]
        pixels = length / metres
        return None if pixels < 1 else cls(pixels, f"{length / factor:g} {name}")


def beside(panels: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Pictures of one size side by side, or below each other if they are much wider than high."""
    height, width = panels[0].shape[:2]
    across = width <= _WIDE * height
    gap = np.full((height, _GAP, 3) if across else (_GAP, width, 3), 255.0)
    parts = [part for panel in panels for part in (gap, panel)][1:]
    return np.concatenate(parts, axis=1 if across else 0)


def with_legend(
    rgb: NDArray[Any],
    entries: Sequence[LegendEntry],
    left_out: int = 0,
    scale: ScaleBar | None = None,
) -> Picture.Image:
    """A picture with a legend beneath, and above that a scale bar if there is one.

    Parameters
    ----------
    rgb : ndarray of numbers, shape (H, W, 3)
        The picture, 0 .. 255.
    entries : sequence of LegendEntry
        The entries, in rows of as many as fit side by side.
    left_out : int
        How many more there are; the legend gives their number only.
    scale : ScaleBar, optional
        A bar whose length is known in pixels of the picture.
    """
    picture = Picture.fromarray(np.rint(rgb).astype(np.uint8))
    legend = _legend(entries, max(picture.width, _NARROWEST), left_out)
    parts = [picture, *([] if scale is None else [_strip(scale, legend.width)]), legend]
    whole = Picture.new("RGB", (legend.width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole


@cache
def _font() -> Any:
    """DejaVu Sans, which matplotlib brings along: Pillow's own has hardly more than ASCII."""
    import matplotlib

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), _TEXT_SIZE)


def _strip(scale: ScaleBar, width: int) -> Picture.Image:
    """A scale bar and its text."""
    strip = Picture.new("RGB", (width, _ROW), "white")
    draw = ImageDraw.Draw(strip)
    middle, end = _ROW // 2, _GAP + max(1, round(scale.pixels)) - 1
    draw.rectangle((_GAP, middle - 1, end, middle + 1), fill="black")
    for x in (_GAP, end):
        draw.line((x, middle - 5, x, middle + 5), fill="black")
    draw.text((end + _GAP, _ROW / 2), scale.text, fill="black", font=_font(), anchor="lm")
    return strip


def _legend(entries: Sequence[LegendEntry], width: int, left_out: int) -> Picture.Image:
    font = _font()
    names = [one_line(entry.name) for entry in entries]
    places, x, y = [], _GAP, _GAP // 2
    for name in names:
        needed = _ROW + int(font.getlength(name)) + 2 * _GAP
        if x > _GAP and x + needed > width:
            x, y = _GAP, y + _ROW
        places.append((x, y))
        x += needed
    if left_out > 0:
        y += _ROW

    legend = Picture.new("RGB", (width, y + _ROW + _GAP // 2), "white")
    draw = ImageDraw.Draw(legend)
    for entry, name, (x, y) in zip(entries, names, places, strict=True):
        top = y + (_ROW - _TEXT_SIZE) // 2
        box = (x, top, x + _TEXT_SIZE, top + _TEXT_SIZE)
        if entry.colour is None:
            side = _TEXT_SIZE + 1
            legend.paste(Picture.fromarray(hatching(side, side)), (x, top))
            draw.rectangle(box, outline=_HATCH_DARK)
        elif entry.filled:
            draw.rectangle(box, fill=entry.colour, outline="black")
        else:
            draw.rectangle(box, outline=entry.colour)
        draw.text((x + _ROW, y + _ROW / 2), name, fill="black", font=font, anchor="lm")
    if left_out > 0:
        text = f"and {left_out} more"
        place = (_GAP, legend.height - _GAP / 2 - _ROW / 2)
        draw.text(place, text, fill="black", font=font, anchor="lm")
    return legend


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture of a contact sheet, and the line of text above it."""

    caption: str
    rgb: RGB


def contact_sheet(
    rows: Sequence[Sequence[Panel]], entries: Sequence[LegendEntry] = ()
) -> Picture.Image:
    """Pictures of any size in rows of cells of one size, with a legend beneath."""
    columns = max(map(len, rows))
    down = _CELL + _ROW
    sheet = Picture.new("RGB", (columns * (_CELL + _GAP) + _GAP, len(rows) * down + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = _font()
    for row, panels in enumerate(rows):
        for column, panel in enumerate(panels):
            x, y = _GAP + column * (_CELL + _GAP), row * down
            caption = _shortened(one_line(panel.caption), font)
            draw.text((x, y + _ROW / 2), caption, fill="black", font=font, anchor="lm")
            picture = Picture.fromarray(panel.rgb)
            scale = _CELL / max(picture.size)
            size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
            sheet.paste(picture.resize(size, Picture.Resampling.BOX), (x, y + _ROW))
    return with_legend(np.asarray(sheet), entries) if entries else sheet


def _shortened(text: str, font: Any) -> str:
    """The text, without its end if it is wider than a cell."""
    while font.getlength(text) > _CELL:
        text = text[: len(text) * 9 // 10 - 3] + "..."
    return text


def write_png(picture: Picture.Image, path: Path) -> None:
    """Write a picture; equal pictures are equal bytes."""
    with complete_or_absent(path) as part:
        # A higher level takes three times as long, for 4 % of a photograph.
        picture.save(part, format="PNG", compress_level=3)


def plain_style(*parts: Axes) -> None:
    """Small text, and no frame above and to the right of a plot."""
    for axes in parts:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)
