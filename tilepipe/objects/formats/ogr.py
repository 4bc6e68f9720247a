"""Objects as GeoPackage and FlatGeobuf, written by GDAL."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tilepipe.objects.formats.arrow import GEOMETRY, ArrowRows
from tilepipe.objects.formats.description import described
from tilepipe.objects.formats.frame import map_frame
from tilepipe.objects.formats.qgis_style import add_style
from tilepipe.objects.table import ObjectTable
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.storage import complete_or_absent, utf8_path
from tilepipe.text import first_line

LAYER = "objects"
"""The name of the layer."""

DATE = "2000-01-01T00:00:00.000Z"
"""When a GeoPackage says it was last changed, so that equal objects are equal bytes."""

_DATASET = {"GPKG": {"VERSION": "1.3"}, "FlatGeobuf": {}}
"""Options of each driver; GDAL before 3.7 warns of GeoPackages newer than 1.3."""

FULL = 1 << 24
"""Bytes left on a disk that is full, for GDAL."""

_CONFIGURATION = {
    "OGR_CURRENT_DATE": DATE,
    # Otherwise the order in which threads finish would show in the index.
    "OGR_GPKG_ALLOW_THREADED_RTREE": "NO",
}


def write_gpkg(table: ObjectTable, path: Path) -> None:
    """Write a GeoPackage of one layer, with the colours of classes as its style in QGIS."""
    frame = map_frame(table.info)
    options = {"DESCRIPTION": described(table.info, frame), "GEOMETRY_NAME": "geom"}
    with _named(path, ".gpkg") as file:
        _write(table, file, "GPKG", options)
        add_style(file, LAYER, "geom", _object_classes(table.info.mask), DATE)


def _object_classes(mask: MaskSpec) -> list[MaskClass]:
    """The classes that objects can have: not the background."""
    return [each for number, each in enumerate(mask.classes) if number != mask.background]


def write_fgb(table: ObjectTable, path: Path) -> None:
    """Write a FlatGeobuf with its spatial index."""
    frame = map_frame(table.info)
    options = {"DESCRIPTION": described(table.info, frame)}
    with _named(path, ".fgb") as file:
        _write(table, file, "FlatGeobuf", options)


@contextmanager
def _named(path: Path, suffix: str) -> Iterator[Path]:
    """A file to write whose name ends as GDAL wants it; it gets its own name when complete."""
    with complete_or_absent(path) as part:
        file = part.with_name(part.name + suffix)
        file.unlink(missing_ok=True)
        try:
            yield utf8_path(file)
            file.replace(part)
        finally:
            file.unlink(missing_ok=True)


def _write(table: ObjectTable, file: Path, driver: str, options: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyogrio

    frame = map_frame(table.info)
    rows = ArrowRows(table, frame, wide=True)
    failure: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch, _ in rows.batches(multi=True):
                yield batch
        except Exception as error:
            # GDAL only says that there are no more rows.
            failure.append(error)
            raise

    with _configured(pyogrio.set_gdal_config_options), warnings.catch_warnings():
        # Slides have no CRS. The "undefined Cartesian" one of GeoPackage would be read as metres.
        warnings.filterwarnings("ignore", "'crs' was not provided")
        try:
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(rows.schema, batches()),
                file,
                layer=LAYER,
                driver=driver,
                geometry_name=GEOMETRY,
                geometry_type="MultiPolygon",
                crs=frame.crs,
                dataset_options=_DATASET[driver],
                layer_options=dict(options),
            )
        except Exception as error:
            if failure:
                raise failure[0] from None
            raise _explained(file, error) from error


def _explained(file: Path, error: Exception) -> OSError:
    """GDAL's error as that of a disk, of which it does not say whether it is full.

    What was to be written is in order, so that a disk is what is left.
    """
    if isinstance(error, OSError):
        return error
    full = shutil.disk_usage(file.parent).free < FULL
    number = errno.ENOSPC if full else errno.EIO
    return OSError(number, f"{os.strerror(number)} (GDAL: {first_line(error)})", str(file))


@contextmanager
def _configured(configure: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    configure(_CONFIGURATION)
    try:
        yield
    finally:
        configure(dict.fromkeys(_CONFIGURATION))
