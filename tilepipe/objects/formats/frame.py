"""Where the coordinates of a file of objects lie: on a map, in micrometres, or in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.images.base import Transform
from tilepipe.objects.areas import PixelArea
from tilepipe.objects.outlines import Outlines
from tilepipe.objects.table import ObjectsInfo


@dataclass(frozen=True, slots=True)
class Frame:
    """The coordinates of a file, and how those of the mask become them."""

    matrix: Transform
    """Affine (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f."""
    unit: str = ""
    """``um``, ``m`` or ``px``, y pointing down; empty where coordinates are those of a map."""
    crs: str | None = None
    """As WKT; None for slides, and for maps whose CRS is not known."""

    def points(self, points: NDArray[Any]) -> NDArray[Any]:
        """Points (n, 2) of the mask in these coordinates: float64, or as they are if nothing moves.

        x and y are in this order, columns and rows, as in the outlines of a table.
        """
        a, b, c, d, e, f = self.matrix
        if self.matrix == _IDENTITY:
            return points
        x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    def outlines(self, outlines: Outlines) -> Outlines:
        """Outlines in these coordinates; outer rings counterclockwise where y points up."""
        moved = Outlines(
            self.points(outlines.points), outlines.rings, outlines.polygons, outlines.objects
        )
        return counterclockwise(moved)


_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def map_frame(info: ObjectsInfo) -> Frame:
    """The frame of files for maps and tables: the image's CRS, else micrometres, else pixels.

    Pixels of a millimetre or more, which no CRS places, are measured in metres, as areas are. All
    are counted from the upper left corner of the image; pixels are those of its level 0, or of the
    mask where it is not known how that lies on the image.
    """
    mask = info.mask
    if mask.transform is not None:
        return Frame(mask.transform, crs=mask.crs)
    pixels, area = pixel_frame(info), PixelArea(mask)
    if area.metres is None:
        return pixels
    unit, factor = ("um", 1e6) if area.unit.small == "um2" else ("m", 1.0)
    a, _, c, _, e, f = pixels.matrix
    # Of a pixel of the image's level 0, of which one of the mask is a and e.
    y, x = (_tidy(side * factor / each) for side, each in zip(area.metres, (e, a), strict=True))
    return Frame((_tidy(a * x), 0.0, c * x, 0.0, _tidy(e * y), f * y), unit)


def pixel_frame(info: ObjectsInfo) -> Frame:
    """The frame of level 0 of the image, in pixels from its upper left corner."""
    place = info.image
    if place is None:
        return Frame(_IDENTITY, "px")
    return Frame((place.scale_x, 0.0, place.left, 0.0, place.scale_y, place.top), "px")


def closed(outlines: Outlines) -> Outlines:
    """The outlines with the first point of each ring at its end, too, as all formats have it."""
    first, last = outlines.rings[:-1], outlines.rings[1:] - 1
    points = outlines.points
    if not len(first):
        return outlines
    opened = (points[first] != points[last]).any(axis=1)
    if not opened.any():
        return outlines
    points = np.insert(points, last[opened] + 1, points[first[opened]], axis=0)
    rings = outlines.rings + np.concatenate([[0], np.cumsum(opened)])
    return Outlines(points, rings, outlines.polygons, outlines.objects)


def counterclockwise(outlines: Outlines) -> Outlines:
    """The outlines with outer rings counterclockwise, and holes clockwise, in axes of x and y."""
    rings = outlines.rings
    if len(rings) < 2:
        return outlines
    outer = np.zeros(len(rings) - 1, np.bool_)
    outer[outlines.polygons[:-1]] = True
    wrong = (doubled_areas(outlines) > 0) != outer
    if not wrong.any():
        return outlines
    lengths = np.diff(rings)
    order = np.arange(len(outlines.points))
    mirrored = np.repeat(rings[:-1] + rings[1:] - 1, lengths) - order
    turned = np.where(np.repeat(wrong, lengths), mirrored, order)
    return Outlines(outlines.points[turned], rings, outlines.polygons, outlines.objects)


def doubled_areas(outlines: Outlines) -> NDArray[np.float64]:
    """Twice the area of each ring (R,), positive for those counterclockwise where y points up."""
    points, begin = np.asarray(outlines.points, np.float64), outlines.rings[:-1]
    # From each ring's first point, so that large coordinates cost no precision.
    x, y = (points - np.repeat(points[begin], np.diff(outlines.rings), axis=0)).T
    crossed = np.zeros(len(points))
    crossed[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    crossed[outlines.rings[1:] - 1] = 0  # from a ring's last point to the next one's first
    return np.asarray(np.add.reduceat(crossed, begin))


def bounds(outlines: Outlines) -> NDArray[np.float64]:
    """The boxes (n, 4) of the objects: least x, least y, greatest x, greatest y."""
    if not len(outlines):
        return np.zeros((0, 4))
    begin = outlines.rings[outlines.polygons[outlines.objects[:-1]]]
    least = np.minimum.reduceat(outlines.points, begin)
    most = np.maximum.reduceat(outlines.points, begin)
    return np.concatenate([least, most], axis=1).astype(np.float64)


def _tidy(length: float) -> float:
    """Without the last digits, which come from the conversion of units: 0.25, not 0.2499999999."""
    return float(f"{length:.12g}")
