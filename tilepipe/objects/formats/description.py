"""What a file of objects says of itself, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tilepipe.objects.formats.frame import Frame
from tilepipe.objects.formats.records import Field
from tilepipe.objects.table import ObjectsInfo
from tilepipe.text import one_line

_PLACES = {
    "um": "Coordinates are micrometres from the upper left corner of the image, y pointing down.",
    "m": "Coordinates are metres from the upper left corner of the image, y pointing down.",
    "px": "Coordinates are pixels from the upper left corner of {what}, y pointing down.",
    "": "Coordinates are those of the coordinate reference system of the image.",
}


def described(info: ObjectsInfo, frame: Frame) -> str:
    """In sentences: what objects these are, where they lie, and what may be missing."""
    model = one_line(str(info.model.get("name", "")))
    of = f" by the model {model}" if model else ""
    what = "the mask" if info.image is None else "the image"
    said = [f"Objects found{of}.", _PLACES[frame.unit].format(what=what)]
    if info.partial:
        said.append(f"Objects may be missing: {one_line(info.partial)}.")
    return " ".join(said)


def as_document(info: ObjectsInfo, frame: Frame, fields: Iterable[Field]) -> str:
    """As JSON: image, model, how objects were told apart, classes, coordinates and units."""
    document = {
        "description": described(info, frame),
        "image": None if info.image is None else one_line(info.image.name),
        "model": info.model,
        "rule": info.rule,
        "classes": {one_line(each.name): each.colour for each in info.mask.classes},
        "unit": frame.unit or None,
        "fields": {each.name: {"title": each.title, "unit": each.unit} for each in fields},
        "partial": info.partial,
    }
    return json.dumps(document, sort_keys=True, ensure_ascii=False)
