"""Pixel sizes, from the many places where TIFF files keep them, and whether these agree."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from tilepipe.images.base import PixelSize, alike, show_pixel_size

LARGEST_PLAIN_UM = 25.0
"""Beyond this the resolution of a plain TIFF is a printer's (300 dpi is 85 um), no pixel size."""

OME_UNITS = {
    "pm": 1e-6,
    "Å": 1e-4,
    "nm": 1e-3,
    "µm": 1.0,
    "um": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "in": 25400.0,
}
"""Micrometres in each length unit of OME-XML (OME schema 2016-06, UnitsLength)."""

RESOLUTION_UNITS_UM = {2: 25400.0, 3: 10000.0}
"""Micrometres in each ResolutionUnit of TIFF 6.0: inch, centimetre."""

_SVS_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)")
_IMAGEJ_MICRONS = {"micron", "microns", "um", "µm", "\\u00B5m", "micrometer"}


Lengths = tuple[float, float]
"""(y, x) in micrometres, as a file has them: perhaps 0, negative or no number."""


def settle(stated: Sequence[tuple[str, Lengths | None]]) -> tuple[PixelSize | None, str | None]:
    """The pixel size of a file that may state it in several places, and why it is in doubt.

    Parameters
    ----------
    stated
        Each place, as the subject of a sentence, and what stands there; None where nothing does.
        The first that makes sense counts.
    """
    found = [(where, PixelSize(*size, "micrometer")) for where, size in stated if size is not None]
    sound = [(where, size) for where, size in found if size.is_sound]
    if not sound:
        says = [f"{where} says {show_pixel_size(size)}" for where, size in found]
        return None, " and ".join(says) or None
    first, size = sound[0]
    for where, other in sound[1:]:
        if not (alike(size.y, other.y) and alike(size.x, other.x)):
            return size, (
                f"{first} says {show_pixel_size(size)} and {where} says {show_pixel_size(other)}"
            )
    return size, None


def from_svs(description: str) -> Lengths | None:
    """``MPP`` of an Aperio image description: micrometres per pixel."""
    found = _SVS_MPP.search(description)
    try:
        return (float(found[1]), float(found[1])) if found else None
    except ValueError:
        return None


def from_ome_xml(xml: str) -> Lengths | None:
    """``PhysicalSizeY`` and ``X`` of the first image; units default to micrometres."""
    try:
        pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None
    if pixels is None:
        return None
    y, x = (_ome_length(pixels, axis) for axis in "YX")
    return None if y is None or x is None else (y, x)


def _ome_length(pixels: ElementTree.Element, axis: str) -> float | None:
    """Micrometres; None where it is not said or in a unit that is no length (pixel)."""
    factor = OME_UNITS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        return None if factor is None else float(pixels.attrib[f"PhysicalSize{axis}"]) * factor
    except (KeyError, ValueError):
        return None


def from_imagej(metadata: dict[str, Any] | None, resolution: tuple[float, float]) -> Lengths | None:
    """ImageJ keeps pixels per its own unit in the resolution tags."""
    if not metadata or metadata.get("unit") not in _IMAGEJ_MICRONS:
        return None
    return _per(1.0, resolution)


def from_resolution(
    resolution: tuple[float, float], unit: int, largest_um: float
) -> Lengths | None:
    """Pixel size of a TIFF that holds ``resolution`` (y, x) pixels per ResolutionUnit.

    A resolution of nothing, or one that is a printer's or a screen's, states no pixel size.
    """
    length = RESOLUTION_UNITS_UM.get(unit)
    size = None if length is None else _per(length, resolution)
    return size if size and max(size) <= largest_um else None


def _per(length: float, resolution: tuple[float, float]) -> Lengths | None:
    y, x = (length / value if value > 0 else math.nan for value in resolution)
    return (y, x) if math.isfinite(y) and math.isfinite(x) else None
