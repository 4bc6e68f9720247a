"""The style with which QGIS opens a GeoTIFF that has no colour table: ``NAME.qml`` beside it."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring

from tilepipe.images.ranges import ShownRange
from tilepipe.products.content import Content, channel_numbers
from tilepipe.products.ranges import shown_ranges
from tilepipe.storage import StoragePath, write_whole

_MARK = b"<!-- written by tilepipe -->"
"""What the styles of users lack."""

_HEAD = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + _MARK + b"\n"

_RAMP = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
"""Viridis, at five equal steps."""


def style_path(tiff: StoragePath) -> StoragePath:
    """Where QGIS looks for the style of a raster file."""
    return tiff.with_name(tiff.name.rpartition(".")[0] + ".qml")


def write_style(content: Content, path: StoragePath) -> None:
    """Write the style of ``content``, and remove that of an earlier file; labels need none.

    A style that the user has made stays.
    """
    remove_style(path)
    if not content.form.is_labels and not path.exists():
        write_whole(path, qgis_style(content))


def remove_style(path: StoragePath) -> None:
    """Remove a style, unless it is the user's."""
    try:
        ours = _MARK in path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return
    if ours:
        path.unlink(missing_ok=True)


def qgis_style(content: Content) -> bytes:
    """The style: planes of 0 and 1 in red, green and blue; a ramp of colours for anything else."""
    root = Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    form = content.form
    if form.holds == "mask" and form.spec.product.has_classes and len(form.planes) > 1:
        pipe.append(_composite(channel_numbers(form.spec)[:3]))
    else:
        shown = 0 if form.is_flat else channel_numbers(form.spec)[0]
        pipe.append(_ramp(shown, shown_ranges(content)[shown]))
    document: bytes = tostring(root, encoding="utf-8")
    return _HEAD + document + b"\n"


def _composite(planes: list[int]) -> Element:
    """Up to three planes of 0 and 1 as red, green and blue."""
    colours = ("red", "green", "blue")
    bands = [plane + 1 for plane in planes] + [-1] * (len(colours) - len(planes))
    renderer = Element(
        "rasterrenderer", type="multibandcolor", opacity="1", alphaBand="-1", nodataColor=""
    )
    renderer.attrib |= {f"{name}Band": str(band) for name, band in zip(colours, bands, strict=True)}
    SubElement(renderer, "rasterTransparency")
    for name, band in zip(colours, bands, strict=True):
        if band > 0:
            stretch = SubElement(renderer, f"{name}ContrastEnhancement")
            SubElement(stretch, "minValue").text = "0"
            SubElement(stretch, "maxValue").text = "1"
            SubElement(stretch, "algorithm").text = "StretchToMinimumMaximum"
    return renderer


def _ramp(plane: int, shown: ShownRange) -> Element:
    """One plane in a ramp of colours."""
    ends = {"Min": repr(shown.low), "Max": repr(shown.high)}
    renderer = Element(
        "rasterrenderer", type="singlebandpseudocolor", band=str(plane + 1), opacity="1",
        alphaBand="-1", nodataColor="",
        attrib={f"classification{end}": value for end, value in ends.items()},
    )  # fmt: skip
    SubElement(renderer, "rasterTransparency")
    shader = SubElement(
        SubElement(renderer, "rastershader"), "colorrampshader",
        colorRampType="INTERPOLATED", classificationMode="1", clip="0",
        attrib={f"{end.lower()}imumValue": value for end, value in ends.items()},
    )  # fmt: skip
    steps = len(_RAMP) - 1
    for number, colour in enumerate(_RAMP):
        value = shown.low + (shown.high - shown.low) * number / steps
        item = {"value": repr(value), "label": f"{value:.4g}", "color": colour, "alpha": "255"}
        SubElement(shader, "item", item)
    return renderer
