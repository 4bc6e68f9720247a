"""Outlines in longitude and latitude as GeoJSON has them, cut where they cross 180 degrees."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.images.base import PixelSize, Transform
from tilepipe.objects.formats.frame import Frame, counterclockwise
from tilepipe.objects.formats.json_geometries import json_geometries
from tilepipe.objects.outlines import Outlines
from tilepipe.text import first_line

LONGITUDE_LATITUDE = "OGC:CRS84"

METRES_IN_A_DEGREE = 111_320.0
"""Of latitude, about."""

Ring = NDArray[np.float64]
"""Longitudes and latitudes (n, 2); the first point is also the last."""


class LongitudesLatitudes:
    """From pixels of a mask to GeoJSON geometries.

    Parameters
    ----------
    crs
        Of the mask, as WKT.
    transform
        Of the mask, to that CRS.
    pixel_size
        Of the mask, which decides how many decimals are written: at least 7.

    Raises
    ------
    InputError
        Where longitude and latitude cannot be had from the CRS.
    """

    def __init__(self, crs: str, transform: Transform, pixel_size: PixelSize | None) -> None:
        from pyproj import CRS, Transformer
        from pyproj.exceptions import ProjError

        try:
            source = CRS.from_wkt(crs)
            self._transformer = Transformer.from_crs(source, LONGITUDE_LATITUDE, always_xy=True)
        except ProjError as error:
            raise InputError(
                "the CRS of the mask has no longitude and latitude, which GeoJSON is written in "
                f"({first_line(error)}); write .gpkg, .fgb or .parquet, which keep the CRS"
            ) from error
        self._frame = Frame(transform, crs=crs)
        self._decimals = _decimals(pixel_size)

    def geometries(self, outlines: Outlines, what: str) -> Iterator[dict[str, Any]]:
        """The geometry of each object as JSON values; InputError, of ``what``, where one has none.

        Outer rings are counterclockwise. An object that crosses 180 degrees is several polygons.
        """
        placed = self._frame.points(outlines.points)
        x, y = self._transformer.transform(placed[:, 0], placed[:, 1])
        points = np.stack([x, y], axis=1).astype(np.float64)
        if not np.isfinite(points).all():
            raise InputError(
                f"{what}: some objects lie where their CRS has no longitude and latitude, which "
                "GeoJSON is written in; write .gpkg, .fgb or .parquet, which keep the CRS"
            )
        crossing = _crossing(points, outlines)
        known = self._rounded(outlines, points)
        for index, geometry in enumerate(json_geometries(known)):
            yield self._cut(known.of(index, index + 1)) if crossing[index] else geometry

    def _rounded(self, outlines: Outlines, points: NDArray[np.float64]) -> Outlines:
        points = np.round(points, self._decimals) + 0.0  # without -0.0
        return counterclockwise(
            Outlines(points, outlines.rings, outlines.polygons, outlines.objects)
        )

    def _cut(self, outlines: Outlines) -> dict[str, Any]:
        """The parts of an object on either side of 180 degrees."""
        import shapely

        rings = [outlines.points[start:stop] for start, stop in pairwise(outlines.rings)]
        parts = []
        for first, stop in pairwise(outlines.polygons):
            parts += _parts(rings[first], rings[first + 1 : stop])
        found = shapely.set_precision(shapely.union_all(parts), 10.0**-self._decimals)
        pieces = [part for part in shapely.get_parts(found) if part.geom_type == "Polygon"]
        known = Outlines.from_geometries(np.array([shapely.multipolygons(pieces)], object))
        return next(json_geometries(self._rounded(known, known.points)))


def _decimals(pixel_size: PixelSize | None) -> int:
    if pixel_size is None or not pixel_size.is_sound:
        return 7
    metres = pixel_size.metres()
    side = min(pixel_size.y, pixel_size.x)
    degrees = side if metres is None else min(metres) / METRES_IN_A_DEGREE
    return max(7, math.ceil(-math.log10(degrees / 20)))


def _crossing(points: Ring, outlines: Outlines) -> NDArray[np.bool_]:
    """Which objects cross, or lie beyond, 180 degrees."""
    longitudes = points[:, 0]
    strange = np.abs(longitudes) > 180
    jumps = np.abs(np.diff(longitudes)) > 180
    jumps[outlines.rings[1:-1] - 1] = False  # between rings
    strange[1:] |= jumps
    begin = outlines.rings[outlines.polygons[outlines.objects[:-1]]]
    return np.logical_or.reduceat(strange, begin)


def _parts(outer: Ring, holes: list[Ring]) -> list[Any]:
    """A polygon, whose rings may cross 180 degrees, as shapely geometries within them."""
    import shapely

    # A hole may have been counted from another turn around the Earth than what it is in.
    gaps = [
        shapely.Polygon(_continuous(hole) + np.array([360 * turn, 0]))
        for hole in holes
        for turn in (-1, 0, 1)
    ]
    whole = shapely.difference(shapely.Polygon(_continuous(outer)), shapely.union_all(gaps))
    west, _, east, _ = whole.bounds
    turns = range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360))
    parts = []
    for turn in turns:
        part = shapely.clip_by_rect(whole, 360 * turn - 180, -90, 360 * turn + 180, 90)
        parts.append(shapely.transform(part, lambda p, turn=turn: p - [360 * turn, 0]))
    return parts


def _continuous(ring: Ring) -> Ring:
    """A ring whose longitudes do not jump; one around a pole goes by way of the pole."""
    found = ring.copy()
    found[:, 0] = np.unwrap(ring[:, 0], period=360)
    if abs(found[-1, 0] - found[0, 0]) < 180:
        return found
    pole = math.copysign(90, float(ring[:, 1].mean()))
    way = [[found[-1, 0], pole], [found[0, 0], pole], found[0]]
    return np.concatenate([found, way])
