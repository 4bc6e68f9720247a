"""Outlines as the geometries of GeoJSON."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec
from numpy.typing import NDArray

from tilepipe.objects.outlines import Outlines

LARGE = 1 << 16
"""Points from which an object is encoded some at a time: lists take ten times their memory."""


def json_geometries(outlines: Outlines) -> Iterator[dict[str, Any]]:
    """The geometry of each object: a polygon, or a multipolygon of two or more.

    Coordinates are lists, or `msgspec.Raw` for an object of more than `LARGE` points; msgspec
    encodes both to the same bytes.
    """
    rings, points = outlines.rings.tolist(), outlines.points
    polygons, objects = outlines.polygons.tolist(), outlines.objects.tolist()
    for start, stop in pairwise(objects):
        is_large = rings[polygons[stop]] - rings[polygons[start]] > LARGE
        coordinates = _encoded if is_large else _listed
        parts = [
            coordinates(points, rings[polygons[p] : polygons[p + 1] + 1])
            for p in range(start, stop)
        ]
        if len(parts) == 1:
            yield {"type": "Polygon", "coordinates": parts[0]}
        else:
            yield {"type": "MultiPolygon", "coordinates": parts}


def _listed(points: NDArray[Any], rings: list[int]) -> list[Any]:
    """The rings of a polygon."""
    return [points[start:stop].tolist() for start, stop in pairwise(rings)]


def _encoded(points: NDArray[Any], rings: list[int]) -> msgspec.Raw:
    """The same as JSON text."""
    found = (_encoded_ring(points[start:stop]) for start, stop in pairwise(rings))
    return msgspec.Raw(b"[" + b",".join(found) + b"]")


def _encoded_ring(points: NDArray[Any]) -> bytes:
    parts = (points[start : start + LARGE] for start in range(0, len(points), LARGE))
    return b"[" + b",".join(msgspec.json.encode(part.tolist())[1:-1] for part in parts) + b"]"
