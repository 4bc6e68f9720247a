"""PNG and JPEG."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image as PillowImage
from rasterio.errors import NotGeoreferencedWarning

from tests.images.oracle import chart
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import open_image, picture

WHOLE = Window(0, 0, 60, 50)


@pytest.mark.parametrize("bands", [1, 3])
def test_plain_png(tmp_path: Path, bands: int) -> None:
    pixels = chart(60, 50, bands)
    PillowImage.fromarray(pixels.squeeze()).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.read(WHOLE), pixels)
    assert image.read_valid(WHOLE) is None


def test_jpeg_under_any_name(tmp_path: Path) -> None:
    PillowImage.fromarray(chart(60, 50, 3)).save(tmp_path / "a.tif", format="JPEG")
    with PillowImage.open(tmp_path / "a.tif") as expected:
        np.testing.assert_array_equal(open_image(tmp_path / "a.tif").read(WHOLE), expected)
    assert open_image(tmp_path / "a.tif").kind == "JPEG"


def test_sixteen_bit_grey_stays_sixteen_bit(tmp_path: Path) -> None:
    pixels = chart(60, 50, dtype="uint16") * 16
    PillowImage.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.read(WHOLE), pixels)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_sixteen_bit_colours_stay_sixteen_bit(tmp_path: Path) -> None:
    pixels = chart(60, 50, 3, dtype="uint16") * 16
    assert issubclass(NotGeoreferencedWarning, Warning)
    with rasterio.open(
        tmp_path / "a.png", "w", driver="PNG", height=60, width=50, count=3, dtype="uint16"
    ) as dataset:
        dataset.write(pixels.transpose(2, 0, 1))
    image = open_image(tmp_path / "a.png")
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.read(WHOLE), pixels)


def test_a_palette_is_colours(tmp_path: Path) -> None:
    coloured = PillowImage.fromarray(chart(60, 50, 3)).quantize(32)
    coloured.save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        open_image(tmp_path / "a.png").read(WHOLE), np.asarray(coloured.convert("RGB"))
    )


@pytest.mark.parametrize("bands", [1, 3])
def test_alpha_is_validity(tmp_path: Path, bands: int) -> None:
    pixels = chart(60, 50, bands)
    alpha = np.full((60, 50), 255, np.uint8)
    alpha[:20] = 0
    PillowImage.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert image.bands == bands
    np.testing.assert_array_equal(image.read(WHOLE), pixels)
    np.testing.assert_array_equal(image.read_valid(WHOLE), alpha > 0)
    assert image.read_valid(Window(20, 0, 10, 10)) is None


def huge_png(path: Path, side: int) -> None:
    """A PNG that says it is huge; what it holds does not matter."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
    )


def test_too_large_to_hold_is_refused_with_what_to_do(tmp_path: Path) -> None:
    huge_png(tmp_path / "huge.png", 30000)
    with pytest.raises(InputError, match=r"huge\.png.*30000 x 30000.*tilepipe convert"):
        open_image(tmp_path / "huge.png")


def test_the_limit_is_on_decoded_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PillowImage.fromarray(chart(60, 50, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(picture, "LARGEST_BYTES", 60 * 50 * 3)
    open_image(tmp_path / "a.png")
    monkeypatch.setattr(picture, "LARGEST_BYTES", 60 * 50 * 3 - 1)
    with pytest.raises(InputError, match="tilepipe convert"):
        open_image(tmp_path / "a.png")
