"""Readers of OME-Zarr: ome-zarr-py, ome-zarr-models, ngio, spatialdata and zarr 2."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.readers.asking import reader
from tests.readers.conftest import Facts
from tests.readers.making import CLASSES, LEVELS, PIXEL_UM

pytestmark = pytest.mark.slow

MASKS = ("slide_labels", "slide_planes", "slide_values")
ALL = [*(f"{name}.ome.zarr" for name in MASKS), "slide_labels.ome.zarr/probabilities"]


@pytest.fixture(scope="session")
def facts(facts_of: Callable[..., Facts]) -> Facts:
    return facts_of(reader("zarr", "ome_zarr", "ome_zarr_models", "ngio"), "ngff")


@pytest.mark.parametrize("name", [*ALL, "slide_image.ome.zarr"])
def test_ome_zarr_py_finds_every_level(facts: Facts, name: str) -> None:
    (node,) = facts(name)["ome_zarr_py"]
    assert [tuple(level[-2:]) for level in node["levels"]] == LEVELS
    assert node["axes"][-2:] == ["y", "x"]


def test_ome_zarr_py_finds_names_and_colours_of_classes(facts: Facts) -> None:
    (node,) = facts("slide_labels.ome.zarr")["ome_zarr_py"]
    assert node["properties"]["2"] == {"name": CLASSES[2].name}
    assert node["colours"]["1"] == [230, 25, 75, 255]
    assert node["colours"]["0"][3] == node["colours"]["255"][3] == 0


@pytest.mark.parametrize("name", [*ALL, "slide_image.ome.zarr"])
def test_ome_zarr_models_finds_it_valid(facts: Facts, name: str) -> None:
    kind = "ImageLabel" if name == "slide_labels.ome.zarr" else "Image"
    assert facts(name)["ome_zarr_models"] == {"type": kind, "version": "0.5"}


@pytest.mark.parametrize("name", [*ALL, "slide_image.ome.zarr"])
def test_ngio_opens_it_at_its_scale(facts: Facts, name: str) -> None:
    found = facts(name)["ngio"]
    assert found["pixel"] == [PIXEL_UM, PIXEL_UM]
    assert found["unit"] == "micrometer"
    assert len(found["levels"]) == len(LEVELS)
    assert tuple(found["shape"][-2:]) == LEVELS[0]


def test_ngio_opens_labels_as_labels(facts: Facts) -> None:
    found = facts("slide_labels.ome.zarr")["ngio_label"]
    assert found == {"shape": list(LEVELS[0]), "pixel": [PIXEL_UM, PIXEL_UM]}


def test_labels_inside_an_image_are_found_with_it(facts: Facts) -> None:
    found = facts("slide_both.ome.zarr")
    assert found["ngio"]["labels"] == ["mask"]
    assert found["ome_zarr_models"] == {"type": "Image", "version": "0.5"}
    image, *_, labels = found["ome_zarr_py"]
    assert image["axes"] == ["c", "y", "x"]
    assert [tuple(level) for level in labels["levels"]] == LEVELS
    assert labels["properties"]["1"] == {"name": CLASSES[1].name}
    inside = facts("slide_both.ome.zarr/labels/mask")
    assert inside["ome_zarr_models"] == {"type": "ImageLabel", "version": "0.5"}


@pytest.mark.parametrize("name", ["slide_labels.ome.zarr", "slide_image.ome.zarr"])
def test_spatialdata_finds_nothing_and_says_nothing(
    facts_of: Callable[..., Facts], name: str
) -> None:
    """It reads its own kind of zarr alone; docs/open/python.md says what to do instead."""
    found = facts_of(reader("spatialdata", "spatialdata"), "spatial_data")(name)
    assert found["labels"] == found["images"] == []


# ------------------------------------------------------------------ OME-Zarr 0.4


def test_readers_of_today_take_ome_zarr_0_4_too(facts: Facts) -> None:
    found = facts("slide_older.ome.zarr")
    assert found["ome_zarr_models"] == {"type": "ImageLabel", "version": "0.4"}
    assert found["ngio_label"] == {"shape": list(LEVELS[0]), "pixel": [PIXEL_UM, PIXEL_UM]}
    (node,) = found["ome_zarr_py"]
    assert [tuple(level) for level in node["levels"]] == LEVELS


@pytest.fixture(scope="session")
def older(facts_of: Callable[..., Facts]) -> Facts:
    """zarr 2.18 and ome-zarr-py 0.9, which read what QuPath and OMERO read."""
    return facts_of(reader("zarr2", "zarr.n5", "ome_zarr"), "zarr_two")


def test_older_readers_take_ome_zarr_0_4(older: Facts) -> None:
    found = older("slide_older.ome.zarr")
    assert found["zarr"]["shape"] == list(LEVELS[0])
    assert found["zarr"]["classes"] == [0, 1, 2, 255]
    (node,) = found["ome_zarr_py"]
    assert [tuple(level) for level in node["levels"]] == LEVELS
    assert node["properties"]["2"] == {"name": CLASSES[2].name}


def test_older_readers_do_not_take_ome_zarr_0_5(older: Facts) -> None:
    """docs/open says to give `--ngff 0.4` for them."""
    found = older("slide_labels.ome.zarr")
    assert "GroupNotFoundError" in found["zarr"]["error"]
    assert found["ome_zarr_py"] == [] or "error" in found["ome_zarr_py"]
