"""Scanners' TIFFs whose tiles overlap, and so do not form one grid of pixels: they are refused."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import tifffile

from tilepipe.errors import InputError

_TRESTLE_OVERLAPS = re.compile(r"OverlapsXY\s*:\s*([-0-9 \t]*)")
_VENTANA_OVERLAP = re.compile(r"""\bOverlap[XY]\s*=\s*["']\s*([^"']*)["']""")
_VENTANA_AREA = re.compile(r"<ImageInfo\b")
XMP = 700
"""Tag in which Ventana keeps how tiles are to be joined."""

MOST_PAGES = 32
"""Pages looked at for it; a slide has fewer, and other files thousands."""

_WAY_OUT = (
    "and tilepipe does not stitch them: convert it with QuPath or bioformats2raw to OME-TIFF or "
    "OME-Zarr"
)


def check_overlaps(path: str, file: tifffile.TiffFile, pages: list[Any]) -> None:
    """Refuse pages whose tiles overlap, by what their maker's metadata say.

    Parameters
    ----------
    path
        Of the file, for messages.
    file
        All of it: Ventana keeps its metadata in any of the pages.
    pages
        Those that are to be read.

    Raises
    ------
    InputError
        Tiles overlap, or a file of Ventana's does not say that they do not.
    """
    if not any(page.keyframe.is_tiled for page in pages):
        return  # a label or a thumbnail
    if is_trestle(file):
        found = _TRESTLE_OVERLAPS.search(file.pages.first.description)
        if found and any(int(value) for value in found[1].split()):
            raise InputError(f"{path} is a Trestle slide whose tiles overlap, {_WAY_OUT}")
    documents = _documents(file)
    joints = next((text for text in documents if "<EncodeInfo" in text), None)
    if joints is None:
        if file.is_bif or any("<iScan" in text for text in documents):
            raise InputError(
                f"{path} is a Ventana BIF slide that does not say how far its tiles overlap, "
                f"{_WAY_OUT}"
            )
        return
    overlaps = _VENTANA_OVERLAP.findall(joints)
    if any(value.strip() not in {"0", ""} for value in overlaps):
        raise InputError(f"{path} is a Ventana BIF slide whose tiles overlap, {_WAY_OUT}")
    if len(_VENTANA_AREA.findall(joints)) != 1:
        raise InputError(f"{path} is a Ventana BIF slide of several scanned areas, {_WAY_OUT}")


def is_trestle(file: tifffile.TiffFile) -> bool:
    """Whether a file is of Trestle's scanner, by the name of its software."""
    return str(file.pages.first.software).startswith("MedScan")


def ventana_description(file: tifffile.TiffFile) -> str:
    """The XMP in which Ventana says the resolution of its scan; empty where there is none."""
    return next((text for text in _documents(file) if "ScanRes" in text), "")


def _documents(file: tifffile.TiffFile) -> list[str]:
    """The XMP of each of the first pages that has one."""
    pages = islice(file.pages, MOST_PAGES)
    return [_text(page.tags.valueof(XMP)) for page in pages if XMP in getattr(page, "tags", ())]


def _text(value: Any) -> str:
    return bytes(value).decode(errors="replace") if isinstance(value, bytes | tuple) else str(value)
