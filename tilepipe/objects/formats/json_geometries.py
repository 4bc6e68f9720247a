"""Outlines as the geometries of GeoJSON."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tilepipe.objects.outlines import Outlines


def json_geometries(outlines: Outlines) -> Iterator[dict[str, Any]]:
    """The geometry of each object: a polygon, or a multipolygon of two or more.

    Only the coordinates of one object at a time are lists, which take ten times their memory.
    """
    rings, points = outlines.rings.tolist(), outlines.points
    polygons, objects = outlines.polygons.tolist(), outlines.objects.tolist()
    for start, stop in pairwise(objects):
        parts = [
            [points[rings[r] : rings[r + 1]].tolist() for r in range(polygons[p], polygons[p + 1])]
            for p in range(start, stop)
        ]
        if len(parts) == 1:
            yield {"type": "Polygon", "coordinates": parts[0]}
        else:
            yield {"type": "MultiPolygon", "coordinates": parts}
