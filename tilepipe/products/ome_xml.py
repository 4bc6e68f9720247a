"""Writing and reading the OME-XML of a mask (schema 2016-06)."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

from tilepipe.images.base import PixelSize
from tilepipe.products.base import NO_ANSWER, MaskSpec
from tilepipe.products.content import Form
from tilepipe.schema import load_json
from tilepipe.text import one_line

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_OME_TYPES = {"uint8": "uint8", "uint32": "uint32", "float32": "float"}
_CLASSES = "tilepipe/classes"
_SPEC = "tilepipe/mask"


def ome_xml(form: Form) -> str:
    """The OME-XML of an export, without a UUID, which cannot be both fixed and unique.

    It must be stored as UTF-8, not as ASCII with character references: Bio-Formats removes ``&#``,
    so it would not understand the unit ``&#181;m``, and read a plain TIFF without a pyramid.
    """
    ome = ElementTree.Element(
        "OME",
        {
            "xmlns": _SCHEMA,
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:schemaLocation": f"{_SCHEMA} {_SCHEMA}/ome.xsd",
            "Creator": "tilepipe",
        },
    )
    image = ElementTree.SubElement(ome, "Image", ID="Image:0", Name=one_line(form.spec.name))
    _add_pixels(image, form)
    annotations = ElementTree.SubElement(ome, "StructuredAnnotations")
    _add_map(image, annotations, _CLASSES, _meanings(form))
    _add_map(image, annotations, _SPEC, {"spec": json.dumps(form.to_json())})
    document: bytes = ElementTree.tostring(ome, encoding="utf-8", xml_declaration=True)
    return document.decode("utf-8")


def read_spec(xml: str) -> MaskSpec | None:
    """The description that `ome_xml` stored; None if there is none, ValueError if it is damaged."""
    document = description_in(xml)
    return None if document is None else MaskSpec.from_json(document)


def description_in(xml: str) -> Any:
    """The JSON document that `ome_xml` stored (`Form.to_json`), of whatever the file holds.

    None if there is none; ValueError if it is damaged.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ValueError(f"its OME-XML is broken: {error}") from error
    for annotation in root.iter(f"{{{_SCHEMA}}}MapAnnotation"):
        if annotation.get("Namespace") == _SPEC:
            value = annotation.find(f".//{{{_SCHEMA}}}M")
            if value is not None and value.text:
                return load_json(value.text)
    return None


def read_pixel_size(xml: str) -> PixelSize | None:
    """The physical size of a pixel; None unless it is given in micrometres."""
    try:
        pixels = ElementTree.fromstring(xml).find(f".//{{{_SCHEMA}}}Pixels")
    except ElementTree.ParseError:
        return None
    if pixels is None:
        return None
    y, x = pixels.get("PhysicalSizeY"), pixels.get("PhysicalSizeX")
    if y is None or x is None or pixels.get("PhysicalSizeXUnit", "µm") != "µm":
        return None
    return PixelSize(float(y), float(x), "micrometer")


def pixel_size_um(spec: MaskSpec) -> tuple[float, float] | None:
    """The pixel size (y, x) in micrometres; None if it is unknown or not a length."""
    size = spec.pixel_size
    if size is None:
        return None
    if size.unit == "micrometer":
        return size.y, size.x
    metres = size.metres()
    if metres is None:
        return None
    # Rounded, so that 250 nm are 0.25 and not 0.25000000000000006.
    return float(f"{metres[0] * 1e6:.12g}"), float(f"{metres[1] * 1e6:.12g}")


def _meanings(form: Form) -> dict[str, str]:
    """What values stand for, or the names of planes, for readers."""
    named = form.spec.classes if form.is_labels else form.planes
    found = {str(value): one_line(each.name) for value, each in enumerate(named)}
    if form.is_labels:
        found[str(NO_ANSWER)] = "no answer"
    if form.shares is not None:
        found |= {name: str(value) for name, value in form.shares.attributes.items()}
    return found


def _add_pixels(image: ElementTree.Element, form: Form) -> None:
    spec = form.spec
    facts = {
        "ID": "Pixels:0", "DimensionOrder": "XYCZT", "Type": _OME_TYPES[form.dtype.name],
        "SizeX": str(spec.width), "SizeY": str(spec.height), "SizeC": str(len(form.planes)),
        "SizeZ": "1", "SizeT": "1",
    }  # fmt: skip
    size = pixel_size_um(spec)
    if size is not None:
        facts |= {"PhysicalSizeX": repr(size[1]), "PhysicalSizeXUnit": "µm"}
        facts |= {"PhysicalSizeY": repr(size[0]), "PhysicalSizeYUnit": "µm"}
    pixels = ElementTree.SubElement(image, "Pixels", facts)
    for number, plane in enumerate(form.planes):
        channel = {"ID": f"Channel:0:{number}", "SamplesPerPixel": "1"}
        channel |= {"Name": one_line(plane.name), "Color": str(_colour(plane.rgb))}
        ElementTree.SubElement(pixels, "Channel", channel)
    for number in range(len(form.planes)):
        ElementTree.SubElement(
            pixels, "TiffData", IFD=str(number), FirstC=str(number), PlaneCount="1"
        )


def _colour(rgb: tuple[int, int, int]) -> int:
    """A colour as the signed 32-bit RGBA integer that OME stores."""
    return int.from_bytes(bytes((*rgb, 255)), "big", signed=True)


def _add_map(
    image: ElementTree.Element,
    annotations: ElementTree.Element,
    namespace: str,
    entries: dict[str, str],
) -> None:
    identifier = f"Annotation:{len(annotations)}"
    ElementTree.SubElement(image, "AnnotationRef", ID=identifier)
    annotation = ElementTree.SubElement(
        annotations, "MapAnnotation", ID=identifier, Namespace=namespace
    )
    value = ElementTree.SubElement(annotation, "Value")
    for key, text in entries.items():
        ElementTree.SubElement(value, "M", K=key).text = text
