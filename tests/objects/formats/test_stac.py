"""STAC items of results, as pystac and stac-pydantic read them where they are installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import shapely

from tests.making import make_model
from tests.objects.formats import making
from tilepipe.errors import InputError
from tilepipe.images.base import RasterGrid
from tilepipe.models.specs import Model
from tilepipe.models.unet import UNetArguments
from tilepipe.objects.formats.stac import UNKNOWN_DATE, acquisition_date, write_stac_item

READ = """
import json, sys
import pystac, stac_pydantic
from pystac.validation.stac_validator import JsonSchemaSTACValidator

path = sys.argv[1]
item = pystac.Item.from_file(path)
document = json.load(open(path))
JsonSchemaSTACValidator().validate_core(document, pystac.STACObjectType.ITEM, "1.1.0")
stac_pydantic.Item.model_validate(document)
print(item.ext.proj.code, item.properties["mlm:name"], sorted(item.assets))
"""


def _python() -> str:
    """A Python that has pystac and stac-pydantic."""
    named = os.environ.get("TILEPIPE_STAC_PYTHON")
    if named:
        return named
    if not all(find_spec(name) for name in ("pystac", "stac_pydantic", "jsonschema")):
        pytest.skip(
            "pystac and stac-pydantic are not installed; set TILEPIPE_STAC_PYTHON to a Python "
            "that has them"
        )
    return sys.executable


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model(UNetArguments(width=2))


def grid_of(crs: str = making.UTM, transform: Any = making.NORTH_UP) -> RasterGrid:
    return making.on_map(crs, transform).grid


def item(folder: Path, model: Model, grid: RasterGrid | None = None, **options: Any) -> Any:
    outputs = [folder / name for name in ("a.tif", "a.ome.zarr", "a.gpkg", "a.png")]
    path = folder / "a.stac.json"
    write_stac_item(outputs, grid or grid_of(), model, path, **options)
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("date", [None, "2024-05-31T10:20:30Z"])
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (making.UTM, making.NORTH_UP),
        (making.UTM, making.ROTATED),
        ("EPSG:4326", (0.01, 0.0, 178.0, 0.0, -0.01, 10.0)),
    ],
)
def test_pystac_and_stac_pydantic_take_it(
    tmp_path: Path, model: Model, date: str | None, crs: str, transform: Any
) -> None:
    item(tmp_path, model, grid_of(crs, transform), date=date)
    command = [_python(), "-c", READ, str(tmp_path / "a.stac.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = ["a.gpkg", "a.ome.zarr", "a.png", "a.tif", "model"]
    assert done.stdout.strip() == f"{crs} {model.name} {names}"


def test_it_says_where_the_image_is(tmp_path: Path, model: Model) -> None:
    found = item(tmp_path, model)
    assert found["id"] == "a"
    assert found["properties"]["proj:code"] == "EPSG:32633"
    assert found["properties"]["proj:shape"] == [making.HEIGHT, making.WIDTH]
    assert found["properties"]["proj:transform"] == [10, 0, 300_000, 0, -10, 5_600_000, 0, 0, 1]
    footprint = shapely.geometry.shape(found["geometry"])
    assert list(footprint.bounds) == found["bbox"]
    assert footprint.exterior.is_ccw
    assert footprint.contains(shapely.Point(12.2, 50.5))


def test_its_assets_are_beside_it(tmp_path: Path, model: Model) -> None:
    assets = item(tmp_path, model)["assets"]
    assert assets["a.tif"]["href"] == "./a.tif"
    assert "cloud-optimized" in assets["a.tif"]["type"]
    assert assets["a.gpkg"]["type"] == "application/geopackage+sqlite3"
    assert assets["a.png"]["roles"] == ["overview"]
    assert assets["model"]["href"].endswith(model.fingerprint)


def test_names_of_files_are_escaped(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "b.stac.json"
    outputs = [tmp_path / "a b#1.tif", tmp_path.parent / "c.gpkg"]
    write_stac_item(outputs, grid_of(), model, path)
    assets = json.loads(path.read_text("utf-8"))["assets"]
    assert [assets[name]["href"] for name in ("a b#1.tif", "c.gpkg")] == [
        "./a%20b%231.tif", "../c.gpkg",
    ]  # fmt: skip


def test_it_says_what_made_it(tmp_path: Path, model: Model) -> None:
    found = item(tmp_path, model)["properties"]
    assert found["mlm:architecture"] == "U-Net"
    assert found["mlm:tasks"] == ["semantic-segmentation"]
    (taken,) = found["mlm:input"]
    assert taken["input"]["shape"] == [-1, 3, 572, 572]
    (given,) = found["mlm:output"]
    assert given["result"]["shape"][1] == 2
    assert [c["value"] for c in given["classification:classes"]] == [0, 1]


def test_without_a_date_it_is_a_range_of_all(tmp_path: Path, model: Model) -> None:
    found = item(tmp_path, model)["properties"]
    assert found["datetime"] is None
    assert (found["start_datetime"], found["end_datetime"]) == UNKNOWN_DATE


def test_dates_are_utc(tmp_path: Path, model: Model) -> None:
    found = item(tmp_path, model, date="2024-05-31T12:00:00+02:00")
    assert found["properties"]["datetime"] == "2024-05-31T10:00:00Z"
    with pytest.raises(InputError, match="'yesterday' is not one"):
        item(tmp_path, model, date="yesterday")


def test_across_180_degrees_the_box_has_west_above_east(tmp_path: Path, model: Model) -> None:
    found = item(tmp_path, model, grid_of("EPSG:4326", (0.01, 0.0, 178.0, 0.0, -0.01, 10.0)))
    assert found["geometry"]["type"] == "MultiPolygon"
    assert found["bbox"] == [178.0, 6.0, -176.0, 10.0]


def test_a_crs_without_a_code_is_given_in_full(tmp_path: Path, model: Model) -> None:
    own = "+proj=laea +lat_0=10 +lon_0=20 +R=6371000 +units=m"
    found = item(tmp_path, model, grid_of(own, making.NORTH_UP))["properties"]
    assert found["proj:code"] is None
    assert found["proj:projjson"]["type"] == "ProjectedCRS"


def test_an_image_without_place_is_refused(tmp_path: Path, model: Model) -> None:
    with pytest.raises(InputError, match="where on the Earth"):
        item(tmp_path, model, making.mask_of().grid)
    assert not list(tmp_path.iterdir())


def test_equal_results_are_equal_bytes(tmp_path: Path, model: Model) -> None:
    contents = []
    for name in ("x", "y"):
        folder = tmp_path / name
        folder.mkdir()
        item(folder, model)
        contents.append((folder / "a.stac.json").read_bytes())
    assert contents[0] == contents[1]


def test_the_date_of_an_image_is_that_of_its_acquisition(tmp_path: Path) -> None:
    import numpy as np
    import rasterio

    path = tmp_path / "a.tif"
    options = {"driver": "GTiff", "height": 8, "width": 8, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", transform=rasterio.Affine(*making.NORTH_UP), **options) as image:
        image.write(np.ones((1, 8, 8), np.uint8))
        image.update_tags(TIFFTAG_DATETIME="2020:01:01 00:00:00")
    assert acquisition_date(path) is None
    with rasterio.open(path, "r+") as image:
        image.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2019-02-03 04:05:06")
    assert acquisition_date(path) == "2019-02-03T04:05:06Z"
    assert acquisition_date(tmp_path / "missing.tif") is None
