"""Colours of a TIFF are RGB when they are read, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.images.slides import ycbcr
from tests.making import make_image
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import open_image

PIXELS = make_image(90, 120)
WHOLE = Window(0, 0, 90, 120)


def write(path: Path, pixels: Any = PIXELS, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, metadata=None, **{"photometric": "rgb", **options})
    return path


@pytest.mark.parametrize("tile", [None, (64, 64)])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits"])
def test_ycbcr_of_any_lossless_codec_is_made_rgb(
    tmp_path: Path, compression: str | None, tile: tuple[int, int] | None
) -> None:
    path = write(
        tmp_path / "a.tif", ycbcr(PIXELS), photometric="ycbcr", compression=compression, tile=tile
    )
    difference = open_image(path).read(WHOLE).astype(int) - PIXELS
    assert np.abs(difference).max() <= 2  # rounded there and back


@pytest.mark.parametrize("compression", ["jpeg", "webp", "jpeg2000"])
def test_codecs_that_know_of_colours_are_left_to_them(tmp_path: Path, compression: str) -> None:
    options: dict[str, Any] = {"tile": (64, 64), "compression": compression}
    path = write(tmp_path / "a.tif", np.full((128, 128, 3), (200, 30, 90), np.uint8), **options)
    difference = open_image(path).read(WHOLE).astype(int) - (200, 30, 90)
    assert np.abs(difference).max() <= 6


@pytest.mark.parametrize(("photometric", "name"), [("separated", "CMYK"), ("cielab", "L.a.b")])
def test_other_colours_are_refused(tmp_path: Path, photometric: str, name: str) -> None:
    bands = 4 if photometric == "separated" else 3
    path = write(tmp_path / "a.tif", make_image(90, 120, bands), photometric=photometric)
    with pytest.raises(InputError, match=rf"a\.tif holds its colours as .*{name}.*save it as RGB"):
        open_image(path)


@pytest.mark.parametrize(
    "tag",
    [
        (529, 5, 3, (2126, 10000, 7152, 10000, 722, 10000), True),  # coefficients of BT.709
        (532, 5, 6, (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1), True),  # studio range
    ],
)
def test_a_kind_of_ycbcr_that_would_be_made_other_colours_is_refused(
    tmp_path: Path, tag: tuple[Any, ...]
) -> None:
    path = write(tmp_path / "a.tif", ycbcr(PIXELS), photometric="ycbcr", extratags=[tag])
    with pytest.raises(InputError, match="a kind of YCbCr"):
        open_image(path)


def test_values_that_are_inverted_for_display_are_named(tmp_path: Path) -> None:
    grey = PIXELS[..., 0]
    image = open_image(write(tmp_path / "a.tif", grey, photometric="miniswhite"))
    np.testing.assert_array_equal(image.read(WHOLE)[..., 0], grey)
    assert any("WhiteIsZero" in note for note in image.notes)


def rewritten(path: Path, tag: str, values: tuple[int, ...]) -> Path:
    """The file with other values of a tag, two bytes each."""
    with tifffile.TiffFile(path) as file:
        found = file.pages.first.tags[tag]
        assert found.count == len(values)
        place = found.valueoffset
    data = bytearray(path.read_bytes())
    data[place : place + 2 * len(values)] = np.array(values, "<u2").tobytes()
    path.write_bytes(data)
    return path


def test_chroma_that_only_jpeg_may_subsample_is_refused_and_not_called_broken(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a.tif", photometric="ycbcr", compression="zlib")
    with pytest.raises(InputError, match="a kind of YCbCr") as caught:
        open_image(rewritten(path, "YCbCrSubSampling", (2, 2)))
    assert "again" not in str(caught.value)


def test_a_predictor_that_nobody_knows_is_refused_and_not_called_broken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", compression="zlib", predictor=True, tile=(64, 64))
    with pytest.raises(InputError, match="in a way that tilepipe does not read") as caught:
        open_image(rewritten(path, "Predictor", (77,)))
    assert "again" not in str(caught.value)
