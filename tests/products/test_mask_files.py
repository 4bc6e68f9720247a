"""Masks in files of other programs, and damaged ones: read by the readers of images."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray

from tests.images.making import geotiff
from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import Window
from tilepipe.images.base import PixelSize
from tilepipe.products import open_mask

LABELS = np.random.default_rng(0).integers(0, 3, (200, 300), np.uint8)
PLANES = np.random.default_rng(1).integers(0, 2, (4, 200, 300), np.uint8)
WINDOW = Window(30, 40, 100, 150)


def ome_tiff(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    tifffile.imwrite(path, pixels, ome=True, **options)
    return path


def cut(pixels: NDArray[Any]) -> NDArray[Any]:
    rows, columns = WINDOW.slices()
    return pixels[..., rows, columns]


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_planes_of_another_program_are_read(tmp_path: Path, tile: tuple[int, int] | None) -> None:
    path = ome_tiff(tmp_path / "m.ome.tif", PLANES, tile=tile, photometric="minisblack")
    mask = open_mask(path)
    assert (mask.kind, mask.planes, mask.classes) == ("planes", 4, None)
    np.testing.assert_array_equal(mask.read(WINDOW), cut(PLANES))


def test_planes_along_an_axis_without_a_name_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.ome.tif"
    tifffile.imwrite(path, PLANES, ome=False, photometric="minisblack", metadata={"axes": "QYX"})
    np.testing.assert_array_equal(open_mask(path).read(WINDOW), cut(PLANES))


def test_colours_of_another_program_are_no_mask(tmp_path: Path) -> None:
    path = ome_tiff(tmp_path / "m.ome.tif", np.moveaxis(PLANES[:3], 0, -1), photometric="rgb")
    with pytest.raises(InputError, match="not a mask that is understood"):
        open_mask(path)


@pytest.mark.parametrize("suffix", [".ome.tif", ".tif"])
def test_labels_with_a_palette_are_its_entries(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    colours = np.arange(768, dtype=np.uint16).reshape(3, 256)
    tifffile.imwrite(path, LABELS, photometric="palette", colormap=colours, ome=suffix != ".tif")
    mask = open_mask(path)
    assert mask.kind == "labels"
    np.testing.assert_array_equal(mask.read(WINDOW), cut(LABELS))


def test_the_last_of_four_planes_is_no_alpha_band(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "m.tif", np.moveaxis(PLANES, 0, -1), photometric="rgb", alpha="yes")
    mask = open_mask(path)
    assert mask.planes == 4
    np.testing.assert_array_equal(mask.read(WINDOW), cut(PLANES))


@pytest.mark.parametrize(("unit", "size"), [("nm", 250.0), ("µm", 0.25), ("mm", 0.00025)])
def test_a_pixel_size_is_read_in_any_unit(tmp_path: Path, unit: str, size: float) -> None:
    metadata = {f"PhysicalSize{axis}{what}": value for axis in "XY"
                for what, value in (("", size), ("Unit", unit))}  # fmt: skip
    mask = open_mask(ome_tiff(tmp_path / "m.ome.tif", LABELS, metadata={"axes": "YX", **metadata}))
    assert mask.pixel_size is not None
    assert mask.pixel_size.unit == "micrometer"
    assert mask.pixel_size.x == pytest.approx(0.25)


def test_a_crs_in_kilometres_has_a_pixel_size(tmp_path: Path) -> None:
    crs = "+proj=utm +zone=33 +datum=WGS84 +units=km"
    path = geotiff(
        tmp_path / "m.tif", LABELS[..., None], crs=crs,
        transform=rasterio.Affine(0.01, 0, 500, 0, -0.01, 5000),
    )  # fmt: skip
    assert open_mask(path).pixel_size == PixelSize(0.01, 0.01, "kilometer")


def test_what_a_file_leaves_out_has_no_answer_in_that_plane_alone(tmp_path: Path) -> None:
    # Compressed, as tifffile keeps one list of sizes for pages of the same ones.
    path = ome_tiff(
        tmp_path / "m.ome.tif", PLANES, tile=(64, 64), photometric="minisblack", compression="zlib"
    )
    with tifffile.TiffFile(path, mode="r+b") as file:
        counts = list(file.pages[1].databytecounts)
        file.pages[1].tags["TileByteCounts"].overwrite([0, *counts[1:]])
    expected = PLANES.copy()
    expected[1, :64, :64] = 255
    np.testing.assert_array_equal(open_mask(path).read(Window(0, 0, 200, 300)), expected)


@pytest.mark.parametrize("suffix", [".ome.tif", ".tif"])
@pytest.mark.parametrize("damage", ["zeros", "noise"])
def test_a_damaged_tile_is_named_and_never_read(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"m{suffix}"
    tifffile.imwrite(path, LABELS, tile=(64, 64), compression="zlib", ome=suffix != ".tif")
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[3], file.pages[0].databytecounts[3]
    content = bytearray(path.read_bytes())
    half = count // 2
    noise = np.random.default_rng(0).integers(0, 256, half, np.uint8).tobytes()
    content[offset + count - half : offset + count] = bytes(half) if damage == "zeros" else noise
    path.write_bytes(content)
    mask = open_mask(path)
    np.testing.assert_array_equal(mask.read(Window(0, 0, 64, 64)), LABELS[:64, :64])
    with pytest.raises(UnreadableError, match=r"is damaged .*; write it again"):
        mask.read(Window(0, 192, 64, 64))


@pytest.mark.parametrize("suffix", [".ome.tif", ".tif"])
def test_a_mask_in_a_file_travels_to_other_processes_and_is_closed(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"m{suffix}"
    tifffile.imwrite(path, LABELS, ome=suffix != ".tif")
    with_file = open_mask(path)
    copy = pickle.loads(pickle.dumps(with_file))
    with_file.close()
    with_file.close()
    np.testing.assert_array_equal(copy.read(WINDOW), cut(LABELS))
    np.testing.assert_array_equal(copy.as_dask().compute(), LABELS)


def test_another_file_named_tif_is_no_mask(tmp_path: Path) -> None:
    (tmp_path / "m.tif").write_bytes(b"\x89PNG\r\n\x1a\n and more")
    with pytest.raises(InputError, match="not a TIFF"):
        open_mask(tmp_path / "m.tif")
