"""GeoJSON as QuPath imports it, and as RFC 7946 has it."""

from __future__ import annotations

import gzip
import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from pyproj import CRS, Transformer
from shapely.geometry import shape

from tests.objects.formats import making
from tilepipe.errors import InputError
from tilepipe.objects.formats import registry, write_objects
from tilepipe.objects.shaped import shaped
from tilepipe.objects.table import Column, ImagePlace, ObjectTable
from tilepipe.products.base import MaskClass


def written(table: ObjectTable, path: Path) -> Any:
    write_objects(table, path)
    return json.loads(path.read_text("utf-8"))


def geometries(document: Any) -> list[Any]:
    return [shape(feature["geometry"]) for feature in document["features"]]


def test_qupath_gets_detections_with_classes_and_measurements(tmp_path: Path) -> None:
    document = written(making.make_table(tmp_path / "t"), tmp_path / "a.geojson")
    assert document["type"] == "FeatureCollection"
    first, second, _ = document["features"]
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["classification"] == {
        "name": 'nucleus "A", <b>',
        "color": [0xE6, 0x19, 0x4B],
    }
    assert second["properties"]["classification"]["name"] == "Zellkern µ 核"
    measured = first["properties"]["measurements"]
    assert measured["Number"] == 1
    assert measured["Area µm^2"] == 275.0
    assert measured["Mean probability"] == 0.1
    assert "Major axis µm" in measured


def test_a_measurement_that_is_not_known_is_left_out(tmp_path: Path) -> None:
    document = written(making.make_table(tmp_path / "t"), tmp_path / "a.geojson")
    assert "Mean probability" not in document["features"][1]["properties"]["measurements"]


def test_coordinates_are_whole_pixels_and_outlines_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    document = written(making.make_table(tmp_path / "t"), path)
    assert "10.0" not in path.read_text()
    for found, meant in zip(geometries(document), making.shapes(), strict=True):
        assert found.normalize().equals_exact(meant.normalize())
    kinds = [feature["geometry"]["type"] for feature in document["features"]]
    assert kinds == ["Polygon", "Polygon", "MultiPolygon"]
    for polygon in geometries(document)[:2]:
        for ring in (polygon.exterior, *polygon.interiors):
            assert ring.coords[0] == ring.coords[-1]


def test_coordinates_are_those_of_level_0_of_the_image(tmp_path: Path) -> None:
    place = ImagePlace("a.svs", 1600, 2400, 4.0, 4.0, 8.0, 16.0)
    document = written(making.make_table(tmp_path / "t", image=place), tmp_path / "a.geojson")
    assert geometries(document)[1].bounds == (216, 48, 256, 128)
    place = ImagePlace("a.svs", 1600, 2400, 1.3333, 1.3333)
    document = written(making.make_table(tmp_path / "u", image=place), tmp_path / "b.geojson")
    assert geometries(document)[1].bounds == pytest.approx((66.665, 13.333, 79.998, 39.999))


def test_ids_are_uuids_of_the_content(tmp_path: Path) -> None:
    table = making.make_table(tmp_path / "t")
    ids = [f["id"] for f in written(table, tmp_path / "a.geojson")["features"]]
    assert ids == [f["id"] for f in written(table, tmp_path / "b.geojson")["features"]]
    assert len(set(ids)) == 3
    assert all(uuid.UUID(each).version == 5 for each in ids)
    other = making.make_table(tmp_path / "u", model={"name": "m", "fingerprint": "cd"})
    others = [f["id"] for f in written(other, tmp_path / "c.geojson")["features"]]
    assert not set(ids) & set(others)


@pytest.mark.parametrize("mask", [None, making.on_map()], ids=["slide", "map"])
def test_no_objects_are_an_empty_collection(tmp_path: Path, mask: Any) -> None:
    table = making.make_table(tmp_path / "t", mask, [])
    document = written(table, tmp_path / "a.geojson")
    assert document == {"type": "FeatureCollection", "features": []}


def test_gz_has_the_same_content_and_no_time(tmp_path: Path) -> None:
    table = making.make_table(tmp_path / "t")
    write_objects(table, tmp_path / "a.geojson")
    for name in ("a", "b"):
        write_objects(table, tmp_path / f"{name}.geojson.gz")
    zipped = (tmp_path / "a.geojson.gz").read_bytes()
    assert gzip.decompress(zipped) == (tmp_path / "a.geojson").read_bytes()
    assert zipped == (tmp_path / "b.geojson.gz").read_bytes()
    assert zipped[4:8] == b"\0\0\0\0"


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (making.UTM, making.NORTH_UP),
        (making.UTM, making.ROTATED),
        ("EPSG:4326", making.DEGREES),
        ("EPSG:3857", making.NORTH_UP),
    ],
)
def test_with_a_crs_coordinates_are_longitude_and_latitude(
    tmp_path: Path, crs: str, transform: Any
) -> None:
    table = making.make_table(tmp_path / "t", making.on_map(crs, transform))
    found = geometries(written(table, tmp_path / "a.geojson"))
    a, b, c, d, e, f = transform
    to_earth = Transformer.from_crs(CRS(crs), "OGC:CRS84", always_xy=True)

    def moved(points: Any) -> Any:
        x, y = np.asarray(points).T
        return np.stack(to_earth.transform(a * x + b * y + c, d * x + e * y + f), axis=1)

    for got, meant in zip(found, making.shapes(), strict=True):
        assert got.normalize().equals_exact(
            shapely.transform(meant, moved).normalize(), tolerance=1e-6
        )
        for polygon in shapely.get_parts(got):
            assert polygon.exterior.is_ccw
            assert not any(ring.is_ccw for ring in polygon.interiors)


def test_properties_on_maps_are_flat_and_name_their_units(tmp_path: Path) -> None:
    table = making.make_table(tmp_path / "t", making.on_map())
    first, second, _ = written(table, tmp_path / "a.geojson")["features"]
    assert first["id"] == first["properties"]["number"] == 1
    assert first["properties"]["class"] == 'nucleus "A", <b>'
    assert first["properties"]["fill"] == "#e6194b"
    assert first["properties"]["area_um2"] == 275.0
    assert second["properties"]["mean_probability"] is None
    assert {"mean_Red", "mean_red_2", "fid_2", "geometry_2"} <= set(first["properties"])


def test_coordinates_have_7_decimals_or_what_small_pixels_need(tmp_path: Path) -> None:
    table = making.make_table(tmp_path / "t", making.on_map())
    document = written(table, tmp_path / "a.geojson")
    digits = [
        len(repr(number).partition(".")[2])
        for ring in document["features"][0]["geometry"]["coordinates"]
        for point in ring
        for number in point
    ]
    assert max(digits) == 7
    fine = making.on_map(transform=(0.01, 0.0, 300_000.0, 0.0, -0.01, 5_600_000.0))
    small = geometries(written(making.make_table(tmp_path / "u", fine), tmp_path / "b.geojson"))
    assert all(shapely.is_valid(small))


def test_objects_that_cross_180_degrees_are_cut(tmp_path: Path) -> None:
    mask = making.on_map("EPSG:4326", (0.01, 0.0, 179.8, 0.0, -0.01, 10.0))
    table = making.make_table(tmp_path / "t", mask)
    ring, square, corner = geometries(written(table, tmp_path / "a.geojson"))
    assert ring.geom_type == "MultiPolygon"
    assert sorted(part.bounds[0] for part in ring.geoms) == [-180.0, 179.9]
    assert ring.area == pytest.approx((40 * 30 - 100) * 1e-4)
    assert square.bounds == (-179.7, 9.7, -179.6, 9.9)
    assert len(corner.geoms) == 2
    assert all(shapely.is_valid([ring, square, corner]))
    for part in ring.geoms:
        assert part.exterior.is_ccw


def test_an_object_across_the_edge_of_a_utm_zone_is_cut_at_180_degrees(tmp_path: Path) -> None:
    # Zone 60 ends at 180 degrees, and images go on.
    mask = making.on_map("EPSG:32660", (1000.0, 0.0, 700_000.0, 0.0, -1000.0, 1_000_000.0))
    table = making.make_table(tmp_path / "t", mask, [making.box(0, 0, 200, 100)])
    (found,) = geometries(written(table, tmp_path / "a.geojson"))
    assert found.geom_type == "MultiPolygon"
    west, _, east, _ = found.bounds
    assert (west, east) == (-180, 180)
    assert found.area < 3


def test_an_object_around_the_pole_reaches_it(tmp_path: Path) -> None:
    mask = making.on_map("EPSG:3031", (1000.0, 0.0, -100_000.0, 0.0, -1000.0, 100_000.0))
    around = shapely.Polygon(
        [(50, 50), (50, 150), (150, 150), (150, 50)],
        [[(90, 90), (90, 110), (110, 110), (110, 90)]],
    )
    whole = making.box(50, 50, 150, 150)
    table = making.make_table(tmp_path / "t", mask, [whole, around])
    disc, ring = geometries(written(table, tmp_path / "a.geojson"))
    assert disc.bounds[:2] == (-180, -90)
    assert ring.bounds[1] > -90
    assert shapely.is_valid(disc)
    assert shapely.is_valid(ring)


def test_objects_without_a_longitude_are_refused(tmp_path: Path) -> None:
    mask = making.on_map("ESRI:102038", (100_000.0, 0.0, -30e6, 0.0, -100_000.0, 20e6))
    table = making.make_table(tmp_path / "t", mask)
    with pytest.raises(InputError, match="no longitude and latitude"):
        write_objects(table, tmp_path / "a.geojson")
    assert not list(tmp_path.glob("a.geojson*"))


def test_a_table_without_outlines_is_refused(tmp_path: Path) -> None:
    table = making.make_table(tmp_path / "t", outlines=False)
    with pytest.raises(InputError, match="has no outlines"):
        write_objects(table, tmp_path / "a.geojson")
    assert not list(tmp_path.glob("a.geojson*"))


def test_batches_do_not_show_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = making.make_table(tmp_path / "t")
    write_objects(table, tmp_path / "a.geojson")
    monkeypatch.setattr("tilepipe.objects.formats.records.FIRST_BATCH", 1)
    write_objects(table, tmp_path / "b.geojson")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_simpler_outlines_are_written(tmp_path: Path) -> None:
    table = shaped(making.make_table(tmp_path / "t", geometries=[making.box(0, 0, 8, 8)]), "simple")
    (found,) = geometries(written(table, tmp_path / "a.geojson"))
    assert found.is_valid
    assert 48 < found.area < 64


def test_names_that_qupath_refuses_are_changed(tmp_path: Path) -> None:
    names = ("background", " : ", "Tumor: Positive", "Tumor::")
    classes = tuple(MaskClass(name, "#102030") for name in names)
    mask = replace(making.mask_of(), classes=classes)
    twice = (*making.COLUMNS, Column("mean_b", "float32", title="Mean red"))
    table = making.make_table(tmp_path / "t", mask, columns=twice)
    features = written(table, tmp_path / "a.geojson")["features"]
    found = [feature["properties"]["classification"]["name"] for feature in features]
    assert found == ["Class 1", "Tumor: Positive", "Tumor"]
    assert {"Mean red", "Mean red (2)"} <= set(features[0]["properties"]["measurements"])


def test_other_suffixes_are_refused() -> None:
    with pytest.raises(InputError, match="suffix of objects"):
        registry.require_writable_format(Path("a.shp"))
    assert registry.objects_format(Path(".csv")) is None
