"""OME-TIFF held against its specification: the OME-XML, and the TIFF that it describes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import tifffile

from tilepipe.errors import InputError
from tilepipe.schema import load_json
from tilepipe.storage import StoragePath
from tilepipe.text import first_line
from tilepipe.validation.installed import installed, named, verdict
from tilepipe.validation.result import Checked, Fact, content_of
from tilepipe.validation.tiff import BROKEN_TIFF, LARGE, cut_off, open_tiff

_SPEC = "tilepipe/mask"
"""The namespace of the annotation with the description of a mask."""

SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_ORDERS = {"XYZCT", "XYZTC", "XYCTZ", "XYCZT", "XYTCZ", "XYTZC"}
_TYPES = {
    "int8": "i1", "int16": "i2", "int32": "i4", "uint8": "u1", "uint16": "u2", "uint32": "u4",
    "float": "f4", "double": "f8", "bit": "b1", "complex": "c8", "double-complex": "c16",
}  # fmt: skip


def check(path: StoragePath) -> Checked:
    """Hold a file against the OME-TIFF specification, and its XML against OME 2016-06.

    Raises
    ------
    InputError
        It is no TIFF, or has no OME-XML.
    """
    with open_tiff(path) as file:
        xml = file.pages[0].description
        if not file.is_ome:
            raise InputError(f"{path} has no OME-XML, so it is no OME-TIFF; rename it to .tif")
        problems = list(cut_off(file))
        facts = _facts(file) | {"whole": not problems}
        by = [named("tifffile"), "tilepipe's own checks of OME-XML and SubIFDs"]
        try:
            root = ElementTree.fromstring(xml)
        except ElementTree.ParseError as error:
            problems.append(f"its OME-XML is broken: {error}")
        else:
            problems += _xml(root, file)
            _note(root, facts)
            types = installed("ome_types")
            if types is not None and installed("xmlschema") is not None:
                by.append(f"the schema OME 2016-06, by {named('ome-types')}")
                problems += verdict("schema", lambda: types.validate_xml(xml))
        problems += _pyramid(file)
    return Checked("OME-TIFF", tuple(problems), facts, tuple(by))


def _facts(file: tifffile.TiffFile) -> dict[str, Fact]:
    page = file.pages.first
    pyramid = "subifds" if page.subifds else "none"
    if not page.subifds and any(other.is_reduced for other in file.pages[1:]):
        pyramid = "pages"
    return {
        "dtype": str(page.dtype), "tiled": bool(page.is_tiled), "pyramid": pyramid,
        "large": max(page.imagelength, page.imagewidth) > LARGE,
        "palette": page.photometric == 3,
    }  # fmt: skip


def _tag(name: str) -> str:
    return f"{{{SCHEMA}}}{name}"


def _xml(root: ElementTree.Element, file: tifffile.TiffFile) -> Iterator[str]:
    if root.tag != _tag("OME"):
        yield f"the root of its XML is {root.tag}, not OME of {SCHEMA}"
        return
    ids = Counter(e.get("ID") for e in root.iter() if e.get("ID") and "Ref" not in e.tag)
    twice = [name for name, times in ids.items() if times > 1]
    if twice:
        yield f"the ID {twice[0]} occurs twice in its XML"
    for reference in (e for e in root.iter() if e.tag.endswith("Ref")):
        if reference.get("ID") not in ids:
            yield f"{reference.tag.partition('}')[2]} refers to {reference.get('ID')}, which is not"
    images = root.findall(_tag("Image"))
    if not images:
        yield "its XML describes no Image"
    for image in images:
        pixels = image.find(_tag("Pixels"))
        if pixels is None:
            yield f"{image.get('ID')} has no Pixels"
            continue
        yield from _pixels(pixels, file)


def _pixels(pixels: ElementTree.Element, file: tifffile.TiffFile) -> Iterator[str]:
    name = pixels.get("ID", "Pixels")
    missing = [
        key
        for key in ("ID", "DimensionOrder", "Type", *(f"Size{axis}" for axis in "XYZCT"))
        if pixels.get(key) is None
    ]
    if missing:
        yield f"{name} lacks {', '.join(missing)}"
        return
    if pixels.get("DimensionOrder") not in _ORDERS:
        yield f"{name} has the DimensionOrder {pixels.get('DimensionOrder')!r}"
    try:
        sizes = {axis: int(pixels.get(f"Size{axis}", "")) for axis in "XYZCT"}
    except ValueError:
        yield f"{name} has a size that is no whole number"
        return
    channels = pixels.findall(_tag("Channel"))
    samples = sum(int(c.get("SamplesPerPixel", "1")) for c in channels)
    if channels and samples != sizes["C"]:
        yield f"{name} has SizeC {sizes['C']}, and its channels have {samples} samples"
    data = pixels.findall(_tag("TiffData"))
    if any(each.find(_tag("UUID")) is not None for each in data):
        return  # planes may lie in other files
    first = next((int(each.get("IFD", "0")) for each in data), 0)
    if not data or first >= len(file.pages):
        yield f"{name} refers to image {first} of the file, which has {len(file.pages)}"
        return
    yield from _against_page(name, pixels, sizes, file.pages[first])
    planes = sizes["C"] * sizes["Z"] * sizes["T"] // max(1, file.pages[first].samplesperpixel)
    listed = sum(int(each.get("PlaneCount", planes if len(data) == 1 else 1)) for each in data)
    if listed != planes:
        yield f"{name} has {planes} planes, and TiffData place {listed}"


def _against_page(
    name: str, pixels: ElementTree.Element, sizes: dict[str, int], page: Any
) -> Iterator[str]:
    if (sizes["X"], sizes["Y"]) != (page.imagewidth, page.imagelength):
        yield (
            f"{name} is {sizes['X']} x {sizes['Y']} pixels in its XML, and "
            f"{page.imagewidth} x {page.imagelength} in the file (width x height)"
        )
    said = _TYPES.get(pixels.get("Type", ""))
    if said is None:
        yield f"{name} has the type {pixels.get('Type')!r}, which OME does not have"
    elif page.dtype is not None and page.dtype.str[1:] != said:
        yield f"{name} is {pixels.get('Type')} in its XML, and {page.dtype} in the file"
    for axis in "XY":
        size = pixels.get(f"PhysicalSize{axis}")
        if size is not None and not _above_0(size):
            yield f"{name} has the PhysicalSize{axis} {size!r}, which must be above 0"


def _above_0(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


def _pyramid(file: tifffile.TiffFile) -> Iterator[str]:
    """Levels are SubIFDs, each smaller than the one before, of one type (OME-TIFF, section 3)."""
    for number, page in enumerate(file.pages):
        try:
            levels = [page, *(page.pages or ())] if getattr(page, "subifds", None) else [page]
            for above, level in pairwise(levels):
                if not level.is_reduced:
                    yield f"a SubIFD of image {number} does not say that it is reduced"
                if level.imagewidth > above.imagewidth or level.imagelength > above.imagelength:
                    yield f"a SubIFD of image {number} is larger than the one before it"
                if level.dtype != page.dtype:
                    yield f"a SubIFD of image {number} is {level.dtype}, not {page.dtype}"
        except BROKEN_TIFF as error:
            yield f"the SubIFDs of image {number} cannot be read: {first_line(error)}"


def _note(root: ElementTree.Element, facts: dict[str, Fact]) -> None:
    """Note what readers make of channels."""
    channels = list(root.iter(_tag("Channel")))
    facts["coloured"] = bool(channels) and all(c.get("Color") is not None for c in channels)
    facts["channels"] = len(channels)
    spec = _spec(root)
    facts["content"] = content_of(spec)
    if spec:
        facts["top"] = max(1, len(spec.get("classes", ())) - 1)
    if facts["content"] == "planes":
        facts["top"] = 1


def _spec(root: ElementTree.Element) -> dict[str, Any]:
    """The description that tilepipe wrote into a file; empty in others."""
    for annotation in root.iter(_tag("MapAnnotation")):
        if annotation.get("Namespace") == _SPEC:
            text = annotation.findtext(f".//{_tag('M')}")
            try:
                found = load_json(text or "")
            except ValueError:
                return {}
            return found if isinstance(found, dict) else {}
    return {}
