"""Quantities as people write them: ``2GB``, ``0.25um``, ``10min``, ``3,2,1``.

Each function takes text, or a value that is already what it makes of text; what is neither it
leaves alone, for the type of an option to refuse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from tilepipe.errors import InputError

LARGEST_SIDE = 2**31 - 1
"""Rows or columns that no image exceeds."""

_DURATIONS_S = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}

_LENGTHS_UM = {
    "": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "km": 1e9,
}  # fmt: skip


def parse_bytes(text: Any) -> Any:
    """Bytes from ``2GB``, ``1.5 GiB``, ``800MB`` or a plain number.

    Raises
    ------
    InputError
        For text that is not a memory size.
    """
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    try:
        if match is None:
            raise ValueError
        power = " kmgt".index(match[2].lower() or " ")
        return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    except (ValueError, OverflowError):
        raise InputError(f"{text!r} is not a memory size; use, for example, 2GB") from None


def parse_length(text: Any) -> Any:
    """Micrometres from ``0.25``, ``0.25um``, ``250 nm`` or ``10 m``.

    Raises
    ------
    InputError
        For text that is not a length.
    """
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(nm|um|µm|μm|mm|cm|m|km|)\s*", text)
    try:
        if match is None:
            raise ValueError
        return float(f"{float(match[1]) * _LENGTHS_UM[match[2]]:.12g}")
    except ValueError:
        raise InputError(
            f"{text!r} is not a pixel size; use, for example, 0.25 (micrometres) or 10m"
        ) from None


def parse_share(text: Any) -> Any:
    """A share from ``0.5%`` or ``0.005``.

    Raises
    ------
    InputError
        For text that is not a share.
    """
    if not isinstance(text, str):
        return text
    number = text.strip()
    try:
        return float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        raise InputError(f"{text!r} is not a share; use, for example, 0.5% or 0.005") from None


def parse_cell(text: Any) -> Any:
    """The side of a cell, ``100um``, ``1 km`` or ``64px``, as it was written; see `cell_side`.

    Raises
    ------
    InputError
        For text that is neither a length nor a number of pixels, or not above 0.
    """
    if isinstance(text, str):
        cell_side(text)
    return text


def cell_side(text: str) -> tuple[float, bool]:
    """The side of a cell in micrometres, or in pixels, and whether it is in pixels.

    Raises
    ------
    InputError
        As `parse_cell` says.
    """
    way_out = "give the side of a cell, for example 100um, 1km or 64px"
    number, in_pixels = text.strip(), text.strip().endswith("px")
    try:
        side = float(number.removesuffix("px")) if in_pixels else float(parse_length(number))
    except (InputError, ValueError):
        raise InputError(f"{text!r} is not a length; {way_out}") from None
    if not (math.isfinite(side) and side > 0):
        raise InputError(f"{text!r} is not a length above 0; {way_out}")
    return side, in_pixels


_AREAS_M2 = {
    "um2": 1e-12, "mm2": 1e-6, "cm2": 1e-4, "m2": 1.0, "ha": 1e4, "km2": 1e6,
}  # fmt: skip


def parse_area(text: Any) -> Any:
    """An area as ``60px`` or ``20um2``, from ``60``, ``60 px``, ``20 µm²`` or ``0.5ha``.

    Raises
    ------
    InputError
        For text that is not an area.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = f"{text:.12g}"
    if not isinstance(text, str):
        return text
    plain = text.replace("µ", "u").replace("μ", "u").replace("²", "2").strip().lower()
    match = re.fullmatch(r"([0-9.]+)\s*([a-z]*2?)", plain)
    try:
        if match is None:
            raise ValueError
        number, unit = float(match[1]), match[2] or "px"
        if unit.removesuffix("2") == "px":
            unit = "px"
        elif unit not in _AREAS_M2:
            raise ValueError
        return f"{number:.12g}{unit}"
    except ValueError:
        raise InputError(
            f"{text!r} is not an area; use, for example, 60 (pixels), 20um2 or 50m2"
        ) from None


def area_in_pixels(area: str, pixel_m2: float | None) -> int:
    """How many pixels an area of `parse_area` has at least, for pixels of so many square metres.

    Raises
    ------
    InputError
        Where the area is not in pixels, and their size is unknown.
    """
    unit = area.lstrip("0123456789.e+-")
    number = float(area[: len(area) - len(unit)])
    if unit == "px":
        return math.ceil(number)
    if pixel_m2 is None:
        raise InputError(
            f"{area} needs the size of pixels, which is unknown; give the area in pixels, or say "
            "--pixel-size"
        )
    return math.ceil(round(number * _AREAS_M2[unit] / pixel_m2, 6))


def parse_duration(text: Any) -> Any:
    """Seconds from ``90``, ``90s``, ``10 min``, ``2h`` or ``1 day``.

    Raises
    ------
    InputError
        For text that is not a time.
    """
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", text, re.IGNORECASE)
    try:
        if match is None:
            raise ValueError
        return float(match[1]) * _DURATIONS_S[match[2].lower()]
    except (ValueError, KeyError):
        raise InputError(f"{text!r} is not a time; use, for example, 90s, 10min or 2h") from None


def parse_region(text: Any) -> Any:
    """A rectangle from ``0,0,1000,2000`` or four numbers: y, x, height, width.

    Raises
    ------
    InputError
        For anything but four whole numbers, and for a rectangle without pixels.
    """
    if not isinstance(text, str | list | tuple):
        return text
    way_out = "give Y,X,HEIGHT,WIDTH in pixels of level 0, for example 0,0,1000,2000"
    numbers = [_pixels(part, way_out) for part in _parts(text)]
    if len(numbers) != 4:
        raise InputError(f"{_joined(text)} has {len(numbers)} numbers, not four; {way_out}")
    y, x, height, width = numbers
    if min(y, x) < 0 or min(height, width) < 1:
        raise InputError(f"{_joined(numbers)} must begin within the image and have pixels")
    if max(numbers) > LARGEST_SIDE:
        raise InputError(
            f"{_joined(numbers)} is too large: no image has more than {LARGEST_SIDE} rows or "
            "columns; give a rectangle of its pixels"
        )
    return y, x, height, width


def _pixels(part: Any, way_out: str) -> int:
    try:
        if isinstance(part, bool | float):
            raise ValueError
        return int(part)
    except (TypeError, ValueError):
        what = str(part).strip() or "nothing"
        raise InputError(f"{what!r} is not a whole number of pixels; {way_out}") from None


def parse_integer(text: Any) -> Any:
    """A number of digits; other text stays text: the name of an image, the word ``auto``."""
    return int(text) if isinstance(text, str) and re.fullmatch(r"[+-]?[0-9]+", text) else text


def parse_series(text: Any) -> Any:
    """A number of digits alone; all other text, such as ``+1``, is the name of an image."""
    return int(text) if isinstance(text, str) and re.fullmatch(r"[0-9]+", text) else text


def parse_bands(text: Any) -> Any:
    """Bands from ``3,2,1`` or ``red,nir`` or a list: numbers from 1, or names.

    Raises
    ------
    InputError
        For none, for one below 1, and for what is neither a number nor a name.
    """
    bands: list[int | str] = []
    for part in _parts(text):
        band = part.strip() if isinstance(part, str) else part
        if isinstance(band, str) and re.fullmatch(r"[+-]?[0-9]+", band):
            band = int(band)
        if isinstance(band, bool) or not isinstance(band, int | str) or band == "" or (
            isinstance(band, int) and band < 1
        ):  # fmt: skip
            raise InputError(
                f"in {_joined(text)}, give each band by its number, counted from 1, or by its "
                "name, for example 3,2,1 or red,green,blue"
            )
        bands.append(band)
    if not bands:
        raise InputError("give at least one band, for example 3,2,1")
    return tuple(bands)


def parse_rescale(text: Any) -> Any:
    """Two values from ``0,4000`` or a list: what becomes the lowest and the highest of a type.

    Raises
    ------
    InputError
        For anything but two finite numbers, the first below the second.
    """
    parts = _parts(text)
    try:
        if any(isinstance(part, bool) for part in parts):
            raise ValueError
        low, high = (float(part) for part in parts)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{_joined(text)} is not LOW,HIGH: two numbers with LOW below HIGH, for example 0,4000"
        ) from None
    return low, high


def parse_nodata(text: Any) -> Any:
    """A value from ``0`` or ``-9999`` or ``nan``, or the word ``none``.

    Raises
    ------
    InputError
        For other text.
    """
    if not isinstance(text, str) or text == "none":
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"{text!r} is neither a number nor the word none; give the value that means no data, "
            "for example 0"
        ) from None


def numbers(kind: type) -> Callable[[Any], Any]:
    """A function that makes numbers of ``0.5,0.5``.

    Raises
    ------
    InputError
        For text that is anything else.
    """

    def parse(text: Any) -> Any:
        if not isinstance(text, str):
            return text
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError:
            raise InputError(f"{text!r} must be numbers with commas between them") from None

    return parse


def parse_names(text: Any) -> Any:
    """Names from ``background,nucleus``."""
    return tuple(part.strip() for part in text.split(",")) if isinstance(text, str) else text


def join_parts(values: Any) -> Any:
    """The text ``1,2`` for a list of 1 and 2."""
    return ",".join(map(str, values)) if isinstance(values, list | tuple) else values


def _parts(text: Any) -> list[Any]:
    if isinstance(text, str):
        return list(text.split(","))
    return list(text) if isinstance(text, list | tuple) else [text]


def _joined(text: Any) -> str:
    return repr(text) if isinstance(text, str) else ",".join(map(str, _parts(text)))
