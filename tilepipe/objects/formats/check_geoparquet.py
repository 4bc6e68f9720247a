"""GeoParquet held against its specification, 1.0 and 1.1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.objects.formats.problems import Problems
from tilepipe.text import first_line

_ROWS = 10_000
_KINDS = {
    "Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon",
    "GeometryCollection",
}  # fmt: skip
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def check_parquet(path: Path) -> list[str]:
    """Say what is wrong with a file; empty where nothing is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    problems = Problems("row")
    try:
        with pq.ParquetFile(path) as file:
            geo = _metadata(file.metadata.metadata or {})
            for problem in _of_metadata(geo, file.schema_arrow):
                problems.add(problem)
            if not problems:
                _check_rows(file, geo, problems)
    except (OSError, ValueError, pa.ArrowException) as error:
        problems.add(f"the file cannot be read: {first_line(error)}")
    return problems.sentences()


def _metadata(found: dict[bytes, bytes]) -> dict[str, Any]:
    if b"geo" not in found:
        raise ValueError("it has no metadata 'geo', so it is Parquet but not GeoParquet")
    document = json.loads(found[b"geo"])
    if not isinstance(document, dict):
        raise ValueError("its metadata 'geo' are not an object")
    return document


def _of_metadata(geo: dict[str, Any], schema: Any) -> Iterator[str]:
    if not str(geo.get("version", "")).startswith("1."):
        yield f"the version of its metadata is {geo.get('version')!r}, not 1.0 or 1.1"
    columns, primary = geo.get("columns"), geo.get("primary_column")
    if not isinstance(columns, dict) or not columns:
        yield "its metadata name no columns"
        return
    if primary not in columns:
        yield f"its primary column {primary!r} is not among the columns of its metadata"
    for name, column in columns.items():
        if name not in schema.names:
            yield f"the column {name!r} of its metadata is not in the file"
        elif not isinstance(column, dict):
            yield f"the metadata of the column {name!r} are not an object"
        else:
            yield from (f"column {name!r}: {problem}" for problem in _of_column(column, schema))


def _of_column(column: dict[str, Any], schema: Any) -> Iterator[str]:
    if column.get("encoding") != "WKB":
        yield f"its encoding is {column.get('encoding')!r}; only WKB is checked"
    kinds = column.get("geometry_types")
    if not isinstance(kinds, list) or not {str(k).removesuffix(" Z") for k in kinds} <= _KINDS:
        yield "geometry_types is not a list of kinds of geometry"
    if column.get("edges", "planar") not in ("planar", "spherical"):
        yield "edges is neither planar nor spherical"
    if column.get("orientation", "counterclockwise") != "counterclockwise":
        yield "orientation can only be counterclockwise"
    box = column.get("bbox", [0.0] * 4)
    if not isinstance(box, list) or len(box) not in (4, 6) or not np.isfinite(box).all():
        yield "bbox is not four or six finite numbers"
    yield from _of_crs(column.get("crs"))
    covering = column.get("covering")
    if covering is not None:
        yield from _of_covering(covering, schema)


def _of_crs(crs: Any) -> Iterator[str]:
    from pyproj import CRS
    from pyproj.exceptions import ProjError

    if crs is None:
        return
    try:
        CRS.from_json_dict(crs)
    except (ProjError, TypeError, ValueError, AttributeError):
        yield "crs is not PROJJSON"


def _of_covering(covering: Any, schema: Any) -> Iterator[str]:
    import pyarrow as pa

    box = covering.get("bbox") if isinstance(covering, dict) else None
    if not isinstance(box, dict) or not set(_SIDES) <= set(box):
        yield "covering has no bbox with xmin, ymin, xmax and ymax"
        return
    for side in _SIDES:
        way = box[side]
        name = way[0] if isinstance(way, list) and len(way) == 2 else None
        if name not in schema.names or way[1] != side:
            yield f"the covering's {side} does not name a field {side} of a column in the file"
            continue
        kind = schema.field(name).type
        if not pa.types.is_struct(kind) or kind.get_field_index(side) < 0:
            yield f"the covering's column {name!r} has no field {side}"


def _check_rows(file: Any, geo: dict[str, Any], problems: Problems) -> None:
    """Hold each geometry of the primary column against what the metadata say of all."""
    import shapely

    name = geo["primary_column"]
    column = geo["columns"][name]
    covering = column.get("covering", {}).get("bbox", {}).get("xmin", [None])[0]
    wanted, box = set(column["geometry_types"]), column.get("bbox")
    start = 0
    for batch in file.iter_batches(_ROWS, columns=[name] + ([covering] if covering else [])):
        encoded = np.array(batch.column(name).to_pylist(), object)
        found = shapely.from_wkb(encoded, on_invalid="ignore")
        known = ~shapely.is_missing(found)
        _add(problems, "its geometry is not WKB", ~known & (encoded != None), start)  # noqa: E711
        kinds = np.array([each.geom_type if each is not None else "" for each in found])
        if wanted:
            other = known & ~np.isin(kinds, sorted(wanted))
            _add(problems, "its geometry is of a kind that geometry_types leaves out", other, start)
        bounds = shapely.bounds(found)
        if box is not None:
            outside = ~_within(bounds, box)
            _add(problems, "its geometry reaches outside the bbox of the metadata", outside, start)
        if covering:
            rows = batch.column(covering).to_pylist()
            stored = np.array([[row[side] for side in _SIDES] for row in rows], np.float64)
            _add(problems, "its box does not cover its geometry", ~_within(bounds, stored), start)
        start += len(batch)


def _within(bounds: Any, box: Any) -> Any:
    """Which boxes (n, 4) lie in one of four or six numbers, or in that of their row."""
    box = np.asarray(box, np.float64)
    half = box.shape[-1] // 2
    least, most = box[..., :2], box[..., half : half + 2]
    return ~((bounds[:, :2] < least) | (bounds[:, 2:] > most)).any(1)


def _add(problems: Problems, problem: str, rows: Any, start: int) -> None:
    where = np.flatnonzero(rows)
    if len(where):
        problems.add(problem, start + int(where[0]), len(where))
