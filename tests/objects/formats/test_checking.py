"""Checks of files against the specifications of their formats."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.objects.formats import making
from tilepipe.errors import InputError
from tilepipe.objects.formats import check_objects_file, write_objects

pytest.importorskip("pyarrow", reason="pyarrow writes what is checked")
pytest.importorskip("pyogrio", reason="pyogrio writes what is checked")

SUFFIXES = (".geojson", ".geojson.gz", ".gpkg", ".fgb", ".parquet")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mask", [None, making.on_map()], ids=["slide", "map"])
@pytest.mark.parametrize("empty", [False, True])
def test_what_is_written_has_no_problems(
    tmp_path: Path, suffix: str, mask: Any, empty: bool
) -> None:
    path = tmp_path / f"ä 'b'#?{suffix}"
    write_objects(making.make_table(tmp_path / "t", mask, [] if empty else None), path)
    assert check_objects_file(path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_cut_off_is_found(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_objects(making.make_table(tmp_path / "t", making.on_map()), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert check_objects_file(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_something_else_under_the_name_is_found(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\x00nothing" * 1000)
    assert check_objects_file(path)


def feature(**changes: Any) -> dict[str, Any]:
    ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": None, **changes}


def polygon(*ring: tuple[float, float]) -> dict[str, Any]:
    return feature(geometry={"type": "Polygon", "coordinates": [list(map(list, ring))]})


def qupath(**changes: Any) -> dict[str, Any]:
    properties = {"objectType": "detection", **changes}
    return feature(properties=properties, id="3f72bdda-aa60-5462-8ab9-ecb173706b86")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"type": "Polygon"}, "not a Feature"),
        (feature(geometry={"type": "Point", "coordinates": [0, 0]}), "'Point'"),
        (feature(properties=[]), "properties"),
        (feature(id=[1]), "id is neither"),
        (polygon((0, 0), (1, 0), (0, 0)), "fewer than four"),
        (polygon((0, 0), (1, 0), (1, 1), (0, 1)), "not closed"),
        (polygon((0, 0), (1, 1), (1, 0), (0, 0)), "right-hand"),
        (polygon((0, 0), (200, 0), (1, 1), (0, 0)), "longitude"),
        (feature(geometry={"type": "Polygon", "coordinates": [[1, 2, 3, 4]]}), "positions"),
        (qupath(objectType="nucleus"), "objectType"),
        (qupath(measurements={"Area": None}), "measurements"),
        (qupath(classification={"name": "a", "color": [1, 2, 300]}), "colour"),
        (qupath(classification={"color": [0, 0, 0]}), "no name"),
        (qupath(classification={"name": "a"}), "colour"),
        (qupath(classification={"name": "a: ", "color": [0, 0, 0]}), "blank"),
        (qupath(objectType="Detection"), "objectType"),
        ({**qupath(), "id": "7"}, "UUID"),
    ],
)
def test_what_is_wrong_with_a_feature_is_named_once(tmp_path: Path, wrong: Any, said: str) -> None:
    path = tmp_path / "a.geojson"
    collection = {"type": "FeatureCollection", "features": [feature(), wrong, wrong]}
    path.write_text(json.dumps(collection))
    (problem,) = check_objects_file(path)
    assert problem.startswith("feature 1 (and 1 other): ")
    assert said in problem


@pytest.mark.parametrize("text", ["{}", "[]", '{"type":"FeatureCollection"}', "["])
def test_json_that_is_no_collection(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(text)
    assert len(check_objects_file(path)) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("PRAGMA application_id = 1", "application id"),
        ("DELETE FROM gpkg_spatial_ref_sys WHERE srs_id = -1", "number -1"),
        ("DELETE FROM gpkg_spatial_ref_sys WHERE srs_id = 32633", "refers to"),
        ("UPDATE gpkg_geometry_columns SET srs_id = 4326", "another srs_id"),
        ("UPDATE gpkg_contents SET table_name = 'x' WHERE table_name = 'layer_styles'", "'x'"),
        ("UPDATE gpkg_geometry_columns SET column_name = 'x'", "no column 'x'"),
    ],
)
def test_what_is_wrong_with_a_geopackage_is_named(tmp_path: Path, change: str, said: str) -> None:
    path = tmp_path / "a.gpkg"
    write_objects(making.make_table(tmp_path / "t", making.on_map()), path)
    database = sqlite3.connect(path)
    database.execute(change)
    database.commit()
    database.close()
    assert any(said in problem for problem in check_objects_file(path))


def geo_of(change: Callable[[Any], None], tmp_path: Path) -> Path:
    """A file with other metadata."""
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    write_objects(making.make_table(tmp_path / "t", making.on_map()), path)
    table = pq.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    change(geo["columns"]["geometry"])
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    return path


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("encoding", "wkt", "encoding"),
        ("geometry_types", ["Polygon"], "kind"),
        ("geometry_types", None, "geometry_types"),
        ("crs", "EPSG:4326", "PROJJSON"),
        ("bbox", [0, 0, 1, 1], "outside the bbox"),
        ("bbox", [0, 0], "four or six"),
        ("orientation", "clockwise", "counterclockwise"),
        ("covering", {"bbox": {}}, "covering"),
    ],
)
def test_what_is_wrong_with_geoparquet_is_named(
    tmp_path: Path, key: str, value: Any, said: str
) -> None:
    path = geo_of(lambda column: column.update({key: value}), tmp_path)
    assert any(said in problem for problem in check_objects_file(path))


def test_parquet_without_geo_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    (problem,) = check_objects_file(path)
    assert "not GeoParquet" in problem


def test_what_is_not_checked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not checked"):
        check_objects_file(tmp_path / "a.csv")
    with pytest.raises(InputError, match="no such file"):
        check_objects_file(tmp_path / "a.gpkg")
