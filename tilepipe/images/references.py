"""What a file may make GDAL open: other files beside it, and neither the network nor code.

A VRT names other files, and GDAL takes as such whatever it can open: addresses of the web and of
object stores, descriptions of web services, functions in Python. A file from elsewhere must not
make this machine fetch or run anything.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from tilepipe.errors import InputError
from tilepipe.places import ObjectPath, Place, require_ordinary

SERVICES = re.compile(
    rb"<(GDAL_WMS|GDAL_WMTS|WMS_|WMT_MS|TileMap|Services|Capabilities|WCS_GDAL|CoverageDesc"
    rb"|GDALTileIndexDataset|CachedSource|eedaiconf)|^\s*\{"
)
"""Documents that GDAL takes for an image and that are but the address of one, XML or JSON."""

LARGEST_DOCUMENT = 64 * 2**20
"""Bytes of a VRT; one of ten thousand parts has some."""

DEEPEST = 8
"""Mosaics of mosaics."""

_SOURCES = ("SourceFilename", "SourceDataset", "IndexDataset", "DatasetName")
_ELSEWHERE = re.compile(
    r"/vsi(?!mem|zip|gzip|tar|7z|rar|sparse|subfile)|^\s*<|^\s*\{|[a-z0-9+]{2,}://"
    r"|^\s*(WMS|WMTS|WCS|EEDAI?|STACIT|STACTA|PLMOSAIC|DAAS|GTI|OGCAPI|NGW|MRF|vrt):",
    re.IGNORECASE,
)


def check_references(path: Place, depth: int = 0) -> None:
    """Refuse a VRT that refers to the network or holds code, itself or in a part of it.

    One on an object store may refer to what lies beside it or below, and to no file on a disk.

    Raises
    ------
    InputError
        Naming what it refers to.
    """
    try:
        if _beginning(path, 512).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"<", b"{"):
            return
        text = _beginning(path, LARGEST_DOCUMENT + 1)
    except OSError:
        return  # GDAL says what is wrong
    if b"<VRTDataset" not in text:
        if depth or SERVICES.search(text):
            raise InputError(
                f"{path} is no image, but the description of one that lies elsewhere; fetch that, "
                "and give its file"
            )
        return
    if len(text) > LARGEST_DOCUMENT:
        raise InputError(f"{path} is too large for a mosaic; make it of several mosaics")
    if depth > DEEPEST:
        raise InputError(f"{path} is a mosaic of mosaics of mosaics without end; name images in it")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is a broken VRT ({error}); write it again") from error
    for part in root.iter():
        tag = part.tag.rpartition("}")[2]
        if tag == "PixelFunctionCode" or (
            tag == "PixelFunctionLanguage" and (part.text or "").strip().lower() != "c"
        ):
            raise InputError(
                f"{path} holds a function in {'Python' if part.text else 'some language'}, and "
                "code in a file is not run; save what it gives as an image (gdal_translate)"
            )
        if tag in _SOURCES:
            _check_source(path, part, depth)


def _beginning(path: Place, count: int) -> bytes:
    if isinstance(path, ObjectPath):
        return path.read_ranges([(0, count)])[0]
    with path.open("rb") as file:
        return file.read(count)


def _check_source(vrt: Place, part: ElementTree.Element, depth: int) -> None:
    name = (part.text or "").strip()
    if _ELSEWHERE.search(name):
        raise InputError(
            f"{vrt} refers to {name[:80]}, and only local files are opened on behalf of a file; "
            "fetch it, and write the mosaic again"
        )
    relative = (part.get("relativeToVRT") or part.get("relativetoVRT") or "0").strip() != "0"
    if isinstance(vrt, ObjectPath):
        if not relative or name.startswith("/") or ".." in name.split("/"):
            raise InputError(
                f"{vrt} refers to {name[:80]}, and only objects beside it are opened on its "
                "behalf; write the mosaic again, with the names of such"
            )
        check_references(vrt.parent / name, depth + 1)
        return
    source = vrt.parent / name if relative else Path(name)
    require_ordinary(source)
    if source.is_file():
        check_references(source, depth + 1)
