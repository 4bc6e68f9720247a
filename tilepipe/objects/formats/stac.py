"""A STAC item beside a georeferenced result: where it is, what made it, and its files.

STAC 1.1.0 with the extensions for projections (2.0.0) and machine-learning models (MLM 1.4.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.images.base import RasterGrid
from tilepipe.models.specs import Model
from tilepipe.objects.formats.crs import projjson
from tilepipe.objects.formats.longitudes import LongitudesLatitudes
from tilepipe.objects.formats.registry import STAC_ITEM
from tilepipe.objects.outlines import Outlines
from tilepipe.storage import StoragePath, is_url, name_from, write_whole
from tilepipe.text import one_line

_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"

UNKNOWN_DATE = ("1900-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
"""The range of items without a date: STAC demands a date or a range, and MLM's items have this."""

_MEDIA_TYPES = (
    (".ome.tif", "image/tiff"),
    (".ome.tiff", "image/tiff"),
    (".tif", "image/tiff; application=geotiff; profile=cloud-optimized"),
    (".tiff", "image/tiff; application=geotiff; profile=cloud-optimized"),
    (".zarr", "application/vnd.zarr; version=3"),
    (".geojson", "application/geo+json"),
    (".geojson.gz", "application/gzip"),
    (".gpkg", "application/geopackage+sqlite3"),
    (".fgb", "application/vnd.flatgeobuf"),
    (".parquet", "application/vnd.apache.parquet"),
    (".csv", "text/csv"),
    (".csv.gz", "application/gzip"),
    (".png", "image/png"),
)
"""The first suffix that matches counts."""

_PICTURES = (".png",)

_ARTIFACTS = {
    ".safetensors": "safetensors.torch.save_file",
    ".onnx": "onnx.save",
    ".pt2": "torch.export.save",
}
"""What MLM calls the kinds of model files, by their suffixes."""

EDGE_POINTS = 16
"""Pieces of each side of the footprint, as straight sides are bent in longitude and latitude."""


def write_stac_item(
    outputs: Iterable[StoragePath],
    grid: RasterGrid,
    model: Model,
    path: StoragePath,
    *,
    date: str | None = None,
    model_href: str | None = None,
) -> None:
    """Write a STAC item of the outputs of a run.

    Parameters
    ----------
    outputs
        Files and folders, which become assets; named relative to the item where they lie beside it.
    grid
        Of the mask. It must have a CRS and a transform.
    model
        What made them.
    path
        ``NAME.stac.json``; NAME becomes the id.
    date
        When the image was taken (ISO 8601, in UTC), as its metadata say. If it is not known,
        ``datetime`` is null and the range is `UNKNOWN_DATE`.
    model_href
        Where the model can be had. By default a name made of its fingerprint.

    Raises
    ------
    InputError
        Where the grid is not on the Earth, or its CRS has no longitude and latitude.
    """
    if grid.crs is None or grid.transform is None:
        raise InputError(
            f"{path}: a STAC item says where on the Earth an image is, and this one has no CRS and "
            "transform; leave the item out"
        )
    geometry, box = _footprint(grid, str(path))
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_PROJECTION, _MLM],
        "id": path.name.removesuffix(STAC_ITEM),
        "geometry": geometry,
        "bbox": box,
        "properties": {**_date(date), **_projection(grid), **_mlm(model)},
        "links": [],
        "assets": {**_assets(outputs, path), "model": _model_asset(model, model_href)},
    }
    write_whole(path, json.dumps(item, indent=2, ensure_ascii=False) + "\n")


def acquisition_date(path: str | Path) -> str | None:
    """When an image was taken, as its metadata say; None where they do not.

    The date of the file (``TIFFTAG_DATETIME``) does not count: it is that of some processing.
    """
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as image:
            found = {**image.tags(), **image.tags(ns="IMAGERY")}
    except RasterioError:
        return None
    for key in ("ACQUISITIONDATETIME", "DATATAKE_1_DATATAKE_SENSING_START", "ACQUISITION_DATE"):
        date = _as_utc(found.get(key, ""))
        if date is not None:
            return date
    return None


def _as_utc(text: str) -> str | None:
    from datetime import UTC, datetime

    try:
        date = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    known = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return known.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _date(date: str | None) -> dict[str, Any]:
    if date is not None:
        known = _as_utc(date)
        if known is None:
            raise InputError(f"the date {date!r} is not one; write it as 2024-05-31T10:20:30Z")
        return {"datetime": known}
    return {
        "description": "The date of the image is not known; the range is that of all dates.",
        "datetime": None,
        "start_datetime": UNKNOWN_DATE[0],
        "end_datetime": UNKNOWN_DATE[1],
    }


def _footprint(grid: RasterGrid, what: str) -> tuple[dict[str, Any], list[float]]:
    """The outline of a grid and its box, in longitude and latitude."""
    assert grid.crs is not None, "asked by the caller"
    assert grid.transform is not None, "asked by the caller"
    corners = [(0, 0), (0, grid.height), (grid.width, grid.height), (grid.width, 0), (0, 0)]
    ends = np.array(corners, np.float64)
    steps = np.linspace(0, 1, EDGE_POINTS, endpoint=False)[:, None]
    sides = [a + (b - a) * steps for a, b in pairwise(ends)]
    points = np.concatenate([*sides, ends[:1]])
    one = np.array([0, 1])
    outline = Outlines(points, np.array([0, len(points)]), one, one)
    earth = LongitudesLatitudes(grid.crs, grid.transform, grid.pixel_size)
    geometry = next(earth.geometries(outline, what))
    polygons = geometry["coordinates"]
    polygons = [polygons] if geometry["type"] == "Polygon" else polygons
    return geometry, _box([np.array(polygon[0], np.float64) for polygon in polygons])


def _box(rings: Sequence[NDArray[np.float64]]) -> list[float]:
    """West, south, east, north; west is greater than east where 180 degrees lie between."""
    south = min(float(ring[:, 1].min()) for ring in rings)
    north = max(float(ring[:, 1].max()) for ring in rings)
    spans = [(float(ring[:, 0].min()), float(ring[:, 0].max())) for ring in rings]
    west, east = min(span[0] for span in spans), max(span[1] for span in spans)
    if len(rings) > 1 and (west, east) == (-180, 180):
        west = min(span[0] for span in spans if span[0] > -180)
        east = max(span[1] for span in spans if span[1] < 180)
    return [west, south, east, north]


def _projection(grid: RasterGrid) -> dict[str, Any]:
    from pyproj import CRS

    assert grid.crs is not None, "asked by the caller"
    assert grid.transform is not None, "asked by the caller"
    authority = CRS.from_wkt(grid.crs).to_authority()
    found: dict[str, Any] = {"proj:code": ":".join(authority) if authority else None}
    if authority is None:
        found["proj:projjson"] = projjson(grid.crs)
    return {
        **found,
        "proj:shape": [grid.height, grid.width],
        "proj:transform": [*grid.transform, 0, 0, 1],
    }


def _mlm(model: Model) -> dict[str, Any]:
    kind = model.arguments.kind
    linear = model.output.activation == "linear"
    tasks = ["regression" if linear else "semantic-segmentation"]
    side, outputs = model.geometry, model.arguments.outputs
    order = ["batch", "channel", "height", "width"]
    result = {
        "shape": [-1, outputs, side.output, side.output],
        "dim_order": order,
        "data_type": "float32",
    }
    classes = [] if linear else [_class(i, c) for i, c in enumerate(model.output.classes)]
    output = {"name": "logits", "tasks": tasks, "result": result, "classification:classes": classes}
    return {
        "mlm:name": one_line(model.name),
        "mlm:architecture": "U-Net" if kind == "unet" else kind,
        "mlm:tasks": tasks,
        "mlm:framework": "ONNX" if kind == "onnx" else "PyTorch",
        "mlm:input": [_input(model, order)],
        "mlm:output": [output],
    }


def _input(model: Model, order: list[str]) -> dict[str, Any]:
    """What the network takes; as MLM has no scale before mean and deviation, those are scaled."""
    spec, side = model.input, model.geometry.input
    names = ", ".join(map(one_line, spec.band_names))
    scaling = [
        {"type": "z-score", "mean": mean / spec.scale, "stddev": std / spec.scale}
        for mean, std in zip(spec.mean, spec.std, strict=True)
    ]
    return {
        "name": "image",
        "description": f"Bands: {names}." if names else f"{spec.bands} bands of {spec.dtype}.",
        "bands": [],
        "input": {
            "shape": [-1, spec.bands, side, side],
            "dim_order": order,
            "data_type": "float32",
        },
        "value_scaling": scaling,
    }


def _class(value: int, spec: Any) -> dict[str, Any]:
    name = re.sub(r"[^0-9A-Za-z_-]+", "-", spec.name).strip("-") or f"class-{value}"
    return {
        "value": value,
        "name": name,
        "description": one_line(spec.name),
        "color_hint": spec.colour[1:].upper(),
    }


def _assets(outputs: Iterable[StoragePath], path: StoragePath) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for output in outputs:
        asset: dict[str, Any] = {"href": _href(name_from(output, path.parent))}
        media = next((m for suffix, m in _MEDIA_TYPES if output.name.endswith(suffix)), None)
        if media is not None:
            asset["type"] = media
        asset["roles"] = ["overview" if output.name.endswith(_PICTURES) else "data"]
        key, again = output.name, 2
        while key in found or key == "model":
            key, again = f"{output.name} ({again})", again + 1
        found[key] = asset
    return found


def _href(name: str) -> str:
    """A path or address as a reference, in which spaces, ``#``, ``?`` and ``%`` are escaped."""
    if is_url(name):
        return name
    escaped = quote(name)
    return escaped if name.startswith(("/", "../")) else f"./{escaped}"


def _model_asset(model: Model, href: str | None) -> dict[str, Any]:
    return {
        "href": href or f"urn:sha256:{model.fingerprint}",
        "title": one_line(model.name),
        "description": f"The model that made this result; its SHA-256 is {model.fingerprint}.",
        "roles": ["mlm:model"],
        "mlm:artifact_type": _ARTIFACTS.get(model.predictor.suffix, model.predictor.suffix[1:]),
    }
