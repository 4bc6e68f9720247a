"""Pixel sizes, from the many places where TIFF files keep them."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

from tilepipe.images.base import PixelSize

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


def micrometres(y: float, x: float) -> PixelSize | None:
    """A pixel size in micrometres, or None where it is not a positive finite number."""
    if all(math.isfinite(value) and value > 0 for value in (y, x)):
        return PixelSize(y, x, "micrometer")
    return None


def from_svs(description: str) -> PixelSize | None:
    """``MPP`` of an Aperio image description: micrometres per pixel."""
    found = _SVS_MPP.search(description)
    try:
        return micrometres(float(found[1]), float(found[1])) if found else None
    except ValueError:
        return None


def from_ome_xml(xml: str) -> PixelSize | None:
    """``PhysicalSizeY`` and ``X`` of the first image; units default to micrometres."""
    try:
        pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None
    if pixels is None:
        return None
    size = [_ome_length(pixels, axis) for axis in "YX"]
    return micrometres(*size)


def _ome_length(pixels: ElementTree.Element, axis: str) -> float:
    """Micrometres, or NaN where it is not said or in a unit that is no length (pixel)."""
    unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
    try:
        return float(pixels.get(f"PhysicalSize{axis}", "nan")) * OME_UNITS.get(unit, math.nan)
    except ValueError:
        return math.nan


def from_imagej(
    metadata: dict[str, Any] | None, resolution: tuple[float, float]
) -> PixelSize | None:
    """ImageJ keeps pixels per its own unit in the resolution tags."""
    if not metadata or metadata.get("unit") not in _IMAGEJ_MICRONS:
        return None
    return micrometres(*(1 / value if value > 0 else math.nan for value in resolution))


def from_resolution(
    resolution: tuple[float, float], unit: int, largest_um: float
) -> PixelSize | None:
    """Pixel size of a TIFF that holds ``resolution`` (y, x) pixels per ResolutionUnit."""
    length = RESOLUTION_UNITS_UM.get(unit, math.nan)
    size = micrometres(*(length / value if value > 0 else math.nan for value in resolution))
    return size if size and max(size.y, size.x) <= largest_um else None
