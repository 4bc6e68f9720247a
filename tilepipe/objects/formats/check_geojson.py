"""GeoJSON held against RFC 7946, and against what QuPath wants where it is for QuPath."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.objects.formats.geojson_lines import features
from tilepipe.objects.formats.problems import Problems

_QUPATH_TYPES = {
    "annotation", "detection", "cell", "tile", "tmaCore", "tma_core", "root", "unknown",
}  # fmt: skip

_DEPTH = {"Polygon": 1, "MultiPolygon": 2}
"""How many lists are around a ring."""


def check_geojson(path: Path) -> list[str]:
    """Say what is wrong with a file; empty where nothing is."""
    problems = Problems("feature")
    try:
        for index, feature in enumerate(features(path)):
            for problem in _of_feature(feature):
                problems.add(problem, index)
    except (OSError, EOFError, ValueError) as error:
        problems.add(f"the file cannot be read to its end: {error}")
    return problems.sentences()


def _of_feature(feature: Any) -> Iterator[str]:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        yield "it is not a Feature"
        return
    if "geometry" not in feature:
        yield "it has no member geometry"
    properties = feature.get("properties", 0)
    if not isinstance(properties, dict | None):
        yield "its properties are neither an object nor null"
    qupath = isinstance(properties, dict) and "objectType" in properties
    yield from _of_geometry(feature.get("geometry"), on_earth=not qupath)
    if qupath:
        yield from _for_qupath(feature, properties)
    elif "id" in feature and (
        not isinstance(feature["id"], str | int | float) or isinstance(feature["id"], bool)
    ):
        yield "its id is neither a text nor a number"


def _of_geometry(geometry: Any, *, on_earth: bool) -> Iterator[str]:
    if geometry is None:
        return
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in _DEPTH:
        yield f"its geometry is {kind!r}, not a polygon or multipolygon"
        return
    polygons = geometry.get("coordinates")
    polygons = [polygons] if kind == "Polygon" else polygons
    if not isinstance(polygons, list) or not all(isinstance(each, list) for each in polygons):
        yield "its coordinates are not lists of rings"
        return
    if kind == "MultiPolygon" and len(polygons) < 2 and not on_earth:
        yield "its multipolygon has fewer than two members, which QuPath does not read"
    for polygon in polygons:
        for number, ring in enumerate(polygon):
            yield from _of_ring(ring, outer=number == 0, on_earth=on_earth)


def _of_ring(ring: Any, *, outer: bool, on_earth: bool) -> Iterator[str]:
    try:
        points = np.array([position[:2] for position in ring], np.float64)
    except (TypeError, ValueError):
        points = np.zeros((0, 0))
    if points.ndim != 2 or points.shape[1:] != (2,):
        yield "a ring is not a list of positions"
        return
    if len(points) < 4:
        yield "a ring has fewer than four positions"
        return
    if not np.isfinite(points).all():
        yield "a coordinate is not a finite number"
        return
    if (points[0] != points[-1]).any():
        yield "a ring is not closed"
    if not on_earth:
        return
    if (np.abs(points) > [180, 90]).any():
        yield "a coordinate is not a longitude or latitude"
    x, y = (points - points[0]).T
    area = float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
    if (area > 0) != outer:
        yield "a ring does not follow the right-hand rule"


def _for_qupath(feature: Any, properties: dict[str, Any]) -> Iterator[str]:
    kind = properties["objectType"]
    if not isinstance(kind, str) or kind not in _QUPATH_TYPES:
        yield f"QuPath has no objectType {kind!r}"
    try:
        uuid.UUID(feature["id"])
    except (KeyError, ValueError, AttributeError, TypeError):
        yield "its id is not a UUID, as QuPath wants it"
    yield from _of_class(properties.get("classification"))
    measurements = properties.get("measurements", {})
    values: Any = measurements.values() if isinstance(measurements, dict) else [None]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        yield "its measurements are not an object of numbers"


def _of_class(classification: Any) -> Iterator[str]:
    """A text, or an object of name (or names) and colour: QuPath reads it with both only."""
    if classification is None or classification == {}:
        return
    name: Any = None
    colour: Any = None
    if isinstance(classification, str):
        name, colour = classification, [0, 0, 0]
    elif isinstance(classification, dict):
        name = classification.get("name", ":".join(map(str, classification.get("names", []))))
        colour = classification.get("color")
    if not isinstance(name, str) or not all(part.strip() for part in name.split(":")):
        yield "its classification has no name, or a blank one"
    if not _is_colour(colour):
        yield "the colour of its classification is not [red, green, blue] of 0 to 255"


def _is_colour(colour: Any) -> bool:
    return (
        isinstance(colour, list)
        and len(colour) in (3, 4)
        and all(type(value) is int and 0 <= value <= 255 for value in colour)
    )
