"""GDAL and what is built on it: rasterio, rio-cogeo, gdalinfo, xarray and rioxarray."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.readers.asking import output_of, program, reader
from tests.readers.conftest import Facts
from tests.readers.making import CLASSES, FIBRE, NO_ANSWER, NUCLEUS, SHAPE, TRANSFORM, places

pytestmark = pytest.mark.slow

NAMES = [c.name for c in CLASSES]
RASTERS = ("rasterio", "rioxarray", "xarray", "rio_cogeo", "zarr")
"""Modules that scripts/rasters.py imports."""

COGS = ("scene_labels.tif", "scene_planes.tif", "scene_values.tif")
PALETTE = {"1": [230, 25, 75, 255], "2": [60, 180, 75, 255]}


@pytest.fixture(scope="session", params=["rasterio", "xarray"])
def facts(request: pytest.FixtureRequest, facts_of: Callable[..., Facts]) -> Facts:
    """What a new GDAL (3.12) says, and an older one (3.10)."""
    found = reader(request.param, *RASTERS)
    return facts_of(found, "rasters", *places())


@pytest.mark.parametrize("name", COGS)
def test_a_geotiff_is_in_its_place(facts: Facts, name: str) -> None:
    for library in ("rasterio", "rioxarray"):
        assert facts(name)[library]["crs"] == 32633
        assert facts(name)[library]["transform"] == list(TRANSFORM)


@pytest.mark.parametrize("name", [*COGS, "slide_labels.tif", "slide_planes.tif"])
def test_a_geotiff_is_a_valid_cog_with_all_levels(facts: Facts, name: str) -> None:
    assert facts(name)["rio_cogeo"] == {"valid": True, "said": []}
    assert facts(name)["rasterio"]["overviews"] == [2, 4]


def test_labels_have_the_colours_of_their_classes(facts: Facts) -> None:
    raster = facts("scene_labels.tif")["rasterio"]
    assert raster["interpretation"] == ["palette"]
    assert PALETTE.items() <= raster["colours"].items()
    assert raster["values"] == [0, NUCLEUS, FIBRE, NO_ANSWER]


def test_names_of_classes_come_with_the_labels(facts: Facts) -> None:
    attributes = facts("scene_labels.tif")["rioxarray"]["attributes"]
    assert [attributes[f"CLASS_{n}"] for n in range(3)] == NAMES


@pytest.mark.parametrize("name", ["scene_planes.tif", "scene_values.tif"])
def test_bands_have_the_names_of_planes(facts: Facts, name: str) -> None:
    assert facts(name)["rasterio"]["names"] == NAMES


@pytest.mark.parametrize("name", COGS)
def test_no_answer_is_masked(facts: Facts, name: str) -> None:
    values = facts(name)["rioxarray"]["values"]
    assert [value == "nan" for value in values] == [False, False, False, True]


def test_gdalinfo_names_the_classes(request: pytest.FixtureRequest) -> None:
    program("gdalinfo")
    results = request.getfixturevalue("results")
    said = json.loads(output_of("gdalinfo", "-json", results["scene_labels.tif"]))
    band = said["bands"][0]
    assert band["noDataValue"] == NO_ANSWER
    assert said["size"] == list(SHAPE[::-1])
    assert [text for text in band.get("categories", []) if text][:3] == NAMES


# ------------------------------------------------------------------ OME-Zarr


@pytest.mark.parametrize("name", ["labels", "objects"])
def test_xarray_opens_the_labels_of_an_ome_zarr(facts: Facts, name: str) -> None:
    """Whatever else is in it."""
    found = facts(f"scene_{name}.ome.zarr")["xarray"]
    assert found["shape"] == list(SHAPE)
    assert found["dims"] == ["y", "x"]


def test_xarray_knows_the_place_of_an_ome_zarr(facts: Facts) -> None:
    found = facts("scene_labels.ome.zarr")["xarray"]
    assert found["crs"] == 32633
    assert found["transform"] == list(TRANSFORM)
    assert [value == "nan" for value in found["values"]] == [False, False, False, True]
    assert found["attributes"]["flag_meanings"].split()[:2] == NAMES[:2]


@pytest.fixture(scope="session")
def subdataset(facts_of: Callable[..., Facts], request: pytest.FixtureRequest) -> Any:
    """Level 0 of the scene's OME-Zarr, as a new GDAL opens it."""
    found = reader("rasterio", *RASTERS)
    results = request.getfixturevalue("results")
    name = f'ZARR:"{results["scene_labels.ome.zarr"]}":/0'
    said = found.ask("rasters", name, *places())
    if _gdal(said) < (3, 12):
        pytest.skip(f"GDAL {said['gdal']} is not 3.12 or newer")
    return said["rasterio"]


def _gdal(said: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in said["gdal"].split(".")[:2])


def test_an_older_gdal_does_not_decode_an_ome_zarr(request: pytest.FixtureRequest) -> None:
    """docs/open/python.md names the version that does."""
    found = reader("xarray", *RASTERS)
    results = request.getfixturevalue("results")
    name = f'ZARR:"{results["scene_labels.ome.zarr"]}":/0'
    said = found.ask("rasters", name)
    if _gdal(said) > (3, 10):
        pytest.skip(f"GDAL {said['gdal']} is not an older one")
    assert "error" in said["rasterio"]


def test_gdal_reads_the_pixels_of_an_ome_zarr(subdataset: Any) -> None:
    assert subdataset["shape"] == [1, *SHAPE]
    assert subdataset["values"] == [0, NUCLEUS, FIBRE, NO_ANSWER]


def test_gdal_knows_the_place_of_an_ome_zarr(subdataset: Any) -> None:
    assert subdataset["crs"] == 32633
    assert subdataset["transform"] == list(TRANSFORM)
    assert subdataset["nodata"] == NO_ANSWER
