"""Files of objects held against the specifications of their formats."""

from __future__ import annotations

import gzip
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.objects.formats import check_objects_file
from tilepipe.storage import ObjectPath, StoragePath
from tilepipe.validation.result import Checked, Fact

_FORMATS = {
    ".geojson": "GeoJSON", ".geojson.gz": "GeoJSON", ".gpkg": "GeoPackage", ".fgb": "FlatGeobuf",
    ".parquet": "GeoParquet",
}  # fmt: skip
"""The format of each suffix, as the table of readers has it."""

HEAD = 1 << 16
"""Bytes of a GeoJSON that are looked at for whom it is."""


def check(path: StoragePath) -> Checked:
    """Hold a file of objects against its specification: GeoJSON, GeoPackage, FlatGeobuf, Parquet.

    Raises
    ------
    InputError
        It lies on an object store, is no file, or what reads it is not installed.
    """
    if isinstance(path, ObjectPath):
        raise InputError(f"{path}: is checked on a disk only; copy it to one first")
    problems = check_objects_file(path)
    suffix = max((s for s in _FORMATS if path.name.lower().endswith(s)), key=len)
    facts: dict[str, Fact] = {"content": "objects"}
    if _FORMATS[suffix] == "GeoJSON":
        facts["qupath"] = _is_for_qupath(path)
    by = ("tilepipe's own checks of files of objects",)
    return Checked(_FORMATS[suffix], tuple(problems), facts, by)


def _is_for_qupath(path: Path) -> bool:
    """Whether its features are objects of QuPath, whose coordinates are pixels."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return b'"objectType"' in file.read(HEAD)
    except (OSError, EOFError):
        return False
