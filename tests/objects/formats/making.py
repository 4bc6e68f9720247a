"""Tables of objects made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tilepipe.images.base import PixelSize, Transform
from tilepipe.objects.outlines import Outlines
from tilepipe.objects.table import (
    Column,
    ImagePlace,
    ObjectBatch,
    ObjectsInfo,
    ObjectTable,
    TableWriter,
    open_table,
)
from tilepipe.products.base import MaskClass, MaskSpec

HEIGHT, WIDTH = 400, 600

CLASSES = (
    MaskClass("background", "#000000"),
    MaskClass('nucleus "A", <b>', "#e6194b"),
    MaskClass("Zellkern µ 核", "#3cb44b"),
    MaskClass("=bell\x07\n", "#4363d8"),
)

COLUMNS = (
    Column("number", "uint32", title="Number"),
    Column("class", "uint8", title="Class"),
    Column("centroid_x", "float64", "px", "Centroid X"),
    Column("centroid_y", "float64", "px", "Centroid Y"),
    Column("left", "int32", "px"),
    Column("top", "int32", "px"),
    Column("right", "int32", "px"),
    Column("bottom", "int32", "px"),
    Column("area", "float64", "um2", "Area"),
    Column("major_axis", "float32", "um", "Major axis"),
    Column("mean_probability", "float32", title="Mean probability"),
    Column("mean_Red", "float32", title="Mean Red"),
    Column("mean_red", "float32", title="Mean red"),
    Column("fid", "int16", title="Band fid"),
    Column("geometry", "float32", title='Band "geometry"'),
)


def box(left: int, top: int, right: int, bottom: int) -> Any:
    return shapely.box(left, top, right, bottom)


def shapes() -> list[Any]:
    """A ring, two squares that touch at a corner, and one that touches the ring."""
    ring = shapely.Polygon(
        [(10, 10), (10, 40), (50, 40), (50, 10)], [[(20, 20), (30, 20), (30, 30), (20, 30)]]
    )
    corner = shapely.MultiPolygon([box(100, 100, 110, 110), box(110, 110, 125, 130)])
    return [ring, box(50, 10, 60, 30), corner]


UTM = "EPSG:32633"
ROTATED: Transform = (8.0, 6.0, 500_000.0, 6.0, -8.0, 5_500_000.0)
NORTH_UP: Transform = (10.0, 0.0, 300_000.0, 0.0, -10.0, 5_600_000.0)
DEGREES: Transform = (0.001, 0.0, 13.0, 0.0, -0.001, 48.0)


def wkt(crs: str) -> str:
    from pyproj import CRS

    return str(CRS.from_user_input(crs).to_wkt())


def mask_of(**changes: Any) -> MaskSpec:
    place: dict[str, Any] = {"pixel_size": PixelSize(0.5, 0.5, "micrometer"), **changes}
    return MaskSpec(HEIGHT, WIDTH, "labels", CLASSES, background=0, **place)


def on_map(crs: str = UTM, transform: Transform = NORTH_UP) -> MaskSpec:
    unit = "degree" if abs(transform[0]) < 1 else "meter"
    size = PixelSize(abs(transform[4]), abs(transform[0]), unit)
    return mask_of(crs=wkt(crs), transform=transform, pixel_size=size)


def make_table(
    path: Path,
    mask: MaskSpec | None = None,
    geometries: list[Any] | None = None,
    image: ImagePlace | None = None,
    *,
    outlines: bool = True,
    columns: tuple[Column, ...] = COLUMNS,
    **details: Any,
) -> ObjectTable:
    """A table whose objects have these outlines, classes 1, 2, 3, 1 ... and made-up values."""
    found = shapes() if geometries is None else geometries
    writer = TableWriter(path, columns, outlines=outlines)
    if found:
        writer.append(batch_of(found, columns))
    details.setdefault("model", {"name": "tiny", "fingerprint": "ab" * 32})
    mask = mask_of() if mask is None else mask
    writer.finish(ObjectsInfo(mask, columns, len(found), image, outlines=outlines, **details))
    return open_table(path)


def batch_of(geometries: list[Any], columns: tuple[Column, ...] = COLUMNS) -> ObjectBatch:
    count = len(geometries)
    whole = np.array(geometries, object)
    centroids = shapely.get_coordinates(shapely.centroid(whole))
    numbers = np.arange(1, count + 1)
    known: dict[str, NDArray[Any]] = {
        "number": numbers,
        "class": (numbers - 1) % 3 + 1,
        "centroid_x": centroids[:, 0],
        "centroid_y": centroids[:, 1],
        "area": shapely.area(whole) / 4,
        "mean_probability": np.where(numbers == 2, np.nan, 0.1),
        **dict(zip(("left", "top", "right", "bottom"), shapely.bounds(whole).T, strict=True)),
    }
    values = {
        column.name: known.get(column.name, numbers * 1.1).astype(column.dtype)
        for column in columns
    }
    outlines = Outlines.from_geometries(whole)
    # As the stages write them: whole numbers, and the first point of a ring not again at its end.
    ends = outlines.rings[1:] - 1
    points = np.delete(outlines.points, ends, axis=0).astype(np.int32)
    rings = outlines.rings - np.arange(len(outlines.rings))
    nodes = np.zeros(len(points), np.bool_)  # what meets where matters to simpler outlines only
    flat = Outlines(points, rings, outlines.polygons, outlines.objects, nodes)
    return ObjectBatch(values, flat)
