"""Files of objects held against the specifications of their formats."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.objects.formats.registry import objects_format, require_installed


def check_objects_file(path: Path) -> list[str]:
    """Say what is wrong with a file of objects, in sentences; empty where nothing is.

    GeoJSON (RFC 7946, and what QuPath wants of its own), GeoPackage, FlatGeobuf and GeoParquet,
    whoever wrote them. The file is read to its end, in batches.

    Raises
    ------
    InputError
        Where there is no file, its suffix is of no format that is checked, or what reads it is not
        installed.
    """
    kind = objects_format(path)
    if kind is None or not kind.checker:
        raise InputError(f"{path}: is not checked; give .geojson, .gpkg, .fgb or .parquet")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    require_installed(path, kind)
    module, _, name = kind.checker.partition(":")
    check: Callable[[Path], list[str]] = getattr(import_module(module), name)
    return check(path)
