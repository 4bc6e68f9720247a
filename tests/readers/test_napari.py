"""napari with napari-ome-zarr: the layers that appear when a result is dropped on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.readers.asking import reader
from tests.readers.making import BANDS, CLASSES, COARSE, LEVELS, PIXEL_UM

pytestmark = pytest.mark.slow

NAMES = [c.name for c in CLASSES]
COLOURS = [[0, 0, 0, 0], [230, 25, 75, 255], [60, 180, 75, 255], [0, 0, 0, 0]]
"""Of background, classes and no answer."""


@pytest.fixture(scope="session")
def layers(request: pytest.FixtureRequest) -> Callable[[str], list[dict[str, Any]]]:
    napari = reader("napari", "napari", "napari_ome_zarr", "PySide6")
    results = request.getfixturevalue("results")
    known: dict[str, Any] = {}

    def of(name: str) -> list[dict[str, Any]]:
        if name not in known:
            plugin = "napari-ome-zarr" if name.split("/")[0].endswith(".zarr") else "napari"
            known[name] = napari.ask("napari_layers", plugin, "-", results[name])["layers"]
        found: list[dict[str, Any]] = known[name]
        return found

    return of


Layers = Callable[[str], list[dict[str, Any]]]


@pytest.mark.parametrize("name", ["slide_labels", "slide_planes", "slide_values", "slide_image"])
def test_every_layer_is_in_its_place_with_all_levels(layers: Layers, name: str) -> None:
    for layer in layers(f"{name}.ome.zarr"):
        assert layer["scale"] == [PIXEL_UM, PIXEL_UM]
        assert layer["translate"] == [0, 0]
        assert layer["units"] == ["micrometer", "micrometer"]
        assert layer["levels"] == [list(size) for size in LEVELS]


@pytest.mark.parametrize("name", ["slide_labels.ome.zarr", "slide_older.ome.zarr"])
def test_labels_are_labels_with_names_and_colours(layers: Layers, name: str) -> None:
    (layer,) = layers(name)
    assert layer["type"] == "Labels"
    assert layer["colours"] == COLOURS
    assert layer["features"]["name"] == [*NAMES, "no answer"]
    assert layer["features"]["index"] == [0, 1, 2, 255]


def test_labels_are_hidden_at_first_as_the_documentation_says(layers: Layers) -> None:
    """Should napari show them one day, docs/open/napari.md has a step too many."""
    (layer,) = layers("slide_labels.ome.zarr")
    assert not layer["visible"]


def test_an_image_comes_with_the_labels_inside_it(layers: Layers) -> None:
    *bands, labels = layers("slide_both.ome.zarr")
    assert [layer["colormap"] for layer in bands] == ["red", "green", "blue"]
    assert labels["type"] == "Labels"
    assert labels["name"].endswith("mask")
    assert labels["colours"] == COLOURS
    for layer in (*bands, labels):
        assert layer["scale"] == [PIXEL_UM, PIXEL_UM]
        assert layer["translate"] == [0, 0]


@pytest.mark.parametrize("name", ["slide_planes", "slide_values"])
def test_planes_and_values_are_layers_with_names(layers: Layers, name: str) -> None:
    found = layers(f"{name}.ome.zarr")
    assert [layer["name"] for layer in found] == [f"{name}: {text}" for text in NAMES]
    assert all(layer["type"] == "Image" and layer["visible"] for layer in found)


def test_probabilities_leave_out_the_background_at_first(layers: Layers) -> None:
    found = layers("slide_labels.ome.zarr/probabilities")
    assert [layer["name"].split(": ")[1] for layer in found] == NAMES
    assert [layer["visible"] for layer in found] == [False, True, True]


def test_an_image_that_was_converted_has_its_colours(layers: Layers) -> None:
    found = layers("slide_image.ome.zarr")
    assert [layer["colormap"] for layer in found] == ["red", "green", "blue"]
    assert all(layer["limits"] == [0, 255] for layer in found)


@pytest.mark.xfail(strict=True, reason="napari-ome-zarr 0.10 takes the scale alone of level 0")
def test_a_coarser_mask_lies_on_its_image(layers: Layers) -> None:
    """The centre of its first pixel is that of the square of pixels that it covers."""
    (layer,) = layers("slide_coarse.ome.zarr")
    assert layer["scale"] == [COARSE * PIXEL_UM] * 2
    assert layer["translate"] == [(COARSE - 1) / 2 * PIXEL_UM] * 2


def test_bands_of_an_image_that_was_converted_have_their_names(layers: Layers) -> None:
    found = layers("four_image.ome.zarr")
    assert [layer["name"].split(": ")[1] for layer in found] == list(BANDS)


def test_an_ome_tiff_is_an_image_of_one_level(layers: Layers) -> None:
    """napari's own reader; docs/open/napari.md recommends the OME-Zarr for this reason."""
    (layer,) = layers("slide_labels.ome.tif")
    assert layer["type"] == "Image"
