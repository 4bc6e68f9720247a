"""Layers of regions with names: annotations of QuPath, or polygons of a GIS.

Each feature is a region. What is drawn on an image is in pixels of its level 0; what is on the
Earth is brought to the CRS of the mask. So that nothing lands in a wrong place, a layer must say
which of the two it is whenever the mask does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.images.base import RasterGrid
from tilepipe.images.ground import crs_name
from tilepipe.regions.polygons import LONGITUDE_LATITUDE, load_geojson
from tilepipe.storage import local_file
from tilepipe.text import count, first_line, some

GEOJSON = (".geojson", ".json")
GDAL = (".gpkg", ".fgb", ".shp", ".kml", ".gml")
"""Suffixes of other layers, which pyogrio reads."""

NOT_REGIONS = frozenset({"detection", "cell", "tile"})
"""What QuPath exports beside annotations: the objects themselves."""

ImagePlace = tuple[float, float, float, float]
"""(left, top, x, y): where the corner of a mask lies on level 0 of its image, and the columns and
rows of level 0 that each pixel of the mask takes."""

Geometry = Any
"""Of shapely."""


@dataclass(frozen=True, slots=True)
class NamedRegion:
    """A part of a mask."""

    name: str
    """``region 3``, counted from 1, if the layer has no name for it. Names need not differ."""
    shape: Geometry
    """A valid polygon or multipolygon in pixels of the mask, from its upper left corner."""
    drawn: Geometry
    """As it is in the layer."""
    feature: dict[str, Any] = field(default_factory=dict)
    """What else a GeoJSON file says of it, as the feature that it is without its geometry."""


@dataclass(frozen=True, slots=True)
class RegionLayer:
    """The regions of a file."""

    path: str
    regions: tuple[NamedRegion, ...]
    crs: str | None
    """Of the coordinates in the file; None if they are pixels of the image's level 0."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A feature as it is in the file."""

    name: str
    geometry: Geometry
    feature: dict[str, Any] = field(default_factory=dict)


def read_layer(path: str, grid: RasterGrid, image: ImagePlace | None) -> RegionLayer:
    """Read the regions of a file, and place them on a mask.

    Lines, points, and what QuPath detected are passed over; polygons that cross themselves are
    repaired, with a warning.

    Parameters
    ----------
    path : str
        GeoJSON, as QuPath or a GIS exports it, or a layer that pyogrio reads: .gpkg, .fgb, .shp.
    grid : RasterGrid
        Of the mask.
    image : tuple of float, optional
        Where the mask lies on its image; if left out, pixels of a layer are those of the mask.

    Raises
    ------
    InputError
        If it cannot be read, holds no polygon, cannot be placed, or has nothing on the mask.
    """
    suffix = Path(path).suffix.lower()
    if suffix in GDAL:
        drawn, crs = _from_gdal(path)
    elif suffix in GEOJSON:
        drawn, crs = _from_geojson(path)
    else:
        raise InputError(
            f"{path}: is not a layer of regions; give GeoJSON, or {some(GDAL, len(GDAL))}"
        )
    if not drawn:
        raise InputError(f"{path}: holds no polygon; give a layer of areas, not of points or lines")
    warnings: list[str] = []
    on_earth = grid.crs is not None and grid.transform is not None
    if on_earth:
        crs = _require_crs(path, drawn, crs, suffix in GEOJSON)
        shapes = _on_map(path, [each.geometry for each in drawn], crs, grid)
    elif crs is not None:
        raise InputError(
            f"{path}: its coordinates are in {_short(crs)}, and the mask has no CRS; give regions "
            "in pixels of the image's level 0, as QuPath exports them"
        )
    else:
        if image is None:
            warnings.append(
                f"{path}: it is not known how the mask lies on its image, so coordinates are taken "
                "as pixels of the mask"
            )
        shapes = _on_image([each.geometry for each in drawn], image)
    regions, repaired = _valid(path, drawn, shapes)
    if repaired:
        warnings.append(
            f"{path}: {some(repaired)} crossed themselves and were repaired; look at the result, "
            "or draw them again"
        )
    warnings += _off(path, regions, grid, "pixels of level 0" if crs is None else _short(crs))
    return RegionLayer(path, regions, crs, tuple(warnings))


def _from_geojson(path: str) -> tuple[list[_Drawn], str | None]:
    import shapely

    document, crs = load_geojson(str(local_file(path, "a layer of regions")))
    drawn = []
    try:
        for number, item in enumerate(_features(document), 1):
            properties = item.get("properties") or {}
            if item["geometry"] is None or properties.get("objectType") in NOT_REGIONS:
                continue
            name = _name(properties) or f"region {number}"
            try:
                with np.errstate(invalid="ignore"):  # of NaN, which is refused next
                    geometry = shapely.geometry.shape(item["geometry"])
                _require_finite(geometry)
            except (shapely.errors.ShapelyError, ValueError, IndexError) as error:
                raise _unfit(path, name, error) from error
            rest = {key: value for key, value in item.items() if key not in ("geometry", "bbox")}
            drawn += [replace(each, feature=rest) for each in _areal(name, geometry)]
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: is JSON, but not GeoJSON; export it again") from None
    return drawn, crs


def _features(item: Any) -> Iterator[dict[str, Any]]:
    """Features, of which some have no more than a geometry."""
    if isinstance(item, list):  # as older versions of QuPath have it
        for each in item:
            yield from _features(each)
    elif item["type"] == "FeatureCollection":
        yield from _features(item["features"])
    elif item["type"] == "Feature":
        yield item
    else:
        yield {"geometry": item}


def _from_gdal(path: str) -> tuple[list[_Drawn], str | None]:
    """The features of the only layer of a file."""
    try:
        import pyogrio.raw
    except ImportError:
        raise InputError(
            f"{path}: needs pyogrio to be read; install tilepipe[vector], or export it as GeoJSON"
        ) from None
    import shapely

    file = local_file(path, "a layer of regions")
    try:
        layers = pyogrio.list_layers(file)
        names = [str(name) for name, kind in layers if kind is not None]
        if len(names) > 1:
            raise InputError(
                f"{path}: holds {count(len(names), 'layer')} ({some(names)}); give a file with one"
            )
        if not names:
            raise InputError(f"{path}: holds no layer with shapes; give one of polygons")
        meta, _, shapes, values = pyogrio.raw.read(file, layer=names[0], force_2d=True)
    except (RuntimeError, OSError) as error:  # the base of what pyogrio raises
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from error
    fields = [str(name) for name in meta["fields"]]
    drawn = []
    for number, shape in enumerate(shapes):
        if shape is None:
            continue
        row = {name: column[number] for name, column in zip(fields, values, strict=True)}
        name = _name(row) or f"region {number + 1}"
        try:
            geometry = shapely.from_wkb(shape)
            _require_finite(geometry)
        except (shapely.errors.ShapelyError, ValueError) as error:
            raise _unfit(path, name, error) from error
        drawn += _areal(name, geometry)
    return drawn, meta["crs"]


def _name(properties: dict[str, Any]) -> str:
    """What QuPath or a GIS calls a feature: its name, its class, or its number."""
    known = {key.lower(): value for key, value in properties.items()}
    classification = known.get("classification")
    if isinstance(classification, dict):
        known["classification"] = classification.get("name")
    for key in ("name", "classification", "id"):
        value = known.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            return str(value)
    return ""


def _require_finite(geometry: Geometry) -> None:
    import shapely

    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise ValueError("it has corners that are not numbers")


def _unfit(path: str, name: str, error: Exception) -> InputError:
    return InputError(f"{path}: {name!r} is not a polygon ({first_line(error)}); repair it")


def _areal(name: str, geometry: Geometry) -> list[_Drawn]:
    """The feature, if it has polygons; none of a point or a line."""
    import shapely

    found = _polygons(shapely.force_2d(geometry))
    return [] if found is None else [_Drawn(name, found)]


def _polygons(geometry: Geometry) -> Geometry | None:
    """The polygons of any geometry as one; None if there are none."""
    import shapely

    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return None if geometry.is_empty else geometry
    if geometry.geom_type != "GeometryCollection":
        return None
    parts = [part for each in geometry.geoms if (part := _polygons(each)) is not None]
    return shapely.union_all(shapely.make_valid(np.array(parts))) if parts else None


def _require_crs(path: str, drawn: Iterable[_Drawn], crs: str | None, geojson: bool) -> str:
    """The CRS of a layer for a mask that has one."""
    import shapely

    if crs is not None:
        return crs
    if not geojson:
        raise InputError(
            f"{path}: does not say what CRS it is in, and the mask has one; assign it in the GIS "
            "that made it"
        )
    left, bottom, right, top = shapely.total_bounds([each.geometry for each in drawn])
    if max(abs(left), abs(right)) > 180 or max(abs(bottom), abs(top)) > 90:
        raise InputError(
            f"{path}: names no CRS, and its coordinates are not longitude and latitude, which they "
            "then must be for a georeferenced mask; export it with its CRS"
        )
    return LONGITUDE_LATITUDE


def _on_map(path: str, shapes: list[Geometry], crs: str, grid: RasterGrid) -> list[Geometry]:
    """Bring shapes to pixels of a georeferenced mask."""
    import shapely
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError
    from rasterio import Affine

    assert grid.transform is not None, "as it is georeferenced"
    try:
        source, target = CRS.from_user_input(crs), CRS.from_user_input(grid.crs)
        transformer = Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        raise InputError(
            f"{path}: its CRS, {_short(crs)}, cannot be brought to that of the mask "
            f"({first_line(error)})"
        ) from error
    a, b, c, d, e, f = tuple(~Affine(*grid.transform))[:6]

    def to_pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = points.T if source == target else transformer.transform(*points.T)
        return np.stack((a * x + b * y + c, d * x + e * y + f), -1)

    placed = list(shapely.transform(np.array(shapes), to_pixels))
    if not np.isfinite(shapely.get_coordinates(placed)).all():
        raise InputError(
            f"{path}: some of its corners have no place in the CRS of the mask; cut the layer to "
            "the area of the mask"
        )
    return placed


def _on_image(shapes: list[Geometry], image: ImagePlace | None) -> list[Geometry]:
    """Bring shapes from pixels of an image to those of a mask."""
    import shapely

    if image is None:
        return shapes
    corner, scale = np.array(image[:2]), np.array(image[2:])
    return list(shapely.transform(np.array(shapes), lambda points: (points - corner) / scale))


def _valid(
    path: str, drawn: list[_Drawn], shapes: list[Geometry]
) -> tuple[tuple[NamedRegion, ...], list[str]]:
    """The regions, and the names of those that had to be repaired."""
    import shapely

    regions, repaired = [], []
    for each, shape in zip(drawn, shapes, strict=True):
        if not shapely.is_valid(shape):
            repaired.append(repr(each.name))
            shape = _polygons(shapely.make_valid(shape))
            if shape is None:
                raise InputError(f"{path}: {each.name!r} has no area; draw it again")
        regions.append(NamedRegion(each.name, shape, each.geometry, each.feature))
    return tuple(regions), repaired


def _off(
    path: str, regions: tuple[NamedRegion, ...], grid: RasterGrid, read_as: str
) -> Iterator[str]:
    """A warning that names regions beside the mask; InputError if all are."""
    import shapely

    mask = shapely.box(0, 0, grid.width, grid.height)
    beside = [
        repr(region.name)
        for region in regions
        if shapely.area(shapely.intersection(region.shape, mask)) == 0
    ]
    if len(beside) == len(regions):
        raise InputError(
            f"{path}: no region lies on the mask, its coordinates being read as {read_as}; give "
            "the regions of this image"
        )
    if beside:
        yield f"{path}: {some(beside)} do not lie on the mask, and have no objects"


def _short(crs: str) -> str:
    """The name of a CRS for messages."""
    return "longitude and latitude" if crs == LONGITUDE_LATITUDE else crs_name(crs)
