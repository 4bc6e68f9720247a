"""Pixel sizes, from the many places where TIFF files keep them, and whether these agree."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

from tilepipe.images.base import UNITS_IN_METRES, PixelSize, alike, show_pixel_size
from tilepipe.images.units import unit_name

LARGEST_PLAIN_UM = 25.0
"""Beyond this the resolution of a plain TIFF is a printer's (300 dpi is 85 um), no pixel size."""

RESOLUTION_UNITS_UM = {2: 25400.0, 3: 10000.0}
"""Micrometres in each ResolutionUnit of TIFF 6.0: inch, centimetre."""

_VENTANA_RESOLUTION = re.compile(r"""\bScanRes\s*=\s*["']\s*([0-9.eE+-]+)""")
_SVS_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.,eE+-]+)")


Lengths = tuple[float, float]
"""(y, x) in micrometres, as a file has them: perhaps 0, negative or no number."""


def reconcile(stated: Sequence[tuple[str, Lengths | None]]) -> tuple[PixelSize | None, str | None]:
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
        # Some writers follow the machine's language: 0,25.
        return (float(found[1].replace(",", ".")),) * 2 if found else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One image of an OME-XML document."""

    pixels: ElementTree.Element

    @property
    def size(self) -> tuple[int, int]:
        """(height, width); 0 where it is not said."""
        height, width = (self.pixels.get(f"Size{axis}", "") for axis in "YX")
        return (int(height), int(width)) if height.isdigit() and width.isdigit() else (0, 0)

    def pixel_size(self) -> Lengths | None:
        """``PhysicalSizeY`` and ``X``; units default to micrometres."""
        y, x = (_ome_length(self.pixels, axis) for axis in "YX")
        return None if y is None or x is None else (y, x)


@lru_cache(maxsize=2)
def ome_images(xml: str) -> list[OmeImage]:
    """The images of an OME-XML document; none where it is broken."""
    try:
        root = ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError):
        return []
    return [OmeImage(pixels) for pixels in root.iterfind("{*}Image/{*}Pixels")]


def _ome_length(pixels: ElementTree.Element, axis: str) -> float | None:
    """Micrometres; None where it is not said or in a unit that is no length (pixel)."""
    metres = UNITS_IN_METRES.get(unit_name(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
    try:
        length = float(pixels.attrib[f"PhysicalSize{axis}"])
    except (KeyError, ValueError):
        return None
    return None if metres is None else length * (metres * 1e6)


def from_scn(xml: str, number: int) -> Lengths | None:
    """Of an image in Leica's XML, which has the extent of each in nanometres and in pixels."""
    try:
        root = ElementTree.fromstring(xml)
        image = [i for i in root.iterfind(".//{*}image") if i.find("{*}pixels") is not None][number]
        pixels, view = image.find("{*}pixels"), image.find("{*}view")
        if pixels is None or view is None:
            return None
        y, x = (float(view.attrib[f"size{a}"]) / float(pixels.attrib[f"size{a}"]) for a in "YX")
    except (ElementTree.ParseError, ArithmeticError, LookupError, ValueError):
        return None
    return y / 1000, x / 1000


def from_philips(xml: str) -> Lengths | None:
    """``DICOM_PIXEL_SPACING`` of the scan in Philips' XML: rows and columns, millimetres."""
    try:
        root = ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError):
        return None
    spacing = root.find(
        ".//DataObject[@ObjectType='PixelDataRepresentation']"
        "/Attribute[@Name='DICOM_PIXEL_SPACING']"
    )
    try:
        y, x = (spacing.text or "").replace('"', "").split() if spacing is not None else ("", "")
        return float(y) * 1000, float(x) * 1000
    except ValueError:
        return None


def from_ventana(xmp: str) -> Lengths | None:
    """``ScanRes`` of Ventana's XML: micrometres per pixel."""
    found = _VENTANA_RESOLUTION.search(xmp)
    try:
        return (float(found[1]), float(found[1])) if found else None
    except ValueError:
        return None


def from_imagej(metadata: dict[str, Any] | None, resolution: tuple[float, float]) -> Lengths | None:
    """ImageJ keeps pixels per its own unit in the resolution tags."""
    unit = unit_name(str((metadata or {}).get("unit")))
    metres = UNITS_IN_METRES.get(unit)
    size = None if metres is None else _per(metres * 1e6, resolution)
    # In inches and centimetres it keeps what a printer or a screen made of the image, too.
    return (
        None if size and unit in {"inch", "centimeter"} and max(size) > LARGEST_PLAIN_UM else size
    )


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
