"""The range of values that viewers show: of measured values it depends on the mask."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from tilepipe.grid import Window
from tilepipe.images.ranges import ShownRange
from tilepipe.products.content import Content, content_of
from tilepipe.products.store import ZarrMask
from tilepipe.schema import load_json
from tilepipe.storage import write_whole


def shown_ranges(content: Content) -> list[ShownRange]:
    """The range of each plane; that of measured values is taken from the smallest level.

    So it depends on the mask alone, and costs at most a few hundred pixels a side.
    """
    form = content.form
    if not form.is_measured:
        return [ShownRange()] * len(form.planes)
    level = len(content.levels) - 1
    whole = Window(0, 0, *content.levels[level])
    planes = range(len(form.planes))
    return [ShownRange.of(content.read_plane(plane, whole, level)) for plane in planes]


def write_ranges(mask: ZarrMask) -> None:
    """Store the ranges of a complete mask of values where viewers look for them (``omero``).

    Does nothing for masks of classes, whose range is known before. Equal masks get equal metadata.
    """
    if mask.spec.product.has_classes:
        return
    names = ("zarr.json", ".zattrs")
    path = next(path for name in names if (path := mask.path / name).exists())
    document = load_json(path.read_text(encoding="utf-8"))
    for channel, shown in zip(_channels(document), shown_ranges(content_of(mask)), strict=True):
        channel["window"] = shown.ngff
    write_whole(path, json.dumps(document, indent=2))


def without_ranges(document: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a group without the ranges, which follow from the pixels."""
    document = deepcopy(document)
    for channel in _channels(document):
        channel.pop("window", None)
    return document


def _channels(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The channels in the metadata of a group, of any version; they may be anything."""
    found: Any = document
    for key in ("attributes", "ome"):
        found = found.get(key, found) if isinstance(found, dict) else {}
    for key in ("omero", "channels"):
        found = found.get(key) if isinstance(found, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
