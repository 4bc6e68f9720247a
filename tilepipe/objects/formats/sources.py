"""Files of objects as rows of Arrow tables: a class for each way in which they are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from tilepipe.objects.formats.arrow import GEOMETRY, ArrowRows
from tilepipe.objects.formats.frame import map_frame
from tilepipe.objects.formats.geojson_lines import features
from tilepipe.objects.formats.records import CLASS
from tilepipe.objects.formats.text_files import reading_bytes
from tilepipe.objects.table import ObjectTable

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 10_000
"""Rows of a batch."""


class Source(Protocol):
    """An opened file of objects."""

    schema: pa.Schema
    """Of its rows; the outlines, if there are any, are WKB in the last column, `GEOMETRY`."""
    crs: str | None
    """As WKT, or the name of an authority and a code."""

    def __len__(self) -> int:
        """The number of objects."""
        ...

    def read(self, start: int, stop: int) -> pa.Table:
        """Some of the rows."""
        ...

    def batches(self) -> Iterator[pa.Table]:
        """All rows, some at a time."""
        ...


class TableSource:
    """The table in the folder of a mask."""

    def __init__(self, table: ObjectTable) -> None:
        frame = map_frame(table.info)
        self._rows = ArrowRows(table, frame, wide=False)
        self.schema, self.crs, self._count = self._rows.schema, frame.crs, len(table)

    def __len__(self) -> int:
        return self._count

    def read(self, start: int, stop: int) -> pa.Table:
        """Some of the rows."""
        import pyarrow as pa

        return pa.Table.from_batches([self._rows.read(start, stop)])

    def batches(self) -> Iterator[pa.Table]:
        """All rows, some at a time."""
        return _in_steps(self)


class ParquetSource:
    """GeoParquet, or Parquet without outlines."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path)
        metadata = self._file.metadata
        geo = json.loads((metadata.metadata or {}).get(b"geo", b"{}"))
        self._primary = geo.get("primary_column")
        column = geo.get("columns", {}).get(self._primary, {})
        crs = column.get("crs", "OGC:CRS84")
        self.crs = crs if crs is None or isinstance(crs, str) else json.dumps(crs)
        cover = column.get("covering", {}).get("bbox", {}).get("xmin", [None])[0]
        names = [
            name for name in self._file.schema_arrow.names if name not in (cover, self._primary)
        ]
        self._names = [*names, *([self._primary] if self._primary else [])]
        groups = range(metadata.num_row_groups)
        sizes = [metadata.row_group(number).num_rows for number in groups]
        self._begins = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.schema = self._renamed(self._file.schema_arrow.empty_table()).schema

    def __len__(self) -> int:
        return int(self._begins[-1])

    def read(self, start: int, stop: int) -> pa.Table:
        """Some of the rows."""
        inside = (self._begins[1:] > start) & (self._begins[:-1] < stop)
        groups = np.flatnonzero(inside).tolist()
        found = self._file.read_row_groups(groups, columns=self._names)
        first = start - int(self._begins[groups[0]]) if groups else 0
        return self._renamed(found.slice(first, stop - start))

    def batches(self) -> Iterator[pa.Table]:
        """All rows, some at a time."""
        import pyarrow as pa

        for batch in self._file.iter_batches(ROWS, columns=self._names):
            yield self._renamed(pa.Table.from_batches([batch]))

    def _renamed(self, found: pa.Table) -> pa.Table:
        found = found.select(self._names).replace_schema_metadata(None)
        names = [GEOMETRY if name == self._primary else name for name in self._names]
        return found.rename_columns(names)


class OgrSource:
    """GeoPackage, FlatGeobuf: what GDAL reads. Of several layers, the first with geometries."""

    def __init__(self, path: Path) -> None:
        import pyogrio

        self._path = path
        layers = [name for name, kind in pyogrio.list_layers(path) if kind]
        self._layer = layers[0] if layers else None
        info = pyogrio.read_info(path, layer=self._layer, force_feature_count=True)
        self.crs = info["crs"]
        self._count = int(info["features"])
        self.schema = self.read(0, 0).schema

    def __len__(self) -> int:
        return self._count

    def read(self, start: int, stop: int) -> pa.Table:
        """Some of the rows."""
        import pyogrio

        # No rows at all cannot be asked for.
        about, found = pyogrio.read_arrow(
            self._path, layer=self._layer, skip_features=start, max_features=max(1, stop - start)
        )
        return self._renamed(about, found.slice(0, stop - start))

    def batches(self) -> Iterator[pa.Table]:
        """All rows, some at a time."""
        import pyarrow as pa
        import pyogrio

        with pyogrio.open_arrow(self._path, layer=self._layer, use_pyarrow=True) as (about, reader):
            for batch in reader:
                yield self._renamed(about, pa.Table.from_batches([batch]))

    def _renamed(self, about: Any, found: pa.Table) -> pa.Table:
        column = about["geometry_name"] or "wkb_geometry"
        names = [name for name in found.column_names if name not in (column, about["fid_column"])]
        found = found.select([*names, column]).rename_columns([*names, GEOMETRY])
        return found.replace_schema_metadata(None)


class _Properties(msgspec.Struct):
    """A feature without its geometry, which need not be decoded to know the columns."""

    properties: dict[str, Any] | None = None
    id: Any = None


class GeojsonSource:
    """GeoJSON, QuPath's or for maps. What a feature has in objects becomes columns."""

    def __init__(self, path: Path) -> None:
        self._path, self._count = path, 0
        kinds: dict[str, set[type]] = {}
        self.crs: str | None = "OGC:CRS84"
        for feature in features(path, kind=_Properties):
            if "objectType" in (feature.properties or {}):
                self.crs = None
            for name, value in _flat(feature.properties, feature.id).items():
                kinds.setdefault(name, set()).add(type(value))
            self._count += 1
        self.schema = _schema(kinds)

    def __len__(self) -> int:
        return self._count

    def read(self, start: int, stop: int) -> pa.Table:
        """Some of the rows; what is before them is passed over."""
        return self._table(list(islice(features(self._path), start, stop)))

    def batches(self) -> Iterator[pa.Table]:
        """All rows, some at a time."""
        found = features(self._path)
        while some := list(islice(found, ROWS)):
            yield self._table(some)

    def _table(self, some: list[Any]) -> pa.Table:
        import pyarrow as pa
        import shapely

        shapes = shapely.from_geojson([msgspec.json.encode(each["geometry"]) for each in some])
        rows = [_flat(each["properties"], each.get("id")) for each in some]
        encoded = shapely.to_wkb(np.asarray(shapes, object), byte_order=1)
        arrays = [
            pa.array([row.get(field.name) for row in rows], field.type)
            for field in list(self.schema)[:-1]
        ]
        geometry = pa.array(encoded.tolist(), pa.binary())
        return pa.Table.from_arrays([*arrays, geometry], schema=self.schema)


def _flat(properties: dict[str, Any] | None, number: Any) -> dict[str, Any]:
    """The properties of a feature, with QuPath's measurements and class among them."""
    found = dict(properties or {})
    if "objectType" in found:
        kind = found.pop("classification", None) or {}
        measurements = found.pop("measurements", None) or {}
        found = {"id": number, CLASS: kind.get("name"), **found, **measurements}
    return {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in found.items()
    }


def _schema(kinds: dict[str, set[type]]) -> pa.Schema:
    import pyarrow as pa

    known = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), type(None): pa.null()}
    fields = []
    for name, seen in kinds.items():
        seen = seen - {type(None)} or {type(None)}
        kind = float if seen == {int, float} else next(iter(seen)) if len(seen) == 1 else str
        fields.append(pa.field(name, known.get(kind, pa.string())))
    return pa.schema([*fields, pa.field(GEOMETRY, pa.binary())])


class CsvSource:
    """CSV: no outlines."""

    crs: str | None = None

    def __init__(self, path: Path) -> None:
        self._path, self._count = path, 0
        import pyarrow as pa

        self.schema = pa.schema([])
        for batch in self._open():
            self.schema = batch.schema
            self._count += len(batch)

    def __len__(self) -> int:
        return self._count

    def read(self, start: int, stop: int) -> pa.Table:
        """Some of the rows; what is before them is passed over."""
        import pyarrow as pa

        seen, found = 0, []
        for batch in self._open():
            found.append(batch.slice(max(0, start - seen), max(0, stop - max(seen, start))))
            seen += len(batch)
            if seen >= stop:
                break
        return pa.Table.from_batches(found, schema=self.schema)

    def batches(self) -> Iterator[pa.Table]:
        """All rows, some at a time."""
        import pyarrow as pa

        for batch in self._open():
            yield pa.Table.from_batches([batch])

    def _open(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import csv

        # A class may be called 7.
        options = csv.ConvertOptions(column_types={CLASS: pa.string()})
        with reading_bytes(self._path) as file:
            yield from csv.open_csv(file, convert_options=options)


def _in_steps(source: Source) -> Iterator[pa.Table]:
    for start in range(0, len(source), ROWS):
        yield source.read(start, min(start + ROWS, len(source)))
