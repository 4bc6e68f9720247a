"""QGIS: what somebody sees who drops a result on its window."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.readers.asking import reader
from tests.readers.making import (
    BACKGROUND,
    CLASSES,
    FIBRE,
    NO_ANSWER,
    NUCLEUS,
    PLACES,
    SHAPE,
    TRANSFORM,
    labels,
)  # fmt: skip

pytestmark = pytest.mark.slow

RASTERS = (
    "scene_labels.tif",
    "scene_planes.tif",
    "scene_values.tif",
    "scene_labels.probabilities.tif",
    "scene_labels.entropy.tif",
    "slide_labels.tif",
)
COLOURS = [[0, 0, 0], [230, 25, 75], [60, 180, 75]]
"""Of the classes."""


@pytest.fixture(scope="session")
def layers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    qgis = reader("qgis", "qgis.core")
    results = request.getfixturevalue("results")
    folder = tmp_path_factory.mktemp("qgis")
    for path in sorted(
        (*results.folder.glob("*.tif*"), *results.folder.glob("*.qml"))
    ):  # QGIS writes statistics beside them
        if path.is_file():
            shutil.copy(path, folder)
    said: dict[str, Any] = qgis.ask("qgis_layers", folder, *(folder / name for name in RASTERS))
    return said["layers"]


def picture(layer: dict[str, Any]) -> NDArray[np.uint8]:
    """What QGIS draws, at a quarter of the size: red, green, blue, alpha."""
    return np.asarray(Image.open(layer["picture"]).convert("RGBA"))


def at(drawn: NDArray[np.uint8], label: int) -> list[int]:
    """The colour where this label is."""
    y, x = PLACES[label]
    return [int(n) for n in drawn[y // 4, x // 4]]


@pytest.mark.parametrize("name", ["scene_labels.tif", "scene_planes.tif", "scene_values.tif"])
def test_a_result_of_a_scene_is_in_its_place(layers: dict[str, Any], name: str) -> None:
    size, _, left, _, _, top = TRANSFORM
    height, width = SHAPE
    assert layers[name]["crs"] == "EPSG:32633"
    assert layers[name]["extent"] == [left, top - size * height, left + size * width, top]


@pytest.mark.parametrize("name", ["scene_labels.tif", "slide_labels.tif"])
def test_classes_have_their_colours(layers: dict[str, Any], name: str) -> None:
    drawn = picture(layers[name])
    assert at(drawn, NUCLEUS) == [*COLOURS[NUCLEUS], 255]
    assert at(drawn, FIBRE) == [*COLOURS[FIBRE], 255]
    expected = labels()[2::4, 2::4]
    for label in (NUCLEUS, FIBRE):
        shown = (drawn[:, :, :3] == COLOURS[label]).all(2) & (drawn[:, :, 3] == 255)
        assert (shown == (expected == label)).mean() > 0.99


@pytest.mark.parametrize("name", ["scene_labels.tif", "slide_labels.tif"])
def test_the_legend_has_the_classes_and_nothing_else(layers: dict[str, Any], name: str) -> None:
    legend = layers[name]["legend"]
    assert layers[name]["renderer"] == "paletted"
    assert [label for label, _ in legend][:3] == [c.name for c in CLASSES]
    assert [colour[:3] for _, colour in legend][:3] == COLOURS
    assert len(legend) <= len(CLASSES) + 1  # of labels without an answer, perhaps


@pytest.mark.parametrize("name", RASTERS)
def test_nothing_is_drawn_where_there_is_no_answer(layers: dict[str, Any], name: str) -> None:
    assert at(picture(layers[name]), NO_ANSWER)[3] == 0


@pytest.mark.parametrize("name", ["scene_labels.tif", "slide_labels.tif"])
def test_the_image_is_seen_through_the_background(layers: dict[str, Any], name: str) -> None:
    assert at(picture(layers[name]), BACKGROUND)[3] == 0


@pytest.mark.parametrize("name", ["scene_planes.tif", "scene_values.tif"])
def test_planes_and_values_have_their_names(layers: dict[str, Any], name: str) -> None:
    names = [c.name for c in CLASSES]
    assert layers[name]["bands"] == [f"Band {n}: {name}" for n, name in enumerate(names, 1)]


def test_planes_can_be_told_apart(layers: dict[str, Any]) -> None:
    drawn = picture(layers["scene_planes.tif"])
    colours = [at(drawn, label)[:3] for label in (BACKGROUND, NUCLEUS, FIBRE)]
    distances = [np.abs(np.subtract(a, b)).max() for a in colours for b in colours if a is not b]
    assert min(distances) > 100


def test_a_value_is_grey_and_stretched_over_its_range(layers: dict[str, Any]) -> None:
    layer = layers["scene_values.tif"]
    assert layer["renderer"] in ("singlebandgray", "singlebandpseudocolor")
    drawn = picture(layer)
    assert at(drawn, BACKGROUND) != at(drawn, NUCLEUS)


def test_probabilities_show_the_class_and_not_the_rest(layers: dict[str, Any]) -> None:
    layer = layers["scene_labels.probabilities.tif"]
    assert layer["bands"] == [f"Band {n}: {c.name}" for n, c in enumerate(CLASSES, 1)]
    drawn = picture(layer)
    assert at(drawn, NUCLEUS)[3] == 255
    assert at(drawn, NUCLEUS) != at(drawn, BACKGROUND)
