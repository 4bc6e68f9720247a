"""A region from GeoJSON: from QuPath in pixels of level 0, or from a GIS in coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.errors import InputError
from tilepipe.images import Image
from tilepipe.regions.cells import Bools, CellGrid
from tilepipe.schema import load_json
from tilepipe.storage import require_ordinary

LONGITUDE_LATITUDE = "OGC:CRS84"
"""CRS of GeoJSON that names none (RFC 7946)."""

OTHER_FORMATS = {".shp", ".gpkg", ".kml", ".kmz", ".fgb", ".gml", ".gdb", ".geojsonl", ".parquet"}
"""Suffixes of other vector formats, which have to be converted to GeoJSON."""

Polygon = list[Any]
"""Rings of (x, y): the outer one, then holes."""


def looks_like_polygons(path: str) -> bool:
    """Tell whether a file is GeoJSON, by its first character.

    Raises
    ------
    InputError
        Where it is missing, or holds polygons in another format.
    """
    if Path(path).suffix.lower() in OTHER_FORMATS:
        raise InputError(
            f"{path}: polygons are read as GeoJSON; convert it first, for example with "
            f"ogr2ogr -f GeoJSON {Path(path).with_suffix('.geojson').name} {Path(path).name}"
        )
    require_ordinary(Path(path))
    if Path(path).is_dir():
        return False
    try:
        with Path(path).open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path of the tissue mask") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def cells_of_polygons(path: str, image: Image, grid: CellGrid) -> Bools:
    """Find the cells that polygons touch.

    Coordinates are (x, y) pixels of level 0, from its upper left corner, where the image has no
    CRS. Where it has one, they are in the ``crs`` that the file names, or else longitude and
    latitude. Lines and points are passed over.

    Raises
    ------
    InputError
        Where it is not GeoJSON, its coordinates cannot be placed, or no polygon touches the image.
    """
    from rasterio import Affine
    from rasterio.features import rasterize

    polygons, crs = _read(path)
    if not polygons:
        raise InputError(f"{path}: holds no polygon; lines and points have no inside")
    to_pixels = None
    if image.crs is not None and image.transform is not None:
        polygons = _in_crs(path, polygons, crs, image.crs)
        to_pixels = ~Affine(*image.transform)
    elif crs is not None:
        raise InputError(
            f"{path}: its coordinates are in {crs}, and {image.path} has no CRS; give polygons in "
            "pixels of level 0, as QuPath exports them"
        )
    shapes = [
        {"type": "Polygon", "coordinates": [_ring(path, ring, to_pixels) for ring in polygon]}
        for polygon in polygons
    ]
    cells = rasterize(
        shapes,
        out_shape=grid.shape,
        transform=Affine.scale(grid.sides[1], grid.sides[0]),
        all_touched=True,
        dtype="uint8",
    )
    if not cells.any():
        read_as = "longitude and latitude" if crs is None else crs
        if to_pixels is None:
            read_as = "pixels of level 0"
        raise InputError(
            f"{path}: no polygon touches {image.path}, its coordinates being read as {read_as}; "
            "give the polygons of this image"
        )
    return np.asarray(cells, np.bool_)


def load_geojson(path: str) -> tuple[Any, str | None]:
    """Read a GeoJSON document, whose items are unchecked, and the CRS that it names.

    Raises
    ------
    InputError
        Where it cannot be read, or is not JSON.
    """
    try:
        document = load_json(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not GeoJSON ({error}); export it again") from error
    crs = None
    if isinstance(document, dict) and document.get("crs"):
        try:
            crs = str(document["crs"]["properties"]["name"])
        except (KeyError, TypeError):
            raise InputError(f"{path}: its crs has no name; export it again") from None
    return document, crs


def _read(path: str) -> tuple[list[Polygon], str | None]:
    """Read all polygons of a file, and the CRS that it names."""
    document, crs = load_geojson(path)
    try:
        return list(_polygons(document)), crs
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: is JSON, but not GeoJSON; export it again") from None


def _polygons(item: Any) -> Iterator[Polygon]:
    if isinstance(item, list):  # as older versions of QuPath have it
        for each in item:
            yield from _polygons(each)
        return
    kind = item["type"]
    if kind == "FeatureCollection":
        yield from _polygons(item["features"])
    elif kind == "GeometryCollection":
        yield from _polygons(item["geometries"])
    elif kind == "Feature":
        if item["geometry"] is not None:
            yield from _polygons(item["geometry"])
    elif kind == "Polygon":
        if item["coordinates"]:
            yield item["coordinates"]
    elif kind == "MultiPolygon":
        yield from (polygon for polygon in item["coordinates"] if polygon)


def _in_crs(path: str, polygons: list[Polygon], crs: str | None, wanted: str) -> list[Polygon]:
    """Transform polygons to the CRS of the image."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.warp import transform_geom

    if crs is None and not all(_on_earth(ring) for polygon in polygons for ring in polygon):
        raise InputError(
            f"{path}: names no CRS, and its coordinates are not longitude and latitude, which they "
            "then must be for a georeferenced image; export it with its CRS"
        )
    try:
        source = CRS.from_user_input(crs or LONGITUDE_LATITUDE)
        target = CRS.from_user_input(wanted)
    except CRSError as error:
        raise InputError(f"{path}: its CRS, {crs}, is not known ({error})") from error
    if source == target:
        return polygons
    try:
        moved = transform_geom(
            source, target, [{"type": "Polygon", "coordinates": rings} for rings in polygons]
        )
    except Exception as error:  # what rasterio and GDAL raise has no common base
        raise InputError(
            f"{path}: cannot be brought from {crs or 'longitude and latitude'} to the CRS of the "
            f"image ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error
    return [polygon["coordinates"] for polygon in moved]


def _on_earth(ring: Any) -> bool:
    try:
        x, y = np.asarray([point[:2] for point in ring], np.float64).T
    except (TypeError, ValueError, IndexError):
        return True  # said where rings are read
    return bool((np.abs(x) <= 180).all() and (np.abs(y) <= 90).all())


def _ring(path: str, ring: Any, to_pixels: Any) -> list[tuple[float, float]]:
    """The corners of a ring in pixels."""
    try:
        x, y = np.asarray([point[:2] for point in ring], np.float64).T
    except (TypeError, ValueError, IndexError):
        raise InputError(f"{path}: holds a polygon without (x, y) corners; repair it") from None
    if len(x) < 4:
        raise InputError(
            f"{path}: holds a polygon of {len(x)} corners; it takes 4, the last being the first"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(f"{path}: holds a polygon with corners that are not numbers; repair it")
    if to_pixels is not None:
        a, b, c, d, e, f = tuple(to_pixels)[:6]
        x, y = a * x + b * y + c, d * x + e * y + f
    return list(zip(x.tolist(), y.tolist(), strict=True))
