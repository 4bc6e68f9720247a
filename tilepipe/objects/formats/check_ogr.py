"""GeoPackage held against its specification, and FlatGeobuf against its header."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tilepipe.objects.formats.problems import Problems
from tilepipe.text import first_line

_APPLICATION = int.from_bytes(b"GPKG", "big")
_OLDER = {int.from_bytes(b"GP10", "big"), int.from_bytes(b"GP11", "big")}
_TABLES = ("gpkg_spatial_ref_sys", "gpkg_contents")
_FEATURES = "gpkg_geometry_columns"

_FGB_MAGIC = b"fgb\x03fgb"


def check_gpkg(path: Path) -> list[str]:
    """Say what is wrong with a GeoPackage; empty where nothing is.

    The requirements of OGC 12-128r19 on what files of features hold: identity, integrity, tables,
    references and the headers of geometries.
    """
    problems = Problems("row")
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            for problem in _of_database(database):
                problems.add(problem)
            if not problems:
                for layer in _layers(database):
                    _check_layer(database, layer, problems)
    except (sqlite3.Error, OSError) as error:
        problems.add(f"the file cannot be read: {first_line(error)}")
    return problems.sentences()


def _of_database(database: sqlite3.Connection) -> Iterator[str]:
    ((application,),) = database.execute("PRAGMA application_id").fetchall()
    ((version,),) = database.execute("PRAGMA user_version").fetchall()
    if application not in (_APPLICATION, *_OLDER):
        yield "its application id is not that of a GeoPackage"
    elif application == _APPLICATION and version < 10200:
        yield f"its version is {version}, not 10200 or later"
    for (found,) in database.execute("PRAGMA integrity_check(3)").fetchall():
        if found != "ok":
            yield f"the database is damaged: {found}"
    for table, _, parent, _ in database.execute("PRAGMA foreign_key_check").fetchmany(3):
        yield f"the table {table} refers to what is not in {parent}"
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master").fetchall()}
    for name in _TABLES:
        if name not in tables:
            yield f"it has no table {name}"
    if not set(_TABLES) <= tables:
        return
    numbers = {n for (n,) in database.execute("SELECT srs_id FROM gpkg_spatial_ref_sys")}
    for number in (-1, 0, 4326):
        if number not in numbers:
            yield f"its coordinate reference systems leave out number {number}"
    for name, kind in database.execute("SELECT table_name, data_type FROM gpkg_contents"):
        if name not in tables:
            yield f"it has no table {name!r}, which its contents name"
        if kind == "features" and _FEATURES not in tables:
            yield f"it has features and no table {_FEATURES}"


def _layers(database: sqlite3.Connection) -> list[Any]:
    tables = database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_FEATURES,))
    if not tables.fetchall():
        return []
    return database.execute(
        f"SELECT table_name, column_name, srs_id FROM {_FEATURES} ORDER BY 1"
    ).fetchall()


def _check_layer(database: sqlite3.Connection, layer: Any, problems: Problems) -> None:
    table, column, srs = layer
    columns = {row[1]: row[5] for row in database.execute(f"PRAGMA table_info({_quoted(table)})")}
    if column not in columns:
        problems.add(f"the table {table!r} has no column {column!r}")
        return
    if not any(columns.values()):
        problems.add(f"the table {table!r} has no primary key")
    query = f"SELECT {_quoted(column)} FROM {_quoted(table)}"
    for index, (blob,) in enumerate(database.execute(query)):
        if blob is None:
            continue
        if not isinstance(blob, bytes) or blob[:2] != b"GP" or len(blob) < 8:
            problems.add("its geometry is not that of a GeoPackage", index)
        elif struct.unpack("<i" if blob[3] & 1 else ">i", blob[4:8])[0] != srs:
            problems.add("its geometry has another srs_id than its layer", index)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def check_fgb(path: Path) -> list[str]:
    """Say what is wrong with a FlatGeobuf; empty where nothing is.

    Its first bytes, and that GDAL reads as many features as the header counts, within its bounds.
    """
    import pyogrio
    import shapely

    problems = Problems("feature")
    try:
        with path.open("rb") as file:
            if file.read(7) != _FGB_MAGIC:
                return ["its first bytes are not those of FlatGeobuf 3"]
        info = pyogrio.read_info(path)
        said, seen = info["features"], 0
        with pyogrio.open_arrow(path, use_pyarrow=True) as (about, reader):
            for batch in reader:
                name = about["geometry_name"] or "wkb_geometry"
                found = shapely.from_wkb(batch.column(name).to_pylist(), on_invalid="ignore")
                missing = shapely.is_missing(found)
                if missing.any():
                    problems.add("it has no geometry", seen + int(missing.argmax()), missing.sum())
                seen += len(batch)
        if said > 0 and said != seen:
            problems.add(f"the header counts {said} features, and there are {seen}")
    except Exception as error:  # what pyogrio raises has no common base
        problems.add(f"the file cannot be read: {first_line(error)}")
    return problems.sentences()
