"""GeoPackage, FlatGeobuf and GeoParquet, as GDAL and geopandas read them."""

from __future__ import annotations

import json
import sqlite3
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely

from tests.objects.formats import making
from tilepipe.errors import InputError
from tilepipe.objects.formats import objects_format, registry, write_objects
from tilepipe.objects.table import ImagePlace

geopandas = pytest.importorskip("geopandas", reason="geopandas reads what is written")
pyogrio = pytest.importorskip("pyogrio", reason="pyogrio writes these formats")
pytest.importorskip("pyarrow", reason="pyarrow writes these formats")

ALL = (".gpkg", ".fgb", ".parquet")
every_format = pytest.mark.parametrize("suffix", ALL)


def read(path: Path) -> Any:
    if path.suffix == ".parquet":
        found = geopandas.read_parquet(path)
    else:
        found = geopandas.read_file(path, layer="objects")
    return found.sort_values("number", ignore_index=True)


def placed(geometries: list[Any], transform: Any) -> list[Any]:
    a, b, c, d, e, f = transform

    def move(points: Any) -> Any:
        x, y = points.T
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    return [shapely.transform(geometry, move) for geometry in geometries]


def assert_same(found: Any, meant: list[Any]) -> None:
    assert len(found) == len(meant)
    for one, other in zip(found.geometry, meant, strict=True):
        assert one.equals(other)


@every_format
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (making.UTM, making.NORTH_UP),
        (making.UTM, making.ROTATED),
        ("EPSG:4326", making.DEGREES),
    ],
)
def test_on_a_map_outlines_are_in_its_crs(
    tmp_path: Path, suffix: str, crs: str, transform: Any
) -> None:
    path = tmp_path / f"a{suffix}"
    write_objects(making.make_table(tmp_path / "t", making.on_map(crs, transform)), path)
    found = read(path)
    assert found.crs == crs
    assert_same(found, placed(making.shapes(), transform))


@every_format
def test_of_a_slide_they_are_in_micrometres_without_crs(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    place = ImagePlace("a", 800, 1200, 2, 2, 5, 3)
    write_objects(making.make_table(tmp_path / "t", image=place), path)
    found = read(path)
    assert found.crs is None
    assert_same(found, placed(making.shapes(), (0.5, 0, 0.75, 0, 0.5, 1.25)))
    assert found.centroid_x_um[1] == 28.25


@every_format
def test_or_in_pixels_where_their_size_is_not_known(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_objects(making.make_table(tmp_path / "t", making.mask_of(pixel_size=None)), path)
    found = read(path)
    assert "centroid_x_px" in found
    assert_same(found, making.shapes())


@every_format
def test_fields_have_units_and_names_that_the_format_allows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_objects(making.make_table(tmp_path / "t"), path)
    found = read(path)
    assert found["number"].tolist() == [1, 2, 3]
    assert found["class"].tolist() == ['nucleus "A", <b>', "Zellkern µ 核", "=bell\\x07\\n"]
    assert found["area_um2"].tolist()[:2] == [275.0, 50.0]
    assert {"mean_Red", "mean_red_2", "fid_2", "geometry_2"} <= set(found.columns)
    assert found["mean_probability"].astype(np.float32)[0] == np.float32(0.1)
    assert np.isnan(found["mean_probability"][1])


@every_format
@pytest.mark.parametrize("mask", [None, making.on_map()], ids=["slide", "map"])
def test_no_objects_are_an_empty_layer(tmp_path: Path, suffix: str, mask: Any) -> None:
    path = tmp_path / f"a{suffix}"
    write_objects(making.make_table(tmp_path / "t", mask, []), path)
    found = read(path)
    assert len(found) == 0
    assert "class" in found
    assert (found.crs is None) == (mask is None)


@every_format
def test_equal_tables_are_equal_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        table = making.make_table(tmp_path / f"table of {name}", making.on_map())
        write_objects(table, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {f"a{suffix}", f"b{suffix}"}


@every_format
def test_rows_come_in_batches(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilepipe.objects.formats.records.FIRST_BATCH", 1)
    monkeypatch.setattr("tilepipe.objects.formats.records.POINTS_AT_ONCE", 1)
    path = tmp_path / f"a{suffix}"
    write_objects(making.make_table(tmp_path / "t", making.on_map()), path)
    assert_same(read(path), placed(making.shapes(), making.NORTH_UP))


@every_format
def test_outer_rings_are_counterclockwise(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_objects(making.make_table(tmp_path / "t", making.on_map()), path)
    for polygon in shapely.get_parts(read(path).geometry):
        assert polygon.exterior.is_ccw
        assert not any(ring.is_ccw for ring in polygon.interiors)


@every_format
def test_an_error_while_reading_the_table_is_raised_and_nothing_is_left(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = making.make_table(tmp_path / "t")

    def fail(*_: Any, **__: Any) -> None:
        raise InputError("the table is damaged")

    monkeypatch.setattr(type(table), "read", fail)
    with pytest.raises(InputError, match="the table is damaged"):
        write_objects(table, tmp_path / f"a{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@every_format
def test_what_is_not_installed_is_named_with_its_extra(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"tilepipe\[vector\]"):
        registry.require_writable_format(Path(f"a{suffix}"))
    kind = objects_format(Path(f"a{suffix}"))
    assert kind is not None
    assert kind.outlines


def test_what_gdal_cannot_write_is_the_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("sqlite3_exec(ROLLBACK) failed")

    monkeypatch.setattr(pyogrio, "write_arrow", fail)
    with pytest.raises(OSError, match="ROLLBACK"):
        write_objects(making.make_table(tmp_path / "t"), tmp_path / "a.gpkg")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_qgis_finds_the_colours_of_classes_in_a_geopackage(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    write_objects(making.make_table(tmp_path / "t", making.on_map()), path)
    database = sqlite3.connect(path)
    ((style,),) = database.execute(
        "SELECT styleQML FROM layer_styles WHERE f_table_schema = '' AND f_table_name = 'objects' "
        "AND f_geometry_column = 'geom' AND useAsDefault"
    ).fetchall()
    database.close()
    root = ElementTree.fromstring(style)
    values = [category.get("value") for category in root.iter("category")]
    assert values[:2] == ['nucleus "A", <b>', "Zellkern µ 核"]
    colours = [
        option.get("value") for option in root.iter("Option") if option.get("name") == "color"
    ]
    assert colours[0] == "230,25,75,96"


def test_a_geopackage_is_as_sqlite_wants_it_and_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    table = making.make_table(tmp_path / "t", partial="the mask is unfinished")
    write_objects(table, path)
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    ((about, date),) = database.execute(
        "SELECT description, last_change FROM gpkg_contents WHERE table_name = 'objects'"
    ).fetchall()
    database.close()
    assert "micrometres" in about
    assert "unfinished" in about
    assert date == "2000-01-01T00:00:00.000Z"


def test_parquet_says_what_geoparquet_1_1_wants(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    write_objects(making.make_table(tmp_path / "t", making.on_map()), path)
    metadata = pq.read_metadata(path)
    geo = json.loads(metadata.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32633}
    assert column["bbox"] == [300_100.0, 5_598_700.0, 301_250.0, 5_599_900.0]
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert pq.read_schema(path).metadata[b"geo"] == metadata.metadata[b"geo"]
    about = json.loads(metadata.metadata[b"tilepipe"])
    assert about["fields"]["area_um2"] == {"title": "Area", "unit": "um2"}
    assert about["model"]["name"] == "tiny"


def test_readers_of_parquet_skip_by_boxes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_objects(making.make_table(tmp_path / "t", making.on_map()), path)
    found = geopandas.read_parquet(path, bbox=(301_000, 5_598_000, 302_000, 5_599_100))
    assert found["number"].tolist() == [3]


def test_the_crs_of_slides_in_parquet_is_null_and_not_left_out(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    write_objects(making.make_table(tmp_path / "t"), path)
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    assert geo["columns"]["geometry"]["crs"] is None


def test_a_name_that_is_not_ascii(tmp_path: Path) -> None:
    table = making.make_table(tmp_path / "t", making.on_map())
    for suffix in ALL:
        path = tmp_path / f"Zellen 核 'q'{suffix}"
        write_objects(table, path)
        assert len(read(path)) == 3


def test_a_table_that_had_no_crs_but_a_transform_keeps_its_coordinates(tmp_path: Path) -> None:
    mask = making.mask_of(transform=making.NORTH_UP)
    table = making.make_table(tmp_path / "t", mask)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_objects(table, tmp_path / "a.gpkg")
    found = read(tmp_path / "a.gpkg")
    assert found.crs is None
    assert_same(found, placed(making.shapes(), making.NORTH_UP))
