"""Slides of every maker are to us what they are to OpenSlide: levels, pixel size, pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import openslide
import pytest

from tests.images import slides
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import Image, open_image
from tilepipe.images.base import SCALE_TOLERANCE

GENERATED: dict[str, Callable[[Path], Path]] = {
    "aperio-jpeg.svs": slides.aperio,
    "aperio-33003.svs": partial(slides.aperio, compression=33003),
    "aperio-33005.svs": partial(slides.aperio, compression=33005),
    "aperio-lzw.svs": partial(slides.aperio, compression="lzw"),
    "generic-jpeg.tif": slides.generic,
    "generic-deflate.tif": partial(slides.generic, compression="zlib"),
    "generic-ycbcr.tif": partial(slides.generic, compression="zlib", photometric="ycbcr"),
    "generic-raw-ycbcr.tif": partial(slides.generic, compression="none", photometric="ycbcr"),
    "hamamatsu.ndpi": slides.hamamatsu,
    "leica.scn": slides.leica,
    "philips.tiff": slides.philips,
    "trestle.tif": slides.trestle,
    "ventana.bif": slides.ventana,
}

FOUND = ["wsi/CMU-1-Small-Region.svs", "wsi/test3-DAPI-2-387.ndpi"]
"""Slides of scanners, in the folder of real data."""

PLACES = 200
SIDE = 16

TOLERANCE = {"aperio-33003.svs": 1, "generic-ycbcr.tif": 1, "generic-raw-ycbcr.tif": 1}
"""Grey values between the two, as measured: YCbCr made RGB is rounded otherwise; all else is the
same to the bit, JPEG too, which both decode with libjpeg-turbo."""


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_slide_is_what_openslide_reads(tmp_path: Path, name: str) -> None:
    agrees(GENERATED[name](tmp_path / name), TOLERANCE.get(name, 0))


@pytest.mark.parametrize("name", FOUND)
def test_a_real_slide_is_what_openslide_reads(data: Path, name: str) -> None:
    agrees(data / name, 0)


def agrees(path: Path, tolerance: int) -> None:
    """Each level of ours is one of OpenSlide's, and alike at random places."""
    slide = openslide.OpenSlide(str(path))
    with open_image(path) as image:
        ours = image.pixel_size
        for axis in "xy":
            theirs = float(slide.properties[f"openslide.mpp-{axis}"])
            assert ours is not None
            assert abs(getattr(ours, axis) / theirs - 1) < SCALE_TOLERANCE / 10
        # Of a collection of scans OpenSlide reads the whole glass, and says where they lie.
        left = int(slide.properties.get("openslide.bounds-x", 0))
        top = int(slide.properties.get("openslide.bounds-y", 0))
        for number, level in enumerate(image.levels):
            downsamples = np.array(slide.level_downsamples)
            at = int(np.abs(downsamples - level.scale_x).argmin())
            assert level.scale_y == level.scale_x == pytest.approx(downsamples[at], rel=1e-2)
            if (left, top) == (0, 0):
                assert (level.width, level.height) == slide.level_dimensions[at]
            _same_places(slide, image, number, at, (left, top), tolerance)
        if (left, top) == (0, 0) and "NDPI" not in image.kind:  # OpenSlide adds levels to JPEG
            assert len(image.levels) == slide.level_count
    slide.close()


def _same_places(
    slide: openslide.OpenSlide,
    image: Image,
    number: int,
    at: int,
    origin: tuple[int, int],
    tolerance: int,
) -> None:
    level = image.levels[number]
    rng = np.random.default_rng(number)
    step = round(level.scale_x)
    for _ in range(PLACES):
        y = int(rng.integers(0, level.height - SIDE))
        x = int(rng.integers(0, level.width - SIDE))
        place = origin[0] + x * step, origin[1] + y * step
        theirs = np.asarray(slide.read_region(place, at, (SIDE, SIDE))).astype(int)
        # Where it has no pixels, OpenSlide is transparent.
        opaque = theirs[..., 3] == 255
        assert opaque.any()
        ours = image.read(Window(y, x, SIDE, SIDE), number).astype(int)
        assert np.abs(ours - theirs[..., :3])[opaque].max() <= tolerance


def test_chroma_that_is_subsampled_is_converted_once(tmp_path: Path) -> None:
    # OpenJPEG makes RGB of it by itself, and of full chroma it does not.
    path = slides.subsampled(tmp_path / "slide.svs")
    agrees(path, tolerance=2)


@pytest.mark.parametrize("make", [slides.ventana, slides.trestle])
def test_tiles_that_overlap_are_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    path = make(tmp_path / "slide.tif", overlap=16)
    with pytest.raises(InputError, match=r"slide\.tif is a .* whose tiles overlap"):
        open_image(path)


def test_the_label_of_a_slide_whose_tiles_overlap_can_be_read(tmp_path: Path) -> None:
    path = slides.ventana(tmp_path / "slide.bif", overlap=16)
    from tilepipe.images.reading import Reading

    assert open_image(path, Reading(series="Label")).shape == (300, 100, 3)


def test_a_ventana_slide_that_says_nothing_of_its_tiles_is_refused(tmp_path: Path) -> None:
    path = slides.ventana(tmp_path / "slide.bif", joints=False)
    with pytest.raises(InputError, match="does not say how far its tiles overlap"):
        open_image(path)
