"""Objects that are open for reading, from any of the files that hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from tilepipe.errors import InputError, TilepipeError
from tilepipe.objects.formats import sources
from tilepipe.objects.formats.arrow import GEOMETRY
from tilepipe.objects.formats.registry import objects_format, require_installed
from tilepipe.objects.table import open_table
from tilepipe.storage import ObjectPath, StoragePath, readable
from tilepipe.text import count, first_line, some

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = ("", "table", "objects", "objects/table")
"""Where in a folder the table of objects may be: it itself, or in a mask."""

PARTITION = 100_000
"""Rows of a partition of a dask dataframe, by default."""


class Objects:
    """Objects that are open for reading: a table that is read when it is asked for.

    Made by `open_objects`. Rows are in the order of the file: that of their numbers, but for
    FlatGeobuf, which sorts by place.
    """

    def __init__(self, path: StoragePath, source: sources.Source) -> None:
        self.path = path
        """The file, or the folder of the mask."""
        self._source = source

    def __len__(self) -> int:
        """The number of objects."""
        return len(self._source)

    def __repr__(self) -> str:
        names = some(self.columns, 8)
        return f"Objects({str(self.path)!r}, {count(len(self), 'object')}: {names})"

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, that of the outlines not among them."""
        return tuple(name for name in self._source.schema.names if name != GEOMETRY)

    @property
    def outlines(self) -> bool:
        """Whether objects have outlines; those of a CSV have none."""
        return GEOMETRY in self._source.schema.names

    @property
    def crs(self) -> Any:
        """The coordinate reference system of the outlines (pyproj); None for slides."""
        from pyproj import CRS

        return None if self._source.crs is None else CRS.from_user_input(self._source.crs)

    def read(self, start: int, stop: int) -> pa.Table:
        """The rows from ``start`` to before ``stop``; outlines are WKB, in ``geometry``."""
        start = min(max(start, 0), len(self))
        return self._source.read(start, min(max(stop, start), len(self)))

    def batches(self) -> Iterator[pa.Table]:
        """All rows, about 10,000 at a time."""
        return self._source.batches()

    def to_arrow(self) -> pa.RecordBatchReader:
        """All rows as a stream, for what reads Arrow: polars, duckdb, lonboard."""
        import pyarrow as pa

        schema = self._source.schema
        batches = (b for table in self.batches() for b in table.cast(schema).to_batches())
        return pa.RecordBatchReader.from_batches(schema, batches)

    def to_pandas(self) -> Any:
        """All rows as a pandas dataframe, without outlines."""
        return self._frame(self.to_arrow().read_all(), outlines=False)

    def to_geopandas(self) -> Any:
        """All rows as a geopandas geodataframe; InputError where there are no outlines."""
        self._require_outlines()
        return self._frame(self.to_arrow().read_all(), outlines=True)

    def to_dask(self, rows: int = PARTITION) -> Any:
        """A lazy dask dataframe; with dask-geopandas installed, a geodataframe with outlines.

        Parameters
        ----------
        rows
            Of a partition. In GeoJSON and CSV, a partition is found by reading what is before it.
        """
        _require("dask.dataframe", "dask[dataframe]", "a dask dataframe")
        import dask.dataframe as dd

        outlines = self.outlines and find_spec("dask_geopandas") is not None
        if outlines:
            import_module("dask_geopandas")  # which tells dask what geodataframes are
        starts = list(range(0, len(self), rows)) or [0]
        meta = self._frame(self.read(0, 0), outlines=outlines)
        part = _Partition(self.path, rows, outlines)
        divisions = [*starts, max(len(self) - 1, 0)]
        return dd.from_map(part, starts, meta=meta, divisions=divisions)

    def _frame(self, table: pa.Table, *, outlines: bool, first: int = 0) -> Any:
        _require("pandas", "pandas", "a dataframe")
        names = [name for name in table.column_names if name != GEOMETRY]
        frame = table.select(names).to_pandas()
        frame.index += first
        if not outlines:
            return frame
        import geopandas
        import shapely

        shapes = shapely.from_wkb(np.array(table.column(GEOMETRY).to_pylist(), object))
        return geopandas.GeoDataFrame(frame, geometry=shapes, crs=self.crs)

    def _require_outlines(self) -> None:
        if not self.outlines:
            raise InputError(f"{self.path}: holds no outlines; read it with to_pandas()")
        _require("geopandas", "geopandas", "a geodataframe")


class _Partition:
    """Reads a partition of a dask dataframe, in whatever process it is wanted."""

    def __init__(self, path: StoragePath, rows: int, outlines: bool) -> None:
        self._path, self._rows, self._outlines = path, rows, outlines

    def __call__(self, start: int) -> Any:
        objects = open_objects(self._path)
        table = objects.read(start, start + self._rows)
        return objects._frame(table, outlines=self._outlines, first=start)


def open_objects(path: str | StoragePath) -> Objects:
    """Open objects lazily: an OME-Zarr mask that holds them, or a file written of them.

    Files are GeoParquet, GeoPackage, FlatGeobuf, GeoJSON and CSV (``.gz`` too), also those of
    other programs. pyarrow is needed, for GeoPackage and FlatGeobuf also pyogrio: the extra
    ``vector``.

    Raises
    ------
    InputError
        Where there are none at ``path``, or what reads them is not installed.
    """
    where = readable(path)
    _require("pyarrow", "tilepipe[vector]", "tables of objects")
    kind = objects_format(where)
    if kind is None or where.is_dir():
        return Objects(where, sources.TableSource(_table_in(where)))
    if isinstance(where, ObjectPath):
        raise InputError(
            f"{where}: on an object store, objects are opened in a mask as .ome.zarr only; copy "
            "the file here"
        )
    if not where.is_file():
        raise InputError(f"{where} does not exist; give the path of a file of objects")
    require_installed(where, kind)
    suffix = where.name.lower().removesuffix(".gz").rpartition(".")[2]
    try:
        return Objects(where, _SOURCES[suffix](where))
    except TilepipeError:
        raise
    except Exception as error:  # of three libraries, which have no common base
        raise InputError(
            f"{where}: cannot be read ({first_line(error)}); export it again"
        ) from error


_SOURCES: dict[str, Callable[[Any], sources.Source]] = {
    "parquet": sources.ParquetSource,
    "gpkg": sources.OgrSource,
    "fgb": sources.OgrSource,
    "geojson": sources.GeojsonSource,
    "csv": sources.CsvSource,
}


def _table_in(folder: StoragePath) -> Any:
    for name in TABLES:
        try:
            return open_table(folder / name if name else folder)
        except InputError:
            continue
    if not folder.exists():
        raise InputError(f"{folder} does not exist; give the path of objects")
    raise InputError(
        f"{folder}: holds no objects; give a mask whose objects were found, or .parquet, .gpkg, "
        ".fgb, .geojson or .csv"
    )


def _require(module: str, what: str, use: str) -> None:
    if find_spec(module.partition(".")[0]) is None:
        raise InputError(f"{what} must be installed for {use}: pip install '{what}'")
