"""XML for GDAL: the virtual raster from which a COG is made, and the side file of a TIFF."""

from __future__ import annotations

import json
from xml.etree.ElementTree import Element, SubElement, tostring

from tilepipe.grid import CHUNK
from tilepipe.images.control import GroundControl
from tilepipe.products.base import NO_ANSWER, MaskSpec
from tilepipe.products.content import Form
from tilepipe.products.ome_xml import pixel_size_um
from tilepipe.text import one_line

_GDAL_TYPES = {"uint8": "Byte", "uint32": "UInt32", "float32": "Float32"}

_HAIR = 1e-9
"""A share that is not 0, and of no account."""

SPEC_TAG = "TILEPIPE_MASK"
"""The metadata item with the description of the mask as JSON."""


def virtual_raster(form: Form, files: list[str]) -> bytes:
    """A VRT of an export whose levels are files beside it, with a band for each plane."""
    spec = form.spec
    height, width = spec.levels[0]
    root = Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    if spec.crs is not None:
        SubElement(root, "SRS").text = one_line(spec.crs)
    if spec.transform is not None:
        a, b, c, d, e, f = spec.transform
        # repr preserves every bit.
        SubElement(root, "GeoTransform").text = ", ".join(map(repr, (c, a, b, f, d, e)))
    if spec.control is not None:
        _add_control(root, spec.control)
    _add_metadata(root, {SPEC_TAG: json.dumps(form.to_json()), **_resolution(spec)})
    for plane in range(len(form.planes)):
        root.append(_band(form, plane, files))
    return _document(root)


def _add_control(root: Element, control: GroundControl) -> None:
    """Add ground control points and RPCs in GDAL's form."""
    if control.points:
        listed = SubElement(root, "GCPList")
        if control.crs is not None:
            listed.set("Projection", control.crs)
        for number, point in enumerate(control.points, 1):
            item = SubElement(
                listed, "GCP", Id=one_line(point.id) or str(number), Info=one_line(point.info)
            )
            places = {"Pixel": point.column, "Line": point.row, "X": point.x, "Y": point.y}
            for name, value in {**places, "Z": point.z}.items():
                item.set(name, repr(value))
    if control.rpcs:
        _add_metadata(root, dict(control.rpcs), domain="RPC")


def side_file(form: Form, *, with_crs: bool) -> bytes | None:
    """GDAL's side file (PAM): the CRS, and the colours and names of the classes of labels.

    QGIS makes its legend of this colour table, so it has the classes alone, and a transparent
    background. The TIFF's own must have 256 entries.
    """
    root, spec = Element("PAMDataset"), form.spec
    if with_crs and spec.crs is not None:
        SubElement(root, "SRS").text = one_line(spec.crs)
    if form.is_labels:
        band = SubElement(root, "PAMRasterBand", band="1")
        SubElement(band, "ColorInterp").text = "Palette"
        table = SubElement(band, "ColorTable")
        for value, named in enumerate(spec.classes):
            _add_colour(table, named.rgb, 0 if value == spec.background else 255)
        names = SubElement(band, "CategoryNames")
        for named in spec.classes:
            SubElement(names, "Category").text = one_line(named.name)
    return _document(root) if len(root) else None


def _resolution(spec: MaskSpec) -> dict[str, str]:
    """The items from which GDAL makes a TIFF's resolution tags, for masks without a transform."""
    size = pixel_size_um(spec)
    if size is None or spec.transform is not None:
        return {}
    centimetre, um_per_cm = "3", 1e4
    return {
        "TIFFTAG_XRESOLUTION": repr(um_per_cm / size[1]),
        "TIFFTAG_YRESOLUTION": repr(um_per_cm / size[0]),
        "TIFFTAG_RESOLUTIONUNIT": centimetre,
    }


def _band(form: Form, plane: int, files: list[str]) -> Element:
    spec, data_type = form.spec, _GDAL_TYPES[form.dtype.name]
    band = Element("VRTRasterBand", dataType=data_type, band=str(plane + 1))
    band.set("blockXSize", str(CHUNK))
    band.set("blockYSize", str(CHUNK))
    SubElement(band, "Description").text = one_line(form.planes[plane].name)
    if form.is_labels:
        _add_metadata(band, {f"CLASS_{i}": named.name for i, named in enumerate(spec.classes)})
    if form.fill is not None:
        SubElement(band, "NoDataValue").text = f"{form.fill:g}"
    SubElement(band, "ColorInterp").text = "Palette" if form.is_labels else "Gray"
    if form.is_labels:
        _add_colours(band, spec)
    if form.shares is not None and form.shares.is_rounded:
        # QGIS compares values with nodata after it has scaled them, so that a share of 0 would have
        # no answer where nodata is 0.
        hair = _HAIR if form.fill == 0 else 0.0
        SubElement(band, "Offset").text = repr(form.shares.offset + hair)
        SubElement(band, "Scale").text = repr(form.shares.scale)
    height, width = spec.levels[0]
    source = SubElement(band, "SimpleSource")
    _add_file(source, files[0], plane)
    whole = {"xOff": "0", "yOff": "0", "xSize": str(width), "ySize": str(height)}
    SubElement(source, "SrcRect", whole)
    SubElement(source, "DstRect", whole)
    for file in files[1:]:
        _add_file(SubElement(band, "Overview"), file, plane)
    return band


def _add_file(parent: Element, file: str, plane: int) -> None:
    SubElement(parent, "SourceFilename", relativeToVRT="1").text = file
    SubElement(parent, "SourceBand").text = str(plane + 1)


def _add_metadata(parent: Element, items: dict[str, str], domain: str | None = None) -> None:
    metadata = SubElement(parent, "Metadata", {} if domain is None else {"domain": domain})
    for key, text in items.items():
        SubElement(metadata, "MDI", key=key).text = one_line(text)


def _add_colours(band: Element, spec: MaskSpec) -> None:
    table = SubElement(band, "ColorTable")
    for value in range(NO_ANSWER + 1):
        rgb = spec.classes[value].rgb if value < len(spec.classes) else (0, 0, 0)
        _add_colour(table, rgb, 0 if value == NO_ANSWER else 255)


def _add_colour(table: Element, rgb: tuple[int, int, int], alpha: int) -> None:
    parts = zip(("c1", "c2", "c3", "c4"), (*rgb, alpha), strict=True)
    SubElement(table, "Entry", {name: str(part) for name, part in parts})


def _document(root: Element) -> bytes:
    document: bytes = tostring(root, encoding="utf-8")
    return document + b"\n"
