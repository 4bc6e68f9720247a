"""Objects opened from each of the files that hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shapely

import tilepipe
from tests.objects.formats import making
from tilepipe.errors import InputError
from tilepipe.objects.formats import write_objects

pandas = pytest.importorskip("pandas", reason="pandas shows what is read")
geopandas = pytest.importorskip("geopandas", reason="geopandas shows what is read")
pytest.importorskip("pyogrio", reason="pyogrio reads GeoPackage and FlatGeobuf")

WITH_OUTLINES = ("zarr", "parquet", "gpkg", "fgb", "geojson", "geojson.gz")
EVERY = (*WITH_OUTLINES, "csv", "csv.gz")


def opened(folder: Path, suffix: str, mask: Any = None, shapes: Any = None) -> Any:
    table = making.make_table(folder / "mask.ome.zarr" / "objects", mask, shapes)
    if suffix == "zarr":
        return tilepipe.open_objects(folder / "mask.ome.zarr")
    path = folder / f"a.{suffix}"
    write_objects(table, path)
    return tilepipe.open_objects(str(path))


@pytest.mark.parametrize("suffix", EVERY)
def test_length_columns_and_rows(tmp_path: Path, suffix: str) -> None:
    objects = opened(tmp_path, suffix)
    assert len(objects) == 3
    assert "class" in objects.columns
    assert "geometry" not in objects.columns
    frame = objects.to_pandas()
    assert list(frame.columns) == list(objects.columns)
    assert sorted(frame["class"]) == sorted(['nucleus "A", <b>', "Zellkern µ 核", "=bell\\x07\\n"])
    assert sum(map(len, objects.batches())) == 3
    assert objects.to_arrow().read_all().num_rows == 3
    assert "3 objects" in repr(objects)


@pytest.mark.parametrize("suffix", WITH_OUTLINES)
@pytest.mark.parametrize("mask", [None, making.on_map()], ids=["slide", "map"])
def test_outlines_are_geometries_in_the_crs_of_the_file(
    tmp_path: Path, suffix: str, mask: Any
) -> None:
    objects = opened(tmp_path, suffix, mask)
    frame = objects.to_geopandas()
    json_like = suffix.startswith("geojson")
    if mask is None:
        assert frame.crs is None
        scale = 1 if json_like else 0.5
        assert frame.area.sum() == pytest.approx(1700 * scale**2)
    else:
        assert frame.crs == ("OGC:CRS84" if json_like else making.UTM)
        assert frame.to_crs(making.UTM).area.sum() == pytest.approx(170_000, rel=1e-2)


@pytest.mark.parametrize("suffix", EVERY)
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_dask_reads_partitions(tmp_path: Path, suffix: str, rows: int) -> None:
    objects = opened(tmp_path, suffix)
    lazy = objects.to_dask(rows=rows)
    assert lazy.npartitions == -(-3 // rows)
    found = lazy.compute(scheduler="synchronous").drop(columns="geometry", errors="ignore")
    pandas.testing.assert_frame_equal(found, objects.to_pandas(), check_dtype=False)


@pytest.mark.parametrize("suffix", WITH_OUTLINES)
def test_dask_has_outlines_with_dask_geopandas(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("dask_geopandas", reason="dask-geopandas has outlines in dask")
    objects = opened(tmp_path, suffix, making.on_map())
    lazy = objects.to_dask(rows=2)
    meant = objects.to_geopandas()
    areas = lazy.geometry.to_crs(making.UTM).area
    assert areas.sum().compute() == pytest.approx(meant.to_crs(making.UTM).area.sum())
    found = lazy.compute(scheduler="synchronous")
    assert isinstance(found, geopandas.GeoDataFrame)
    assert found.crs == meant.crs
    assert found.geometry.geom_equals(meant.geometry).all()


@pytest.mark.parametrize("suffix", EVERY)
def test_no_objects(tmp_path: Path, suffix: str) -> None:
    objects = opened(tmp_path, suffix, shapes=[])
    assert len(objects) == 0
    assert len(objects.to_pandas()) == 0
    assert len(objects.to_dask().compute(scheduler="synchronous")) == 0
    if objects.outlines:
        assert len(objects.to_geopandas()) == 0


@pytest.mark.parametrize("suffix", EVERY)
def test_some_rows(tmp_path: Path, suffix: str) -> None:
    objects = opened(tmp_path, suffix)
    whole = objects.to_arrow().read_all()
    assert objects.read(1, 3).to_pylist() == whole.slice(1, 2).to_pylist()
    assert objects.read(2, 99).to_pylist() == whole.slice(2, 1).to_pylist()
    assert objects.read(5, 9).num_rows == 0


def test_a_measurement_that_some_objects_lack_is_a_column(tmp_path: Path) -> None:
    objects = opened(tmp_path, "geojson")
    frame = objects.to_pandas()
    assert frame["Mean probability"].isna().tolist() == [False, True, False]
    assert frame["objectType"].unique().tolist() == ["detection"]


def test_geojson_of_others(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    collection = {
        "type": "FeatureCollection",
        "name": "x",
        "features": [
            {
                "type": "Feature",
                "geometry": json.loads(shapely.to_geojson(making.box(0, 0, 1, 1))),
                "properties": {"a": value, "b": {"c": 1}},
            }
            for value in (1, 2.5, None)
        ],
    }
    path.write_text(json.dumps(collection, indent=1))
    frame = tilepipe.open_objects(path).to_geopandas()
    assert frame["a"].tolist()[:2] == [1.0, 2.5]
    assert frame["b"][0] == '{"c": 1}'
    assert frame.crs == "OGC:CRS84"


def test_parquet_and_geopackage_of_others(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame({"a": [1, 2]}, geometry=making.shapes()[:2], crs="EPSG:3857")
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_file(tmp_path / "a.gpkg", layer="x")
    for name in ("a.parquet", "a.gpkg"):
        objects = tilepipe.open_objects(tmp_path / name)
        assert objects.columns == ("a",)
        assert objects.to_geopandas().crs == "EPSG:3857"


def test_csv_has_no_outlines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="to_pandas"):
        opened(tmp_path, "csv").to_geopandas()


def test_a_class_whose_name_is_a_number_stays_a_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("number,class\n1,7\n")
    assert tilepipe.open_objects(path).to_pandas()["class"].tolist() == ["7"]


def test_what_is_not_there_or_broken_is_named(tmp_path: Path) -> None:
    for name in ("a.gpkg", "a.ome.zarr"):
        with pytest.raises(InputError, match="does not exist"):
            tilepipe.open_objects(tmp_path / name)
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(InputError, match="holds no objects"):
        tilepipe.open_objects(tmp_path / "b.zarr")
    for suffix in ("parquet", "gpkg", "fgb", "geojson", "geojson.gz"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(b"\x00nothing")
        with pytest.raises(InputError, match="cannot be read"):
            tilepipe.open_objects(path)
