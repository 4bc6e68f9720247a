"""Summaries of objects against numpy on whole columns."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.objects.tables import CLASSES, blobs, label_mask, scene, table_of, write_table
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.base import PixelSize
from tilepipe.objects import areas, table
from tilepipe.objects.areas import Area, PixelArea, answered_area
from tilepipe.objects.summary import show_objects, summarise_objects
from tilepipe.products.base import MaskSpec
from tilepipe.regions.cells import Region

UTM = "EPSG:32633"


def wkt(code: str) -> str:
    from pyproj import CRS

    return str(CRS.from_user_input(code).to_wkt())


def test_answered_area_is_that_of_pixels_with_an_answer(tmp_path):
    labels = blobs(300, 200)
    mask = label_mask(tmp_path / "m.ome.zarr", labels)
    area = answered_area(mask, mask.spec)
    assert area.pixels == np.count_nonzero(labels != 255)
    assert area.size == pytest.approx(area.pixels * 0.25 * 0.5e-6)


def test_answered_area_of_tissue_is_what_is_inside(tmp_path):
    labels = blobs(300, 200)
    mask = label_mask(tmp_path / "m.ome.zarr", labels)
    tissue = np.zeros(labels.shape, bool)
    tissue[30:200, 40:90] = True
    found = answered_area(mask, mask.spec, lambda window: tissue[window.slices()])
    assert found.pixels == np.count_nonzero(tissue & (labels != 255))


def test_tissue_may_be_the_region_of_a_run(tmp_path):
    labels = blobs(320, 240)
    mask = label_mask(tmp_path / "m.ome.zarr", labels)
    cells = np.random.default_rng(0).random((20, 15)) > 0.5
    found = answered_area(mask, mask.spec, Region(320, 240, 16, cells).inside)
    inside = cells.repeat(16, 0).repeat(16, 1)
    assert found.pixels == np.count_nonzero(inside & (labels != 255))


def test_a_pixel_of_planes_is_answered_if_any_plane_is(tmp_path):
    from tilepipe.products.store import create_mask

    planes = np.full((3, 20, 30), 255, np.uint8)
    planes[0, :5], planes[1, :, :7] = 0, 1
    mask = create_mask(tmp_path / "m.ome.zarr", MaskSpec(20, 30, "planes", CLASSES))
    mask.write(Window(0, 0, 20, 30), planes)
    found = answered_area(mask, mask.spec)
    assert found.pixels == 5 * 30 + 15 * 7
    assert found.size == pytest.approx(found.pixels / 1e6)


def test_windows_do_not_change_the_area(tmp_path, monkeypatch):
    mask = label_mask(tmp_path / "m.ome.zarr", blobs(700, 600))
    whole = answered_area(mask, mask.spec)
    monkeypatch.setattr(areas, "SIDE", 97)
    assert answered_area(mask, mask.spec) == whole


def test_the_mask_of_other_objects_is_refused(tmp_path):
    mask = label_mask(tmp_path / "m.ome.zarr", blobs(30, 20))
    with pytest.raises(InputError, match="has 20 x 30 pixels, and the objects are those"):
        answered_area(mask, MaskSpec(30, 21, "labels", CLASSES))


@pytest.mark.parametrize("rows", [1 << 16, 7])
def test_figures_are_those_of_the_columns(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(table, "ROWS", rows)
    labels = blobs(300, 200)
    mask = label_mask(tmp_path / "m.ome.zarr", labels)
    objects = table_of(tmp_path / "objects.zarr", mask, labels)
    answered = answered_area(mask, mask.spec)
    summary = summarise_objects(objects, answered, Area(1000, answered.size / 4))
    assert summary.unit.large == "mm2"
    kinds, sizes = objects.column("class"), objects.column("area")
    for figures, mine in zip(
        (*summary.classes, summary.total), (kinds == 1, kinds == 2, kinds > 0), strict=True
    ):
        assert figures.count == mine.sum() > 20
        assert figures.density == pytest.approx(mine.sum() / answered.size)
        assert figures.tissue_density == pytest.approx(4 * mine.sum() / answered.size)
        assert figures.area == pytest.approx(sizes[mine].sum() / 1e6)
        assert figures.share == pytest.approx(sizes[mine].sum() / 1e6 / answered.size)
        assert figures.typical["area"].mean == pytest.approx(sizes[mine].mean())
        assert figures.typical["area"].median == np.median(sizes[mine])
    share = np.count_nonzero(labels == 1) / np.count_nonzero(labels != 255)
    assert summary.classes[0].share == pytest.approx(share)
    assert json.loads(json.dumps(summary.to_json(), allow_nan=False))["all"]["count"] == len(kinds)


def test_values_that_are_missing_count_for_nothing(tmp_path):
    spec = MaskSpec(10, 10, "labels", CLASSES, background=0)
    rows = np.array([[1, np.nan, 1, 1], [1, 4.0, 2, 2], [2, np.nan, 3, 3]])
    summary = summarise_objects(write_table(tmp_path / "t", spec, rows), Area(100, 1e-4))
    assert summary.classes[0].typical["area"].mean == 4
    assert "area" not in summary.classes[1].typical


def test_no_objects_and_no_answer_are_no_error(tmp_path):
    spec = MaskSpec(10, 10, "labels", CLASSES, background=0)
    summary = summarise_objects(
        write_table(tmp_path / "t", spec, np.zeros((0, 4)), partial="blocks are missing"),
        Area(0, 0.0),
    )
    assert [c.name for c in summary.classes] == ["nucleus", "gland"]
    assert summary.total.count == 0
    assert summary.total.density is None
    assert "blocks are missing" in show_objects(summary)
    json.dumps(summary.to_json(), allow_nan=False)


def test_classes_are_those_of_the_rule(tmp_path):
    spec = MaskSpec(10, 10, "labels", CLASSES, background=0)
    objects = write_table(
        tmp_path / "t", spec, np.array([[1, 3.0, 1, 1]]), rule={"classes": ["nucleus"]}
    )
    summary = summarise_objects(objects, Area(100, 1e-4))
    assert [c.name for c in summary.classes] == ["nucleus"]
    assert len(show_objects(summary).splitlines()) == 2


def test_lines_say_how_many_how_dense_and_how_large(tmp_path):
    spec = MaskSpec(
        1000, 1000, "labels", CLASSES[:2], PixelSize(0.5, 0.5, "micrometer"), background=0
    )
    rows = np.array([[1, 20.0, 5, 5], [1, 30.0, 9, 9]])
    summary = summarise_objects(write_table(tmp_path / "t", spec, rows), Area(10**6, 0.25))
    line, answered = show_objects(summary).splitlines()
    assert line.split() == (
        [
            "nucleus",
            "2",
            "objects,",
            "8",
            "per",
            "mm²,",
            "0.02%",
            "of",
            "the",
            "area,",
            "median",
            "25",
            "µm²",
        ]
    )
    assert answered.split() == ["objects", "in", "0.25", "mm²", "with", "an", "answer"]


@pytest.mark.parametrize(
    ("metres", "large"), [(0.1, "ha"), (1.0, "ha"), (10.0, "km2")], ids=["10 cm", "1 m", "10 m"]
)
def test_units_on_the_ground_follow_the_pixel_size(metres, large):
    place = {"crs": wkt(UTM), "transform": (metres, 0, 5e5, 0, -metres, 6e6)}
    spec = MaskSpec(10, 10, "labels", CLASSES, PixelSize(metres, metres, "meter"), **place)
    pixel = PixelArea(spec)
    assert (pixel.unit.small, pixel.unit.large) == ("m2", large)
    assert pixel.of(Window(0, 0, 10, 10), np.ones((10, 10), bool)) == pytest.approx(
        100 * metres**2 / {"ha": 1e4, "km2": 1e6}[large]
    )


@pytest.mark.parametrize(
    ("code", "step"), [("EPSG:32633", 10.0), ("EPSG:4326", 1e-3), ("EPSG:3857", 20.0)]
)
def test_areas_are_those_on_the_ground(tmp_path, code, step):
    from pyproj import CRS, Geod, Transformer

    labels = np.zeros((400, 500), np.uint8)
    labels[:40] = 255
    place = scene(code, step)
    mask = label_mask(tmp_path / "m.ome.zarr", labels, **place)
    a, _, c, _, e, f = place["transform"]
    ring_x = np.concatenate([np.linspace(0, 500, 501), np.full(361, 500.0),
                             np.linspace(500, 0, 501), np.zeros(361)])  # fmt: skip
    ring_y = np.concatenate([np.full(501, 40.0), np.linspace(40, 400, 361),
                             np.full(501, 400.0), np.linspace(400, 40, 361)])  # fmt: skip
    lon, lat = Transformer.from_crs(code, "OGC:CRS84", always_xy=True).transform(
        a * ring_x + c, e * ring_y + f
    )
    geod = CRS.from_user_input(code).get_geod() or Geod(ellps="WGS84")
    expected = abs(geod.polygon_area_perimeter(lon, lat)[0]) / 1e6
    found = answered_area(mask, mask.spec)
    assert found.pixels == 360 * 500
    assert found.size == pytest.approx(expected, rel=2e-3 if code == "EPSG:32633" else 1e-4)
    assert not math.isclose(found.size, 360 * 500 * step**2 / 1e6, rel_tol=0.1) or (
        code == "EPSG:32633"
    )
