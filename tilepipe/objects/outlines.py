"""The outlines of objects: polygons along pixel edges, many objects in a few flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.objects.walks import offsets_of, ranges

Offsets = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outlines:
    """The polygons of n objects, in the layout of a GeoArrow array of multipolygons.

    Points are corners of pixels: (0, 0) is the upper left corner of the mask, and the centre of its
    first pixel is (0.5, 0.5). An object is one polygon for each of its parts that are connected by
    edges: parts that only touch at corners are polygons of their own, so that each is valid.
    """

    points: NDArray[Any]
    """(P, 2): x and y; int32 along pixel edges, float64 once simplified or transformed."""
    rings: Offsets
    """(R + 1,): where each ring begins in `points`. Its first point is not repeated at its end."""
    polygons: Offsets
    """(Q + 1,): where each polygon begins in `rings`. Its first ring is outside, others holes."""
    objects: Offsets
    """(n + 1,): where each object begins in `polygons`."""
    nodes: NDArray[np.bool_] | None = None
    """(P,): whether more than two objects, background included, or two parts of one, meet in the
    point. Every outline there has the point, if only between two in line. None where that is
    unknown, as it is of outlines that do not follow pixel edges."""

    def __len__(self) -> int:
        """The number of objects."""
        return len(self.objects) - 1

    @classmethod
    def none(cls, dtype: str = "int32") -> Outlines:
        """The outlines of no objects."""
        rings, polygons, objects = np.zeros((3, 1), np.int64)
        return cls(np.zeros((0, 2), dtype), rings, polygons, objects, np.zeros(0, bool))

    def of(self, start: int, stop: int) -> Outlines:
        """The outlines of some of the objects, from ``start`` to before ``stop``."""
        objects = self.objects[start : stop + 1]
        polygons = self.polygons[objects[0] : objects[-1] + 1]
        rings = self.rings[polygons[0] : polygons[-1] + 1]
        points = slice(rings[0], rings[-1])
        nodes = None if self.nodes is None else self.nodes[points]
        return Outlines(
            self.points[points],
            rings - rings[0],
            polygons - polygons[0],
            objects - objects[0],
            nodes,
        )

    def points_of(self) -> Offsets:
        """How many points each object has: (n,)."""
        return np.diff(self.rings[self.polygons[self.objects]])

    def take(self, chosen: Offsets) -> Outlines:
        """The outlines of some of the objects, by their indices, in that order."""
        index = np.asarray(chosen, np.int64)
        offsets = []
        for level in (self.objects, self.polygons, self.rings):
            sizes = np.diff(level)[index]
            index = ranges(level[index], sizes)
            offsets.append(offsets_of(sizes))
        objects, polygons, rings = offsets
        nodes = None if self.nodes is None else self.nodes[index]
        return Outlines(self.points[index], rings, polygons, objects, nodes)

    def geometries(self) -> NDArray[Any]:
        """The outlines as shapely geometries (n,): polygons, or multipolygons if there are several.

        Needs shapely.
        """
        import shapely

        points = np.asarray(self.points, np.float64)
        kind = shapely.GeometryType.MULTIPOLYGON
        found = shapely.from_ragged_array(kind, points, (self.rings, self.polygons, self.objects))
        single = np.diff(self.objects) == 1
        found[single] = shapely.get_geometry(found[single], 0)
        return np.asarray(found)

    @classmethod
    def from_geometries(cls, geometries: NDArray[Any]) -> Outlines:
        """The outlines of shapely polygons and multipolygons (n,), as float64."""
        import shapely

        several = np.array(
            [
                g if g.geom_type == "MultiPolygon" else shapely.multipolygons([g])
                for g in geometries
            ],
            object,
        )
        if not len(several):
            return cls.none("float64")
        _, points, offsets = shapely.to_ragged_array(several)
        rings, polygons, objects = (np.asarray(part, np.int64) for part in offsets)
        return cls(np.asarray(points, np.float64), rings, polygons, objects)


def joined(parts: list[Outlines]) -> Outlines:
    """The outlines of the objects of several, one after another."""
    if not parts:
        return Outlines.none()
    nodes = [part.nodes for part in parts if part.nodes is not None]
    return Outlines(
        np.concatenate([part.points for part in parts]),
        _chained([part.rings for part in parts]),
        _chained([part.polygons for part in parts]),
        _chained([part.objects for part in parts]),
        np.concatenate(nodes) if len(nodes) == len(parts) else None,
    )


def _chained(offsets: list[Offsets]) -> Offsets:
    chained, end = [np.zeros(1, np.int64)], 0
    for each in offsets:
        chained.append(each[1:] + end)
        end += int(each[-1])
    return np.concatenate(chained)
