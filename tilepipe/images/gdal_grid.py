"""The grid of a GDAL dataset and its place on Earth."""

from __future__ import annotations

import math
from typing import Any

from tilepipe.images.base import PixelSize, RasterGrid, Transform
from tilepipe.images.control import ControlPoint, GroundControl, are_rpcs

UNITS = {
    "metre": "meter",
    "meter": "meter",
    "kilometre": "kilometer",
    "foot": "foot",
    "us survey foot": "us survey foot",
    "degree": "degree",
}
"""Units of a CRS as PROJ and OGC spell them, and as NGFF does."""


def grid_of(dataset: Any) -> RasterGrid:
    """Read size, pixel size and place of a dataset."""
    crs, transform = dataset.crs or None, None
    if not dataset.transform.is_identity:
        a, b, c, d, e, f = tuple(dataset.transform)[:6]
        transform = a, b, c, d, e, f
    wkt = crs.to_wkt() if crs else None
    size = None if transform is None else _pixel_size(crs, transform)
    control = _control(dataset) if transform is None else None
    return RasterGrid(dataset.height, dataset.width, size, wkt, transform, control)


def _control(dataset: Any) -> GroundControl | None:
    """What places an image on the Earth that has no transform of its own."""
    points, crs = dataset.gcps
    rpcs = dataset.tags(ns="RPC")
    if not are_rpcs(rpcs):
        rpcs = {}
    if not points and not rpcs:
        return None
    return GroundControl(
        points=tuple(
            ControlPoint(p.row, p.col, p.x, p.y, p.z or 0.0, p.id or "", p.info or "")
            for p in points
        ),
        crs=crs.to_wkt() if points and crs else None,
        rpcs=tuple(sorted(rpcs.items())),
    )


def _pixel_size(crs: Any, transform: Transform) -> PixelSize | None:
    """Lengths of a pixel's sides, also where it is rotated, in the unit of the CRS."""
    unit = UNITS.get(str(crs.units_factor[0]).lower()) if crs else None
    if unit is None:
        return None
    a, b, _, d, e, _ = transform
    return PixelSize(math.hypot(b, e), math.hypot(a, d), unit)
