"""Polygons in files: GeoJSON of QuPath or a GIS, and the layers that GDAL reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.errors import InputError
from tilepipe.schema import load_json
from tilepipe.storage import local_file
from tilepipe.text import count, first_line, some

GDAL = (".gpkg", ".fgb", ".shp", ".kml", ".gml")
"""Suffixes of layers that pyogrio reads; every other file is taken for GeoJSON."""

LONGITUDE_LATITUDE = "OGC:CRS84"
"""CRS of GeoJSON that names none (RFC 7946)."""

Geometry = Any
"""Of shapely."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that has an area."""

    name: str
    """``region 3``, counted from 1, if the file has no name for it. Names need not differ."""
    geometry: Geometry
    """A polygon or multipolygon, as it is in the file; it may cross itself."""
    properties: dict[str, Any] = field(default_factory=dict)
    """What a GeoJSON file says of it."""
    id: Any = None
    """Of a GeoJSON feature, if it has one."""


@dataclass(frozen=True, slots=True)
class Features:
    """The features of a file."""

    path: str
    each: tuple[Feature, ...]
    crs: str | None
    """The CRS that the file names."""
    is_geojson: bool
    """Whether its coordinates are longitude and latitude if it names no CRS, or else pixels."""


def read_features(path: str) -> Features:
    """Read the polygons of a file; lines and points, which have no inside, are passed over.

    Raises
    ------
    InputError
        If it cannot be read, or a feature is damaged.
    """
    file = local_file(path, "a layer of polygons")
    is_geojson = file.suffix.lower() not in GDAL
    features, crs = _from_geojson(path, file) if is_geojson else _from_gdal(path, file)
    return Features(path, tuple(features), crs, is_geojson)


def polygons_of(geometry: Geometry) -> Geometry | None:
    """The polygons of any geometry as one; None if there are none."""
    import shapely

    if geometry.is_empty:
        return None
    if geometry.geom_type == "Polygon":
        return geometry
    if geometry.geom_type == "MultiPolygon":
        return shapely.multipolygons([part for part in geometry.geoms if not part.is_empty])
    if geometry.geom_type != "GeometryCollection":
        return None
    parts = [part for each in geometry.geoms if (part := polygons_of(each)) is not None]
    return shapely.union_all(shapely.make_valid(np.array(parts))) if parts else None


def _from_geojson(path: str, file: Path) -> tuple[list[Feature], str | None]:
    import shapely

    try:
        document = load_json(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not GeoJSON ({error}); export it again") from error
    features = []
    try:
        for number, item in enumerate(_items(document), 1):
            if item["geometry"] is None:
                continue
            properties = item.get("properties") or {}
            name = _name(properties) or f"region {number}"
            try:
                shape = json.dumps(item["geometry"], allow_nan=False)
                geometry = _checked(shapely.from_geojson(shape))
            except (shapely.errors.ShapelyError, ValueError) as error:
                raise _unfit(path, name, error) from error
            if geometry is not None:
                features.append(Feature(name, geometry, properties, item.get("id")))
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: is JSON, but not GeoJSON; export it again") from None
    return features, _named_crs(path, document)


def _named_crs(path: str, document: Any) -> str | None:
    if not isinstance(document, dict) or not document.get("crs"):
        return None
    try:
        return str(document["crs"]["properties"]["name"])
    except (KeyError, TypeError):
        raise InputError(f"{path}: its crs has no name; export it again") from None


def _items(item: Any) -> Iterator[dict[str, Any]]:
    """Features, of which some have no more than a geometry."""
    if isinstance(item, list):  # as older versions of QuPath have it
        for each in item:
            yield from _items(each)
    elif item["type"] == "FeatureCollection":
        yield from _items(item["features"])
    elif item["type"] == "Feature":
        yield item
    else:
        yield {"geometry": item}


def _from_gdal(path: str, file: Path) -> tuple[list[Feature], str | None]:
    """The features of the only layer of a file."""
    try:
        import pyogrio.raw
    except ImportError:
        raise InputError(
            f"{path}: needs pyogrio to be read; install tilepipe[vector], or export it as GeoJSON"
        ) from None
    import shapely

    try:
        names = [str(name) for name, kind in pyogrio.list_layers(file) if kind is not None]
        if len(names) != 1:
            layers = f"{count(len(names), 'layer')} of shapes ({some(names) or 'none'})"
            raise InputError(f"{path}: holds {layers}; give a file with one")
        meta, _, shapes, values = pyogrio.raw.read(file, layer=names[0], force_2d=True)
    except (RuntimeError, OSError) as error:  # the base of what pyogrio raises
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from error
    fields = [str(name) for name in meta["fields"]]
    features = []
    for number, shape in enumerate(shapes):
        if shape is None:
            continue
        row = {name: column[number] for name, column in zip(fields, values, strict=True)}
        name = _name(row) or f"region {number + 1}"
        try:
            geometry = _checked(shapely.from_wkb(shape))
        except (shapely.errors.ShapelyError, ValueError) as error:
            raise _unfit(path, name, error) from error
        if geometry is not None:
            features.append(Feature(name, geometry))
    return features, meta["crs"]


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


def _checked(geometry: Geometry) -> Geometry | None:
    """The polygons of a geometry in two dimensions; ValueError for corners that are no numbers."""
    import shapely

    flat = shapely.force_2d(geometry)
    if not np.isfinite(shapely.get_coordinates(flat)).all():
        raise ValueError("it has corners that are not numbers")
    return polygons_of(flat)


def _unfit(path: str, name: str, error: Exception) -> InputError:
    return InputError(f"{path}: {name!r} is not a polygon ({first_line(error)}); repair it")
