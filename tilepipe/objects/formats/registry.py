"""The formats of objects by their suffixes, and their writers.

The modules of a format are imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tilepipe.errors import InputError
from tilepipe.storage import StoragePath

if TYPE_CHECKING:
    from tilepipe.objects.table import ObjectTable
    from tilepipe.products.instances import InstanceLayer


@dataclass(frozen=True, slots=True)
class ObjectFormat:
    """A format of objects."""

    suffixes: tuple[str, ...]
    writer: str
    """``MODULE:FUNCTION``, which takes the table and a local path."""
    checker: str = ""
    """``MODULE:FUNCTION``, which says what is wrong with a file; empty where nothing checks it."""
    needs: tuple[str, ...] = ()
    """Modules that the extra ``vector`` installs."""
    outlines: bool = True
    """Whether it holds outlines, and cannot be written without."""
    labels: bool = False
    """Whether it also holds the numbers of objects, pixel by pixel, where they are given."""

    def matches(self, path: StoragePath) -> bool:
        """Whether a path has one of the suffixes, and more than that."""
        name = path.name.lower()
        return name.endswith(self.suffixes) and name not in self.suffixes

    @property
    def missing(self) -> tuple[str, ...]:
        """The modules that it needs and that are not installed."""
        return tuple(name for name in self.needs if find_spec(name) is None)


STAC_ITEM = ".stac.json"
"""The suffix of a STAC item, which says where the other outputs of a run lie on the Earth."""

_HERE = "tilepipe.objects.formats"
_VECTOR = ("pyarrow", "pyogrio")

FORMATS: tuple[ObjectFormat, ...] = (
    ObjectFormat(
        (".geojson", ".geojson.gz"),
        f"{_HERE}.geojson:write_geojson",
        f"{_HERE}.check_geojson:check_geojson",
    ),
    ObjectFormat((".gpkg",), f"{_HERE}.ogr:write_gpkg", f"{_HERE}.check_ogr:check_gpkg", _VECTOR),
    ObjectFormat((".fgb",), f"{_HERE}.ogr:write_fgb", f"{_HERE}.check_ogr:check_fgb", _VECTOR),
    ObjectFormat(
        (".parquet",),
        f"{_HERE}.geoparquet:write_parquet",
        f"{_HERE}.check_geoparquet:check_parquet",
        ("pyarrow",),
    ),
    ObjectFormat(
        (".spatialdata.zarr",),
        f"{_HERE}.spatialdata:write_spatialdata",
        needs=("pyarrow",),
        labels=True,
    ),
    ObjectFormat(
        (".objects.ome.tif", ".objects.ome.tiff"),
        f"{_HERE}.label_tiff:write_label_ome_tiff",
        outlines=False,
        labels=True,
    ),
    ObjectFormat(
        (".objects.tif", ".objects.tiff"),
        f"{_HERE}.label_tiff:write_label_geotiff",
        outlines=False,
        labels=True,
    ),
    ObjectFormat((".csv", ".csv.gz"), f"{_HERE}.csv_table:write_csv", outlines=False),
)
"""All formats; no path matches two of them."""


def objects_format(path: StoragePath) -> ObjectFormat | None:
    """The format of objects that a path names by its suffix; None for a path of anything else."""
    return next((each for each in FORMATS if each.matches(path)), None)


def require_writable_format(path: StoragePath) -> ObjectFormat:
    """The format of a path; what can be said before there is a table is refused here.

    Raises
    ------
    InputError
        Where the suffix is of no format of objects, or what writes it is not installed.
    """
    kind = objects_format(path)
    if kind is None:
        known = ", ".join(suffix for each in FORMATS for suffix in each.suffixes)
        raise InputError(f"{path} does not have a suffix of objects; use one of {known}")
    require_installed(path, kind)
    return kind


def require_installed(path: StoragePath, kind: ObjectFormat) -> None:
    """Refuse a format that needs what is not installed; InputError names the extra."""
    if kind.missing:
        raise InputError(
            f"{path}: {' and '.join(kind.missing)} must be installed for this format: "
            "pip install 'tilepipe[vector]'"
        )


def write_objects(table: ObjectTable, path: Path, labels: InstanceLayer | None = None) -> None:
    """Write a table in the format of the suffix of ``path``; the file appears when it is complete.

    Parameters
    ----------
    table
        The objects.
    path
        On a disk.
    labels
        The numbers of objects, pixel by pixel, for formats that hold them (`ObjectFormat.labels`).

    Raises
    ------
    InputError
        Where the suffix is of no such format, the format wants outlines and the table has none, or
        what writes it is not installed.
    """
    kind = require_writable_format(path)
    module, _, name = kind.writer.partition(":")
    write: Callable[..., None] = getattr(import_module(module), name)
    if kind.labels:
        write(table, path, labels)
    else:
        write(table, path)
