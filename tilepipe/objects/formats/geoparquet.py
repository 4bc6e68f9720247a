"""Objects as GeoParquet 1.1, with a column of boxes by which readers skip what they do not want."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.objects.formats.arrow import GEOMETRY, ArrowRows
from tilepipe.objects.formats.crs import projjson
from tilepipe.objects.formats.description import as_document
from tilepipe.objects.formats.frame import Frame, bounds, map_frame
from tilepipe.objects.formats.records import BOX_FIELDS, NUMBER
from tilepipe.objects.table import ObjectTable
from tilepipe.storage import complete_or_absent

if TYPE_CHECKING:
    import pyarrow as pa

BBOX = "bbox"


def write_parquet(table: ObjectTable, path: Path) -> None:
    """Write a row for each object, in row groups; zstd.

    The metadata ``geo`` are those of GeoParquet (https://geoparquet.org/releases/v1.1.0/);
    ``tilepipe`` says what the objects are of.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = map_frame(table.info)
    rows = ArrowRows(table, frame, wide=False)
    box = pa.struct([pa.field(name, pa.float64()) for name in BOX_FIELDS])
    schema = rows.schema.append(pa.field(BBOX, box))
    seen = _Seen()
    with (
        complete_or_absent(path) as part,
        # Arrow's own copy of the schema would hide the metadata that are known only at the end.
        pq.ParquetWriter(part, schema, compression="zstd", store_schema=False) as writer,
    ):
        for batch, outlines in rows.batches(multi=False):
            boxes = bounds(outlines)
            sides = [pa.array(np.ascontiguousarray(side)) for side in boxes.T]
            covering = pa.StructArray.from_arrays(sides, names=list(BOX_FIELDS))
            writer.write_batch(_with(batch, covering, schema))
            seen.add(boxes, np.diff(outlines.objects))
        about = as_document(table.info, frame, rows.fields)
        geo = json.dumps(_geo(frame.crs, seen), sort_keys=True)
        writer.add_key_value_metadata({"geo": geo, "tilepipe": about})


def write_shapes(table: ObjectTable, path: Path, frame: Frame, index: str) -> None:
    """Write outlines alone, with the column of their numbers as the index of a dataframe.

    Parameters
    ----------
    index
        The name of that column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = ArrowRows(table, frame, wide=False)
    schema = pa.schema([pa.field(index, pa.int64()), pa.field(GEOMETRY, pa.binary())])
    seen = _Seen()
    with pq.ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
        for batch, outlines in rows.batches(multi=False):
            columns = [batch.column(NUMBER), batch.column(GEOMETRY)]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            seen.add(bounds(outlines), np.diff(outlines.objects))
        geo = _geo(None, seen, covering=False)
        known = {"geo": geo, "pandas": _pandas(index)}
        writer.add_key_value_metadata({k: json.dumps(v, sort_keys=True) for k, v in known.items()})


def _pandas(index: str) -> dict[str, Any]:
    """By which pandas knows that a column is the index."""
    column = {
        "name": index, "field_name": index, "pandas_type": "int64", "numpy_type": "int64",
        "metadata": None,
    }  # fmt: skip
    return {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [column],
        "pandas_version": "2",
    }


def _with(batch: pa.RecordBatch, column: Any, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.record_batch([*batch.columns, column], schema=schema)


class _Seen:
    """What the metadata say of all geometries."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.box: list[float] | None = None

    def add(self, boxes: NDArray[np.float64], polygons: NDArray[np.int64]) -> None:
        if (polygons == 1).any():
            self.kinds.add("Polygon")
        if (polygons > 1).any():
            self.kinds.add("MultiPolygon")
        whole = [*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]
        if self.box is not None:
            whole = [*map(min, whole[:2], self.box[:2]), *map(max, whole[2:], self.box[2:])]
        self.box = whole


def _geo(crs: str | None, seen: _Seen, *, covering: bool = True) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(seen.kinds),
        # Left out it would mean longitude and latitude; null is "not known", or none on Earth.
        "crs": None if crs is None else projjson(crs),
        "edges": "planar",
        "orientation": "counterclockwise",
    }
    if covering:
        column["covering"] = {"bbox": {name: [BBOX, name] for name in BOX_FIELDS}}
    if seen.box is not None:
        column["bbox"] = seen.box
    return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
