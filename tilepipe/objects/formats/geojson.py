"""Objects as GeoJSON: for QuPath where an image has no CRS, else for maps (RFC 7946)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tilepipe.objects.formats.frame import Frame, pixel_frame
from tilepipe.objects.formats.json_geometries import json_geometries
from tilepipe.objects.formats.longitudes import LongitudesLatitudes
from tilepipe.objects.formats.records import (
    CLASS,
    NUMBER,
    Records,
    batches,
    measurements,
    shortest,
    titled,
    unlike,
)
from tilepipe.objects.formats.text_files import writing_bytes
from tilepipe.objects.outlines import Outlines
from tilepipe.objects.table import ObjectBatch, ObjectsInfo, ObjectTable
from tilepipe.text import one_line

HEAD, BETWEEN, TAIL = b'{"type":"FeatureCollection","features":[\n', b",\n", b"\n]}\n"
"""What surrounds the features, each of which is a line."""

PIXEL_DECIMALS = 3
"""Of coordinates in pixels that are not whole."""

_NAMESPACE = uuid.UUID("6f9f3d0e-3c4b-5f0e-9a55-6d0c8b1f4c0d")
"""Of the ids of objects; a constant of tilepipe."""


def write_geojson(table: ObjectTable, path: Path) -> None:
    """Write a feature for each object, as QuPath imports them or as RFC 7946 wants them.

    Without a CRS, coordinates are pixels of level 0 of the image, and features are QuPath's
    detections. With one, they are longitude and latitude.

    Raises
    ------
    InputError
        Where the table has no outlines, or an object lies where the CRS has no longitude.
    """
    place = table.info.mask
    on_earth = place.crs is not None and place.transform is not None
    features = _on_earth(table) if on_earth else _for_qupath(table.info)
    encode = msgspec.json.Encoder().encode
    with writing_bytes(path) as file:
        file.write(HEAD)
        between = b""
        for batch, outlines in batches(table):
            lines = BETWEEN.join(map(encode, features(batch, outlines)))
            file.write(between)
            file.write(lines)
            between = BETWEEN
        file.write(TAIL)


Features = Callable[[ObjectBatch, Outlines], Iterator[dict[str, Any]]]


def _for_qupath(info: ObjectsInfo) -> Features:
    """Features as QuPath's own export has them (`qupath.lib.io.GsonTools`)."""
    frame, identity = pixel_frame(info), _identity(info)
    classes = [
        {"name": _path_class(each.name, number), "color": list(each.rgb)}
        for number, each in enumerate(info.mask.classes)
    ]
    measured = measurements(info)
    # QuPath refuses a file in which a feature has two measurements of one name.
    _, *titles = unlike(["Number", *map(titled, measured)])

    def features(batch: ObjectBatch, outlines: Outlines) -> Iterator[dict[str, Any]]:
        numbers = batch.columns[NUMBER].tolist()
        ids = _ids(identity, numbers, outlines)
        geometries = json_geometries(_whole_or_rounded(frame, outlines))
        rows = _rows([batch.columns[column.name] for column in measured], len(batch))
        kinds = batch.columns[CLASS].tolist()
        for number, kind, uid, geometry, row in zip(
            numbers, kinds, ids, geometries, rows, strict=True
        ):
            known = zip(titles, row, strict=True)
            values = {title: value for title, value in known if value is not None}
            yield {
                "type": "Feature",
                "id": uid,
                "geometry": geometry,
                "properties": {
                    "objectType": "detection",
                    "classification": classes[kind],
                    "measurements": {"Number": number, **values},
                },
            }

    return features


def _path_class(name: str, number: int) -> str:
    """The name of a class for QuPath, which refuses a file with a name without letters.

    There, colons part a class from those derived of it (``Tumor: Positive``), and none of them may
    be blank.
    """
    parts = [part.strip() for part in one_line(name).split(":")]
    return ": ".join(part for part in parts if part) or f"Class {number}"


def _on_earth(table: ObjectTable) -> Features:
    """Features in longitude and latitude, whose properties are flat."""
    mask = table.info.mask
    assert mask.crs is not None, "asked by the caller"
    assert mask.transform is not None, "asked by the caller"
    earth = LongitudesLatitudes(mask.crs, mask.transform, mask.pixel_size)
    records = Records(table.info, Frame(mask.transform, crs=mask.crs), boxes=False)
    # Centroids would be in another CRS than the geometry.
    kept = [i for i, field in enumerate(records.fields) if not field.name.startswith("centroid_")]
    names = [records.fields[i].name for i in kept]
    colours = dict(zip(records.classes, (c.colour for c in mask.classes), strict=True))
    where = names.index(CLASS)

    def features(batch: ObjectBatch, outlines: Outlines) -> Iterator[dict[str, Any]]:
        found = records.values(batch)
        rows = _rows([found[i] for i in kept], len(batch))
        geometries = earth.geometries(outlines, str(table.path))
        for geometry, row in zip(geometries, rows, strict=True):
            properties = dict(zip(names, row, strict=True))
            # As simplestyle-spec has it, which maps on the web draw.
            properties["fill"] = colours[row[where]]
            number = properties[NUMBER]
            yield {"type": "Feature", "id": number, "geometry": geometry, "properties": properties}

    return features


def _rows(columns: list[NDArray[Any]], count: int) -> Iterator[tuple[Any, ...]]:
    """The values of each row; None for those that are not known."""
    if not columns:
        return iter([()] * count)
    return zip(*(_known(shortest(column)) for column in columns), strict=True)


def _known(values: NDArray[Any]) -> list[Any]:
    found: list[Any] = values.tolist()
    if values.dtype.kind == "f":
        for index in np.flatnonzero(~np.isfinite(values)):
            found[index] = None
    return found


def _whole_or_rounded(frame: Frame, outlines: Outlines) -> Outlines:
    """Outlines in a frame, as whole numbers where all of them are."""
    points = frame.points(outlines.points)
    if points.dtype.kind == "f":
        points = np.round(points, PIXEL_DECIMALS) + 0.0  # without -0.0
        whole = points.astype(np.int64)
        if (whole == points).all():
            points = whole
    return Outlines(points, outlines.rings, outlines.polygons, outlines.objects)


def _identity(info: ObjectsInfo) -> bytes:
    """What distinguishes these objects from others of the same number and outline."""
    known = {
        "mask": info.mask.to_json(),
        "image": None if info.image is None else info.image.name,
        "model": info.model.get("fingerprint", ""),
        "rule": info.rule,
    }
    name = json.dumps(known, sort_keys=True, default=str)
    return uuid.uuid5(_NAMESPACE, name).bytes


def _ids(identity: bytes, numbers: list[int], outlines: Outlines) -> Iterator[str]:
    """A UUID (version 5) for each object: of what it is an object of, its number and outline."""
    points = np.ascontiguousarray(outlines.points, "<f8")
    begin = outlines.rings[outlines.polygons[outlines.objects]].tolist()
    for number, start, stop in zip(numbers, begin[:-1], begin[1:], strict=True):
        content = identity + number.to_bytes(8, "little") + points[start:stop].tobytes()
        # UUIDs identify here, and protect nothing.
        digest = sha1(content, usedforsecurity=False).digest()
        yield str(uuid.UUID(bytes=digest[:16], version=5))
