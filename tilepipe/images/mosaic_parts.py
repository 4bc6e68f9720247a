"""The files that a mosaic may make GDAL open: images beside it, but neither the network nor code.

A VRT names other files, and GDAL takes as such whatever it can open: addresses of the web and of
object stores, descriptions of web services, raw bytes of any file, functions in Python. A file from
elsewhere must not make this machine fetch or run anything, nor show what other files hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tilepipe.errors import InputError
from tilepipe.storage import ObjectPath, StoragePath

HEAD_BYTES = 4096
"""More than what GDAL looks at to tell what a file is."""

SERVICES = re.compile(
    rb"<(GDAL_WMS|GDAL_WMTS|WMS_|WMT_MS|TileMap|Services|Capabilities|WCS_GDAL|CoverageDesc"
    rb"|GDALTileIndexDataset|CachedSource|MRF_META|eedaiconf)|\A(\xef\xbb\xbf)?\s*\{",
    re.IGNORECASE,
)
"""Documents that GDAL takes for an image and that are but the address of one, XML or JSON."""

LARGEST_DOCUMENT = 64 * 2**20
"""Bytes of a VRT; one of ten thousand parts has some."""

REFUSED = {
    "vrtrawrasterband": "takes the bytes of any file for pixels",
    "vrtprocesseddataset": "computes its pixels by steps that may read any file",
}
"""Classes of VRT bands and datasets that are not read, in lower case, and why."""

_VRT = re.compile(rb"<VRTDataset", re.IGNORECASE)
_ELSEWHERE = re.compile(
    r"(\A|[\"':,])\s*/vsi|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)\b"
    r"|\A\s*[<{]|[a-z0-9+]{2,}://"
    r"|\A\s*(WMS|WMTS|WCS|EEDAI?|STACIT|STACTA|PLMOSAIC|DAAS|GTI|OGCAPI|NGW|MRF|vrt):",
    re.IGNORECASE,
)
_SOURCES = frozenset({"sourcefilename", "sourcedataset"})
_TEXTS = frozenset({"srs", "metadata", "description", "gcplist", "gcp", "pixelfunctiontype"})
"""Elements whose text, as that of all in them, GDAL does not open."""

_OPENED_KEYS = frozenset({"overview_file", "x_dataset", "y_dataset", "rpc_dem"})
"""Keys of metadata that GDAL takes for names of files."""

_HARMLESS_OPTIONS = frozenset({"NUM_THREADS", "GEOREF_SOURCES", "USE_TILE_AS_BLOCK"})
"""GDAL's open options that decide neither what is read nor where from."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file that a mosaic names, once for each time, and what the mosaic says of it."""

    name: str
    """As it is written there."""
    place: StoragePath
    box: tuple[float, float, float, float] | None
    """(y, x, stop y, stop x) of what it fills in the mosaic, or None where that is not said."""
    band: int
    of_mask: bool
    """Whether its mask is used, not its band."""
    size: tuple[int, int] | None
    """(height, width) that it should have."""
    used: tuple[float, float, float, float] | None
    """(y, x, stop y, stop x) of what of it fills the box, or None where that is all of it."""
    dtype: str | None
    """GDAL's name of the type that it should have."""
    overview: int | None
    """Number of its overview that is used in its place."""


def parts_of(path: StoragePath) -> list[Part] | None:
    """Find the parts of a mosaic (VRT); None where the file is not a mosaic.

    Raises
    ------
    InputError
        It names the network or a service, or it holds code. A mosaic on an object store may name
        what lies beside it or below, and no file on a disk.
    """
    try:
        head = _beginning(path, HEAD_BYTES)
        if not _VRT.search(head):
            if SERVICES.search(head):
                raise InputError(
                    f"{path} is not an image but the address of one that lies elsewhere; download "
                    "that, and give its file"
                )
            return None
        text = _beginning(path, LARGEST_DOCUMENT + 1)
    except OSError:
        return None  # GDAL says what is wrong
    if len(text) > LARGEST_DOCUMENT:
        raise InputError(f"{path} is too large for a mosaic; make it of several mosaics")
    return list(_parts(path, _parsed(path, text)))


def _beginning(path: StoragePath, count: int) -> bytes:
    if isinstance(path, ObjectPath):
        return path.read_ranges([(0, count)])[0]
    with path.open("rb") as file:
        return file.read(count)


def _parsed(path: StoragePath, text: bytes) -> ElementTree.Element:
    # GDAL's parser knows no entities of a document's own, and so would read other names than ours.
    if b"<!DOCTYPE" in text or b"\0" in text:
        raise InputError(f"{path} is a VRT with a DOCTYPE or a zero byte; write it again")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError, LookupError) as error:
        raise InputError(f"{path} is a broken VRT ({error}); write it again") from error


def _parts(path: StoragePath, root: ElementTree.Element) -> Iterator[Part]:
    """The parts of a VRT. Names of elements are compared without case, as GDAL does."""
    pending = [root]
    while pending:
        element = pending.pop()
        tag = _tag(element)
        _check_class(path, element)
        _check_text(path, element)
        if tag not in _TEXTS or tag == "metadata":
            pending += reversed(element)
        for child in element:
            if _tag(child) in _SOURCES:
                yield _part(path, element, child)


def _check_class(path: StoragePath, element: ElementTree.Element) -> None:
    tag, text = _tag(element), (element.text or "").strip()
    if tag == "pixelfunctioncode" or (tag == "pixelfunctionlanguage" and text.lower() != "c"):
        raise InputError(
            f"{path} holds a function in {'Python' if text else 'some language'}, and "
            "code in a file is not run; save what it gives as an image (gdal_translate)"
        )
    name = _attribute(element, "subclass") or ""
    if why := REFUSED.get(name.lower()):
        raise InputError(
            f"{path} holds a {name}, which {why}; save what it gives as an image (gdal_translate)"
        )


def _check_text(path: StoragePath, element: ElementTree.Element) -> None:
    """Refuse text that GDAL may open and that is no local file, whatever its element is called."""
    tag, text = _tag(element), (element.text or "").strip()
    opened = tag not in _TEXTS and tag != "mdi"
    if tag == "mdi":
        opened = (_attribute(element, "key") or "").lower() in _OPENED_KEYS
    if opened and _ELSEWHERE.search(text):
        raise InputError(
            f"{path} refers to {text[:80]}, and only local files are opened on behalf of a file; "
            "download it, and write the mosaic again"
        )


def _part(vrt: StoragePath, use: ElementTree.Element, source: ElementTree.Element) -> Part:
    """One of a mosaic's parts, of the element that uses it and the one that names it."""
    name = (source.text or "").strip()
    children = {_tag(child): child for child in use}
    band = (getattr(children.get("sourceband"), "text", None) or "1").strip().lower()
    number = band.removeprefix("mask").lstrip(",") or "1"
    properties = children.get("sourceproperties")
    stated = [_number(properties, name) for name in ("rasterysize", "rasterxsize")]
    return Part(
        name=name,
        place=_place_of_part(vrt, name, _attribute(source, "relativetovrt")),
        box=_box(children.get("dstrect")),
        band=int(number) if number.isdigit() else 1,
        of_mask=band.startswith("mask"),
        size=(int(stated[0]), int(stated[1])) if stated[0] and stated[1] else None,
        used=_box(children.get("srcrect")),
        dtype=None if properties is None else _attribute(properties, "datatype"),
        overview=_overview(vrt, children.get("openoptions")),
    )


def _place_of_part(vrt: StoragePath, name: str, relative: str | None) -> StoragePath:
    beside = (relative or "0").strip() != "0"
    if isinstance(vrt, ObjectPath):
        if not beside or name.startswith("/") or ".." in name.split("/"):
            raise InputError(
                f"{vrt} refers to {name[:80]}, and only objects beside it are opened on its "
                "behalf; write the mosaic again, with the names of such"
            )
        return vrt.parent / name
    return vrt.parent / name if beside else Path(name)


def _overview(vrt: StoragePath, options: ElementTree.Element | None) -> int | None:
    number = None
    for option in () if options is None else options:
        key, value = (_attribute(option, "key") or "").upper(), (option.text or "").strip()
        if key == "OVERVIEW_LEVEL" and value.isdigit():
            number = int(value)
        elif key not in _HARMLESS_OPTIONS:
            raise InputError(
                f"{vrt} sets the open option {key[:80]}={value[:80]} for a part, which is not "
                "supported; write the mosaic again without it"
            )
    return number


def _box(element: ElementTree.Element | None) -> tuple[float, float, float, float] | None:
    """(y, x, stop y, stop x) of a rectangle, or None where there is none that makes sense."""
    y, x, height, width = (_number(element, name) for name in ("yoff", "xoff", "ysize", "xsize"))
    if y is None or x is None or not height or not width or height < 0 or width < 0:
        return None
    return y, x, y + height, x + width


def _number(element: ElementTree.Element | None, name: str) -> float | None:
    try:
        value = math.nan if element is None else float(_attribute(element, name) or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2].lower()


def _attribute(element: ElementTree.Element, name: str) -> str | None:
    """An attribute by its name in lower case."""
    return next((value for key, value in element.attrib.items() if key.lower() == name), None)
