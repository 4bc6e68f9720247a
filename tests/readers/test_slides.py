"""Readers of slides: OpenSlide, tiffslide, large_image, tifffile, libvips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.readers.asking import output_of, program, reader
from tests.readers.conftest import Facts
from tests.readers.making import CLASSES, FIBRE, LEVELS, NO_ANSWER, NUCLEUS, PIXEL_UM, places

pytestmark = pytest.mark.slow

COLOURS = [[0, 0, 0], [230, 25, 75], [60, 180, 75]]
SIZES = [list(size) for size in LEVELS]


@pytest.fixture(scope="session")
def facts(facts_of: Callable[..., Facts]) -> Facts:
    found = reader("slides", "openslide", "tiffslide", "large_image", "tifffile")
    return facts_of(found, "slides", *places())


def test_openslide_shows_the_tif_of_a_slide_in_colour_on_every_level(facts: Facts) -> None:
    found = facts("slide_labels.tif")["openslide"]
    assert found["levels"] == SIZES
    assert found["mpp"] == [PIXEL_UM, PIXEL_UM]
    for level in found["colours"]:
        assert [colour[:3] for colour in level[:3]] == COLOURS


def test_openslide_reads_one_level_of_an_ome_tiff(facts: Facts) -> None:
    """It does not follow SubIFDs; docs/readers.md says to give it the `.tif`."""
    found = facts("slide_labels.ome.tif")["openslide"]
    assert found["levels"] == SIZES[:1]
    assert found["mpp"] == [PIXEL_UM, PIXEL_UM]


@pytest.mark.parametrize("name", ["slide_labels.ome.tif", "slide_labels.tif"])
def test_tiffslide_reads_labels_on_every_level(facts: Facts, name: str) -> None:
    found = facts(name)["tiffslide"]
    assert found["levels"] == SIZES
    assert found["mpp"] == [PIXEL_UM, PIXEL_UM]
    for level in found["colours"]:
        assert level == [0, NUCLEUS, FIBRE, NO_ANSWER]


@pytest.mark.parametrize("kind", ["labels", "planes", "values"])
def test_tifffile_reads_every_level_of_an_ome_tiff(facts: Facts, kind: str) -> None:
    found = facts(f"slide_{kind}.ome.tif")["tifffile"]
    assert found["kind"] == "ome"
    assert [tuple(level[-2:]) for level in found["levels"]] == LEVELS


def test_large_image_reads_the_levels_and_the_scale(facts: Facts) -> None:
    for name in ("slide_labels.ome.tif", "slide_labels.tif"):
        found = facts(name)["large_image"]
        assert found["size"] == SIZES[0]
        assert found["levels"] == len(LEVELS)
        np.testing.assert_allclose(found["mm"], [PIXEL_UM / 1000] * 2)


def test_large_image_shows_the_tif_of_a_slide_in_colour(facts: Facts) -> None:
    found = facts("slide_labels.tif")["large_image"]
    assert [colour[:3] for colour in found["colours"]][:3] == COLOURS


def test_large_image_names_the_planes(facts: Facts) -> None:
    for name, classes in (("slide_planes", CLASSES), ("slide_channels", CLASSES[1:])):
        found = facts(f"{name}.ome.tif")["large_image"]
        assert found["channels"] == [c.name for c in classes]


@pytest.mark.parametrize("name", ["slide_labels.ome.tif", "slide_labels.tif"])
def test_libvips_reads_the_scale(request: pytest.FixtureRequest, name: str) -> None:
    program("vipsheader")
    path = request.getfixturevalue("results")[name]
    assert float(output_of("vipsheader", "-f", "xres", path)) == 1000 / PIXEL_UM
    assert float(output_of("vipsheader", "-f", "width", path)) == LEVELS[0][1]


def test_libvips_finds_the_levels(request: pytest.FixtureRequest) -> None:
    program("vipsheader")
    results = request.getfixturevalue("results")
    subifds = output_of("vipsheader", "-f", "n-subifds", results["slide_labels.ome.tif"])
    assert int(subifds) == len(LEVELS) - 1
    pages = output_of("vipsheader", "-f", "n-pages", results["slide_labels.tif"])
    assert int(pages) == len(LEVELS)


def test_the_openslide_of_a_distribution_reads_the_levels(request: pytest.FixtureRequest) -> None:
    program("openslide-show-properties")
    path = request.getfixturevalue("results")["slide_labels.tif"]
    said = output_of("openslide-show-properties", path)
    assert f"openslide.level-count: '{len(LEVELS)}'" in said
