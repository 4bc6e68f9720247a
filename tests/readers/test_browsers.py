"""Viewers in a browser: viv (the viewer in Vitessce and Avivator) and neuroglancer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.readers.asking import SCRIPTS, environments, output_of, program, reader
from tests.readers.making import BACKGROUND, CLASSES, FIBRE, LEVELS, NO_ANSWER, NUCLEUS, PLACES

pytestmark = pytest.mark.slow

IMAGES = (
    "slide_labels.ome.zarr",
    "slide_labels.ome.zarr/probabilities",
    "slide_planes.ome.zarr",
    "slide_channels.ome.tif",
    "slide_values.ome.zarr",
    "slide_image.ome.zarr",
)
COLOURS = [[0, 0, 0], [230, 25, 75], [60, 180, 75]]


@pytest.fixture(scope="session")
def viv(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = environments()
    if folder is None or not (folder / "viewer" / "node_modules" / "@hms-dbmi" / "viv").exists():
        pytest.skip(f"no @hms-dbmi/viv in {folder}/viewer")
    chromium = program("chromium")
    program("node")
    results = request.getfixturevalue("results")
    pictures = tmp_path_factory.mktemp("viv")
    said = output_of(
        "node", SCRIPTS / "viv.mjs", folder / "viewer", results.folder, pictures, chromium, *IMAGES
    )
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def seen(facts: Any, label: int) -> list[int]:
    """The colour of the picture where this label is; the whole image is in its middle."""
    y, x = PLACES[label]
    height, width = LEVELS[0]
    picture = Image.open(facts["picture"]).convert("RGB")
    scale = 0.5**1.5  # half, to fit into it, and half a level further away
    column = round(picture.width / 2 + scale * (x - width / 2))
    row = round(picture.height / 2 + scale * (y - height / 2))
    return [int(n) for n in np.asarray(picture)[row, column]]


@pytest.mark.parametrize("name", IMAGES)
def test_viv_opens_every_level_without_an_error(viv: dict[str, Any], name: str) -> None:
    assert viv[name]["said"] == []
    assert [tuple(level[-2:]) for level in viv[name]["levels"]] == LEVELS


@pytest.mark.parametrize("name", IMAGES[1:4])
def test_viv_finds_names_and_colours(viv: dict[str, Any], name: str) -> None:
    channels = viv[name]["channels"]
    first = 1 if "channels" in name else 0  # without the background
    assert [channel["name"] for channel in channels] == [c.name for c in CLASSES[first:]]
    assert [channel["colour"][:3] for channel in channels] == COLOURS[first:]


def test_viv_shows_an_image_that_was_converted(viv: dict[str, Any]) -> None:
    found = viv["slide_image.ome.zarr"]
    assert seen(found, BACKGROUND) == [230, 20, 60]
    assert seen(found, NUCLEUS) == [20, 220, 60]
    assert seen(found, NO_ANSWER) == [0, 0, 0]


def test_viv_shows_planes_in_the_colours_of_their_classes(viv: dict[str, Any]) -> None:
    found = viv["slide_planes.ome.zarr"]
    assert seen(found, NUCLEUS) == COLOURS[NUCLEUS]
    assert seen(found, FIBRE) == COLOURS[FIBRE]


@pytest.mark.xfail(strict=True, reason="planes hold 255 for no answer, which is above 1")
def test_viv_shows_no_plane_where_there_is_no_answer(viv: dict[str, Any]) -> None:
    assert seen(viv["slide_planes.ome.zarr"], NO_ANSWER) == [0, 0, 0]


def test_viv_shows_values_in_their_range(viv: dict[str, Any]) -> None:
    found = viv["slide_values.ome.zarr"]
    np.testing.assert_allclose(seen(found, NUCLEUS), COLOURS[NUCLEUS], atol=2)
    np.testing.assert_allclose(seen(found, FIBRE), COLOURS[FIBRE], atol=2)
    assert seen(found, NO_ANSWER) == [0, 0, 0]


def test_viv_shows_no_probability_where_there_is_no_answer(viv: dict[str, Any]) -> None:
    found = viv["slide_labels.ome.zarr/probabilities"]
    np.testing.assert_allclose(seen(found, NUCLEUS), COLOURS[NUCLEUS], atol=2)
    assert seen(found, NO_ANSWER) == [0, 0, 0]


def test_viv_shows_the_channels_of_an_ome_tiff(viv: dict[str, Any]) -> None:
    """It has no window to stretch by, so that a class must be bright by itself."""
    found = viv["slide_channels.ome.tif"]
    assert seen(found, NUCLEUS) == COLOURS[NUCLEUS]
    assert seen(found, FIBRE) == COLOURS[FIBRE]
    assert seen(found, BACKGROUND) == seen(found, NO_ANSWER) == [0, 0, 0]


def test_neuroglancer_shows_labels_as_a_segmentation(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    neuroglancer = reader("neuroglancer", "neuroglancer")
    chromium = program("chromium")
    folder = request.getfixturevalue("results").folder
    path = tmp_path / "neuroglancer.png"
    name = "slide_labels.ome.zarr"
    neuroglancer.ask("neuroglancer_view", chromium, folder, path, 0.25, "segmentation", name)
    picture = np.asarray(Image.open(path).convert("RGB"))
    down, across = (picture.shape[0] - LEVELS[0][0]) // 2, (picture.shape[1] - LEVELS[0][1]) // 2
    colours = {
        label: tuple(picture[y + down, x + across].tolist()) for label, (y, x) in PLACES.items()
    }
    assert colours[BACKGROUND] == colours[NO_ANSWER]
    assert len({colours[label] for label in (BACKGROUND, NUCLEUS, FIBRE)}) == 3
