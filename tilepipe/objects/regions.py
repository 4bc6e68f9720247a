"""Objects by region: how many lie in each, by the regions' answered area.

An object lies in the region that holds its centroid, wholly, so that regions that share a border
count each object once; regions that overlap both count what lies in both. A pixel lies in a region
that holds its centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.objects.areas import (
    SHOWN,
    Area,
    AreaUnit,
    Bools,
    PixelArea,
    area_within,
    require_its_mask,
)
from tilepipe.objects.summary import ALL, Figures, object_classes, short
from tilepipe.objects.table import ObjectsInfo, ObjectTable
from tilepipe.products.base import Mask
from tilepipe.regions.layers import NamedRegion, RegionLayer, read_layer
from tilepipe.text import count, one_line

ASIDE = 2.0**-20, 2.0**-21
"""How far right of and below its centroid an object is looked for, in pixels: so that it lies in
exactly one of two regions whose border its centroid is on."""


@dataclass(frozen=True, slots=True)
class RegionFigures:
    """The objects of a region."""

    region: NamedRegion
    answered: Area
    """The part of it that has an answer."""
    classes: tuple[Figures, ...]
    """Of each class that objects may have."""
    total: Figures
    """Of all objects."""

    @property
    def rows(self) -> tuple[Figures, ...]:
        """The figures of the classes, and of all objects if there are several classes."""
        return self.classes if len(self.classes) == 1 else (*self.classes, self.total)

    def to_json(self) -> dict[str, Any]:
        """As JSON values, without the shape."""
        return {
            "name": self.region.name,
            "answered": asdict(self.answered),
            "classes": [_plain(figures) for figures in self.classes],
            "all": _plain(self.total),
        }


@dataclass(frozen=True, slots=True)
class RegionsSummary:
    """The objects of each region of a layer."""

    layer: RegionLayer
    unit: AreaUnit
    regions: tuple[RegionFigures, ...]
    """In the order of the layer."""
    outside: int
    """Objects in no region."""
    partial: str = ""
    """Why objects may be missing; empty if none are."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "units": {"area": self.unit.large, "density": f"per {self.unit.large}"},
            "regions": [figures.to_json() for figures in self.regions],
            "outside": self.outside,
            "partial": self.partial,
        }


def layer_for(path: str, info: ObjectsInfo) -> RegionLayer:
    """Read the regions of a file, and place them on the mask of a table; see `read_layer`."""
    image = info.image
    place = None if image is None else (image.left, image.top, image.scale_x, image.scale_y)
    return read_layer(path, info.mask.grid, place)


def summarise_regions(table: ObjectTable, mask: Mask, layer: RegionLayer) -> RegionsSummary:
    """Count the objects in each region, and measure its answered area.

    The table is read once, in parts, and the pixels of the mask once for each region that reaches
    them.

    Parameters
    ----------
    table : ObjectTable
        The objects, with their centroids.
    mask : Mask
        Theirs, opened.
    layer : RegionLayer
        The regions, placed on the mask (`layer_for`).

    Raises
    ------
    InputError
        If the table has no centroids, or the mask is another one.
    """
    info = table.info
    require_its_mask(mask, info.mask)
    pixel = PixelArea(info.mask)
    counts, areas, outside = _counted(table, [each.shape for each in layer.regions])
    shown = sorted({*object_classes(info), *np.flatnonzero(counts.sum(0)).tolist()})
    unit = next((column.unit for column in info.columns if column.name == "area"), None)

    def figures(name: str, number: Any, area: Any, answered: Area) -> Figures:
        size = None if unit is None else float(area) * pixel.converted(unit)
        return Figures.of(name, int(number), size, answered)

    found = []
    for number, region in enumerate(layer.regions):
        answered = answered_within(mask, pixel, region.shape)
        classes = tuple(
            figures(info.mask.classes[n].name, counts[number, n], areas[number, n], answered)
            for n in shown
        )
        total = figures(ALL, counts[number].sum(), areas[number].sum(), answered)
        found.append(RegionFigures(region, answered, classes, total))
    return RegionsSummary(layer, pixel.unit, tuple(found), outside, info.partial)


def answered_within(mask: Mask, pixel: PixelArea, shape: Any) -> Area:
    """The answered area of a region, a valid shapely polygon in pixels of the mask."""
    import shapely

    left, top, right, bottom = shapely.bounds(shape)
    y, x = max(0, int(np.floor(top))), max(0, int(np.floor(left)))
    stop_y = min(mask.shape[0], int(np.ceil(bottom)))
    stop_x = min(mask.shape[1], int(np.ceil(right)))
    if stop_y <= y or stop_x <= x:
        return Area(0, 0.0)
    window = Window(y, x, stop_y - y, stop_x - x)
    return area_within(mask, pixel, window, Rasterised(shape))


class Rasterised:
    """Tells which pixels of a window have their centre in a shape.

    Parameters
    ----------
    shape : shapely geometry
        A valid polygon or multipolygon in pixels.
    """

    def __init__(self, shape: Any) -> None:
        import shapely

        self._shape = shape
        shapely.prepare(shape)

    def __call__(self, window: Window) -> Bools:
        """The pixels inside, shape (H, W)."""
        import shapely
        from rasterio import Affine
        from rasterio.features import rasterize

        # With a rim, as cutting makes new corners, which must not decide on a pixel.
        rim = window.pad(2)
        frame = shapely.box(rim.x, rim.y, rim.stop_x, rim.stop_y)
        if shapely.contains(self._shape, frame):
            return np.ones(window.shape, np.bool_)
        if not shapely.intersects(self._shape, frame):
            return np.zeros(window.shape, np.bool_)
        inside = shapely.intersection(self._shape, frame)
        parts = [
            part for part in shapely.get_parts(inside, return_index=False)
            if part.geom_type == "Polygon" and not part.is_empty
        ]  # fmt: skip
        if not parts:
            return np.zeros(window.shape, np.bool_)
        pixels = rasterize(
            [shapely.multipolygons(parts)],
            out_shape=window.shape,
            transform=Affine.translation(window.x, window.y),
            dtype="uint8",
        )
        return np.asarray(pixels, np.bool_)


def show_regions(summary: RegionsSummary, most: int = 20) -> str:
    """The first regions for a person, a line for each, with all of their objects."""
    unit = SHOWN[summary.unit.large]
    lines = []
    for found in summary.regions[:most]:
        line = f"{one_line(found.region.name):24} {count(found.total.count, 'object'):>16}"
        if found.total.density is None:
            lines.append(f"{line}, and no pixel with an answer")
        else:
            area = f"{short(found.answered.size)} {unit}"
            lines.append(f"{line}, {short(found.total.density)} per {unit}, in {area}")
    if len(summary.regions) > most:
        lines.append(f"and {count(len(summary.regions) - most, 'more region')}")
    if summary.outside:
        lines.append(f"{'(in no region)':24} {count(summary.outside, 'object'):>16}")
    return "\n".join(lines)


def _counted(
    table: ObjectTable, shapes: Sequence[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """The number and the area of objects by region and class, (n, C), and how many are in none."""
    import shapely

    tree = shapely.STRtree(shapes)
    shapely.prepare(np.array(shapes, object))
    classes = len(table.info.mask.classes)
    counts = np.zeros(len(shapes) * classes, np.int64)
    areas, outside = np.zeros(len(counts)), 0
    known = {column.name for column in table.info.columns}
    if not {"centroid_x", "centroid_y"} <= known:
        raise InputError(
            f"{table.path}: has no centroids, by which objects lie in regions; make it again"
        )
    names = ("class", "centroid_x", "centroid_y", *({"area"} & known))
    for part in table.chunks(names):
        x = part["centroid_x"].astype(np.float64) + ASIDE[0]
        y = part["centroid_y"].astype(np.float64) + ASIDE[1]
        objects, regions = _within(tree, shapes, x, y)
        cells = regions * classes + part["class"][objects]
        counts += np.bincount(cells, minlength=len(counts))
        if "area" in known:
            weights = part["area"][objects].astype(np.float64)
            # One after another in the table's order, so that the sums are the same everywhere.
            areas += np.bincount(cells, weights, minlength=len(counts))
        outside += len(x) - len(np.unique(objects))
    shape = len(shapes), classes
    return counts.reshape(shape), areas.reshape(shape), outside


def _within(
    tree: Any, shapes: Sequence[Any], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of a point and a region that holds it, by the region and then the point."""
    import shapely

    points, regions = tree.query(shapely.points(x, y))
    order = np.lexsort((points, regions))
    points, regions = points[order], regions[order]
    numbers, starts = np.unique(regions, return_index=True)
    inside = [
        shapely.contains_xy(shapes[number], x[some], y[some])
        for number, some in zip(numbers, np.split(points, starts[1:]), strict=True)
    ] if len(numbers) else []  # fmt: skip
    held = np.concatenate([np.zeros(0, np.bool_), *inside])
    return points[held], regions[held]


def _plain(figures: Figures) -> dict[str, Any]:
    """The figures of a region, which have no medians and no tissue, as JSON values."""
    document = asdict(figures)
    del document["typical"], document["tissue_density"]
    return document
