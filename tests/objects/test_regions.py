"""Objects by region: against geopandas and whole rasters, and in files."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
import shapely

from tests.objects.tables import CLASSES, blobs, label_mask, scene, table_of, write_table
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.objects import areas, table
from tilepipe.objects.areas import PixelArea, answered_area
from tilepipe.objects.region_files import write_regions
from tilepipe.objects.regions import Rasterised, layer_for, show_regions, summarise_regions
from tilepipe.objects.table import ImagePlace
from tilepipe.regions.features import Feature
from tilepipe.regions.layers import NamedRegion, RegionLayer

HEIGHT, WIDTH = 300, 420


def layer_of(*shapes, crs=None):
    regions = tuple(NamedRegion(shape, Feature(f"r{n}", shape)) for n, shape in enumerate(shapes))
    return RegionLayer("drawn", regions, crs)


def star(x, y, radius, corners=11, seed=0):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = radius * rng.uniform(0.3, 1, corners)
    return shapely.Polygon(np.stack((x + reach * np.cos(angles), y + reach * np.sin(angles)), -1))


SHAPES = (
    star(100, 120, 90),
    star(220, 150, 140, 60, seed=1),
    shapely.Point(300, 100).buffer(80).difference(shapely.Point(300, 100).buffer(30)),
    shapely.MultiPolygon([shapely.box(-50, -50, 20, 330), shapely.box(390.2, 3.3, 700, 90.1)]),
    shapely.box(-10, -10, WIDTH + 10, HEIGHT + 10),
)


@pytest.fixture
def made(tmp_path):
    labels = blobs(HEIGHT, WIDTH)
    mask = label_mask(tmp_path / "m.ome.zarr", labels)
    return labels, mask, table_of(tmp_path / "objects.zarr", mask, labels)


@pytest.mark.parametrize("rows", [1 << 16, 13])
def test_counts_are_those_of_a_spatial_join(made, monkeypatch, rows):
    geopandas = pytest.importorskip("geopandas")
    monkeypatch.setattr(table, "ROWS", rows)
    _, mask, objects = made
    summary = summarise_regions(objects, mask, layer_of(*SHAPES))
    frame = geopandas.GeoDataFrame(
        {"class": objects.column("class"), "area": objects.column("area")},
        geometry=shapely.points(objects.column("centroid_x"), objects.column("centroid_y")),
    )
    joined = frame.sjoin(geopandas.GeoDataFrame(geometry=list(SHAPES)), predicate="within")
    for number, found in enumerate(summary.regions):
        mine = joined[joined.index_right == number]
        for figures, kind in zip(found.classes, (1, 2), strict=True):
            assert figures.count == (mine["class"] == kind).sum()
            assert figures.area == pytest.approx(mine["area"][mine["class"] == kind].sum() / 1e6)
        assert found.total.count == len(mine) > 0
    assert summary.outside == 0
    few = summarise_regions(objects, mask, layer_of(*SHAPES[:3]))
    assert few.outside == len(frame) - joined[joined.index_right < 3].index.nunique()


@pytest.mark.parametrize("side", [2048, 64, 37])
def test_areas_are_those_of_pixels_whose_centre_is_inside(made, monkeypatch, side):
    from rasterio.features import rasterize

    monkeypatch.setattr(areas, "SIDE", side)
    labels, mask, objects = made
    summary = summarise_regions(objects, mask, layer_of(*SHAPES))
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    for shape, found in zip(SHAPES, summary.regions, strict=True):
        inside = shapely.contains_xy(shape, x, y)
        np.testing.assert_array_equal(inside, rasterize([shape], labels.shape, dtype="uint8") > 0)
        assert found.answered.pixels == np.count_nonzero(inside & (labels != 255))
        assert found.answered.size == pytest.approx(found.answered.pixels * 0.125e-6)
        assert found.total.density == pytest.approx(found.total.count / found.answered.size)


def test_a_region_of_everything_has_the_figures_of_the_mask(made):
    _, mask, objects = made
    (found,) = summarise_regions(objects, mask, layer_of(shapely.box(-9, -9, 999, 999))).regions
    assert found.answered == answered_area(mask, mask.spec)
    assert found.total.count == len(objects)


def test_regions_that_share_borders_count_each_object_and_pixel_once(tmp_path):
    labels = np.zeros((64, 64), np.uint8)
    mask = label_mask(tmp_path / "m.ome.zarr", labels)
    y, x = np.mgrid[0.5:64:0.5, 0.5:64:0.5]
    rows = np.stack((np.ones(x.size), np.ones(x.size), x.ravel(), y.ravel()), -1)
    objects = write_table(tmp_path / "t", mask.spec, rows)
    cuts = [0, 10, 30.5, 31.5, 64]
    tiles = [shapely.box(a, c, b, d) for a, b in itertools.pairwise(cuts)
             for c, d in itertools.pairwise(cuts)]  # fmt: skip
    slanted = list(shapely.ops.split(tiles[-1], shapely.LineString([(31.5, 31.5), (64, 64)])).geoms)
    summary = summarise_regions(objects, mask, layer_of(*tiles[:-1], *slanted))
    assert sum(found.total.count for found in summary.regions) == len(rows)
    assert summary.outside == 0
    assert sum(found.answered.pixels for found in summary.regions) == 64 * 64


def test_a_window_of_a_raster_is_a_part_of_the_whole():
    shape = star(50, 50, 60, 200, seed=3).buffer(0)
    inside = Rasterised(shape)
    whole = inside(Window(0, 0, 100, 100))
    assert whole.any()
    assert not whole.all()
    for window in (Window(13, 29, 31, 17), Window(90, 90, 10, 10), Window(45, 45, 2, 2)):
        np.testing.assert_array_equal(inside(window), whole[window.slices()])


@pytest.mark.parametrize(
    ("code", "step"), [("EPSG:32633", 10.0), ("EPSG:4326", 1e-3), ("EPSG:3857", 20.0)]
)
def test_densities_of_regions_are_on_the_ground(tmp_path, code, step):
    labels = blobs(HEIGHT, WIDTH)
    mask = label_mask(tmp_path / "m.ome.zarr", labels, **scene(code, step))
    objects = table_of(tmp_path / "objects.zarr", mask, labels)
    (found,) = summarise_regions(objects, mask, layer_of(SHAPES[2])).regions
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    inside = shapely.contains_xy(SHAPES[2], x, y) & (labels != 255)
    expected = PixelArea(mask.spec).of(Window(0, 0, HEIGHT, WIDTH), inside)
    assert found.answered.size == pytest.approx(expected, rel=1e-9)
    assert found.total.density == pytest.approx(found.total.count / expected)
    assert 0 < found.total.share < 1


def test_a_region_beside_the_mask_has_no_density(made):
    _, mask, objects = made
    (here, beside) = summarise_regions(
        objects, mask, layer_of(SHAPES[0], shapely.box(900, 0, 950, 9))
    ).regions
    assert here.total.density is not None
    assert (beside.total.count, beside.answered.size, beside.total.density) == (0, 0, None)


def test_lines_say_how_many_and_where(made):
    _, mask, objects = made
    away = shapely.box(900, 0, 950, 9)
    summary = summarise_regions(objects, mask, layer_of(SHAPES[0], away, away))
    first, second, more, outside = show_regions(summary, most=2).splitlines()
    number = summary.regions[0].total.count
    assert first.split()[:3] == ["r0", str(number), "objects,"]
    assert " per mm², in " in first
    assert second.endswith("0 objects, and no pixel with an answer")
    assert more == "and 1 more region"
    assert outside.split()[-2:] == [f"{len(objects) - number:,}", "objects"]


def test_a_table_without_centroids_is_refused(tmp_path, made):
    from tilepipe.objects.table import Column, ObjectsInfo, TableWriter, open_table

    _, mask, _ = made
    columns = (Column("number", "uint32"), Column("class", "uint8"))
    writer = TableWriter(tmp_path / "t", columns, outlines=False)
    writer.finish(ObjectsInfo(mask.spec, columns, 0, outlines=False))
    with pytest.raises(InputError, match="no centroids"):
        summarise_regions(open_table(tmp_path / "t"), mask, layer_of(*SHAPES))


def test_regions_of_an_image_are_placed_on_its_mask(tmp_path):
    labels = blobs(HEIGHT, WIDTH)
    mask = label_mask(tmp_path / "m.ome.zarr", labels)
    image = ImagePlace("slide.svs", 1200, 1700, 4.0, 4.0, 0.0, 20.0)
    objects = table_of(tmp_path / "objects.zarr", mask, labels, image)
    path = tmp_path / "a.geojson"
    drawn = shapely.affinity.affine_transform(SHAPES[0], (4, 0, 0, 4, 20, 0))
    path.write_text(shapely.to_geojson(drawn))
    layer = layer_for(str(path), objects.info)
    assert shapely.hausdorff_distance(layer.regions[0].shape, SHAPES[0]) < 1e-9
    found, expected = (
        summarise_regions(objects, mask, each).regions[0] for each in (layer, layer_of(SHAPES[0]))
    )
    assert (found.total, found.answered) == (expected.total, expected.answered)


def test_the_table_has_a_row_for_each_region_and_class(tmp_path, made):
    _, mask, objects = made
    summary = summarise_regions(objects, mask, layer_of(*SHAPES))
    for name in ("a.csv", "b.csv"):
        write_regions(summary, tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["nucleus", "gland", "(all)"] * len(SHAPES)
    assert [row["region"] for row in rows[::3]] == ["1", "2", "3", "4", "5"]
    for row, figures in zip(rows, [f for r in summary.regions for f in r.rows], strict=True):
        assert int(row["objects"]) == figures.count
        assert float(row["density_per_mm2"]) == figures.density
        assert float(row["mean_area_um2"]) == pytest.approx(figures.area * 1e6 / figures.count)
        assert float(row["area_share"]) == figures.share


def test_json_holds_the_figures(tmp_path, made):
    _, mask, objects = made
    summary = summarise_regions(objects, mask, layer_of(*SHAPES))
    write_regions(summary, tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["units"]["density"] == "per mm2"
    counts = [region["all"]["count"] for region in document["regions"]]
    assert counts == [found.total.count for found in summary.regions]


def test_geojson_of_a_slide_has_annotations_with_measurements(tmp_path, made):
    _, mask, objects = made
    summary = summarise_regions(objects, mask, layer_of(*SHAPES))
    write_regions(summary, tmp_path / "a.geojson")
    document = json.loads((tmp_path / "a.geojson").read_text())
    for item, found, shape in zip(document["features"], summary.regions, SHAPES, strict=True):
        assert item["properties"]["objectType"] == "annotation"
        measured = item["properties"]["measurements"]
        assert measured["objects"] == found.total.count
        assert measured["nucleus per mm2"] == found.classes[0].density
        assert shapely.equals(shapely.geometry.shape(item["geometry"]), shape)


def test_fields_of_a_single_class_are_those_of_all_objects(tmp_path):
    labels = np.minimum(blobs(HEIGHT, WIDTH), 1)
    mask = label_mask(tmp_path / "m.ome.zarr", labels, classes=CLASSES[:2])
    objects = table_of(tmp_path / "objects.zarr", mask, labels)
    summary = summarise_regions(objects, mask, layer_of(SHAPES[0]))
    write_regions(summary, tmp_path / "a.geojson")
    (item,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert set(item["properties"]["measurements"]) == {
        "answered mm2", "objects", "per mm2", "area share", "mean area um2",
    }  # fmt: skip


def test_geojson_keeps_what_else_is_said_of_a_region(tmp_path, made):
    _, mask, objects = made
    features = [
        {
            "type": "Feature", "id": f"uuid-{n}", "geometry": json.loads(shapely.to_geojson(shape)),
            "properties": {
                "objectType": "annotation", "classification": {"name": "Tumor", "color": [9, 8, 7]},
                "isLocked": True, "measurements": measured,
            },
        }
        for n, (shape, measured) in enumerate(
            zip(SHAPES, ({"a": 1.5}, [{"name": "a", "value": 1.5}], None, {}, {}), strict=True)
        )
    ]  # fmt: skip
    path = tmp_path / "in.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    summary = summarise_regions(objects, mask, layer_for(str(path), objects.info))
    write_regions(summary, tmp_path / "out.geojson")
    written = json.loads((tmp_path / "out.geojson").read_text())["features"]
    for before, after in zip(features, written, strict=True):
        assert after["id"] == before["id"]
        kept = ("objectType", "classification", "isLocked")
        assert all(after["properties"][k] == before["properties"][k] for k in kept)
    assert all(shapely.geometry.shape(after["geometry"]).exterior.is_ccw for after in written[:3])
    count = summary.regions[0].total.count
    assert written[0]["properties"]["measurements"].items() >= {"a": 1.5, "objects": count}.items()
    count = summary.regions[1].total.count
    assert {"name": "objects", "value": count} in written[1]["properties"]["measurements"]
    assert {"name": "a", "value": 1.5} in written[1]["properties"]["measurements"]


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb"])
def test_layers_with_figures_lie_where_they_were_drawn(tmp_path, suffix):
    geopandas = pytest.importorskip("geopandas")
    labels = blobs(HEIGHT, WIDTH)
    place = scene("EPSG:32633", 10.0)
    mask = label_mask(tmp_path / "m.ome.zarr", labels, **place)
    objects = table_of(tmp_path / "objects.zarr", mask, labels)
    a, _, c, _, e, f = place["transform"]
    drawn = [shapely.affinity.affine_transform(s, (a, 0, 0, e, c, f)) for s in SHAPES[:3]]
    geopandas.GeoDataFrame({"name": ["x", "y", "z"]}, geometry=drawn, crs="EPSG:32633").to_crs(
        "EPSG:3035"
    ).to_file(tmp_path / "in.gpkg")
    layer = layer_for(str(tmp_path / "in.gpkg"), objects.info)
    summary = summarise_regions(objects, mask, layer)
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    first.write_text("what was there before")
    for path in (first, second):
        write_regions(summary, path)
    assert first.read_bytes() == second.read_bytes()
    assert not list(tmp_path.glob("*.part*"))
    frame = geopandas.read_file(first)
    assert list(frame["name"]) == ["x", "y", "z"]
    assert list(frame["objects"]) == [found.total.count for found in summary.regions]
    assert list(frame["nucleus per km2"]) == pytest.approx(
        [found.classes[0].density for found in summary.regions]
    )
    back = frame.to_crs("EPSG:32633").geometry
    assert all(
        shapely.hausdorff_distance(one, other) < 0.5 for one, other in zip(back, drawn, strict=True)
    )


def test_other_suffixes_are_refused(tmp_path, made):
    _, mask, objects = made
    summary = summarise_regions(objects, mask, layer_of(*SHAPES[:1]))
    with pytest.raises(InputError, match=r"\.csv, \.json, \.geojson, \.gpkg, \.fgb"):
        write_regions(summary, tmp_path / "a.xlsx")
