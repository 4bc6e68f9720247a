"""Converted images are the image: pixels, place, validity; complete or not there."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05 import Image as NgffImage
from PIL import Image as PillowImage

from tests.images.making import geotiff
from tests.images.oracle import chart
from tilepipe.errors import EnvironmentFailure, InputError, UnreadableError
from tilepipe.grid import Window
from tilepipe.images import Image, open_image
from tilepipe.images import convert as convert_module
from tilepipe.images.convert import convert

MIB = 2**20


def whole(image: Image, level: int = 0) -> Window:
    size = image.levels[level]
    return Window(0, 0, size.height, size.width)


@pytest.mark.parametrize(
    "name",
    [
        "wsi/HE_example.ome.tif",
        "wsi/XYC.png",
        "geo/L7_ETMs.tif",
        "geo/RGB.byte.tif",
        "geo/s2_band.jp2",
        "geo/edge/cog_rgba.tif",
        "geo/edge/cog_rgb_mask.tif",
        "geo/edge/cog_nodata_nan.tif",
        "geo/edge/image_nan.tif",
        "geo/edge/image_colormap.tif",
    ],
)
def test_nothing_is_lost(data: Path, tmp_path: Path, name: str) -> None:
    source, target = open_image(data / name), tmp_path / "image.ome.zarr"
    convert(source, target, chunk=128)
    image = open_image(target)
    assert isinstance(open_ome_zarr(target), NgffImage)
    assert (image.shape, image.dtype) == (source.shape, source.dtype)
    assert (image.crs, image.transform) == (source.crs, source.transform)
    assert image.pixel_size == source.pixel_size
    np.testing.assert_equal(image.nodata, source.nodata)
    np.testing.assert_array_equal(image.read(whole(image)), source.read(whole(source)))
    np.testing.assert_equal(image.read_valid(whole(image)), source.read_valid(whole(source)))


def test_levels_are_means_of_the_level_above(data: Path, tmp_path: Path) -> None:
    convert(data / "wsi/HE_example.ome.tif", tmp_path / "image.ome.zarr")
    image = open_image(tmp_path / "image.ome.zarr")
    assert [(level.height, level.width) for level in image.levels] == [
        (1484, 1380),
        (742, 690),
        (371, 345),
    ]
    assert [level.scale_x for level in image.levels] == [1, 2, 4]
    above = image.read(whole(image, 1), 1).astype(int)
    above = np.pad(above, ((0, 0), (0, 0), (0, 0)), mode="edge")
    quads = above[:742, :690].reshape(371, 2, 345, 2, 3)
    expected = np.floor(quads.sum(axis=(1, 3)) / 4 + 0.5)
    np.testing.assert_array_equal(image.read(whole(image, 2), 2), expected)


def test_what_is_not_valid_does_not_bleed_into_the_pyramid(tmp_path: Path) -> None:
    pixels, alpha = np.full((700, 600, 3), 200, np.uint8), np.full((700, 600), 255, np.uint8)
    pixels[101:301, 51:251] = 0
    alpha[101:301, 51:251] = 0
    PillowImage.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "image.png")
    convert(tmp_path / "image.png", tmp_path / "image.ome.zarr")
    image = open_image(tmp_path / "image.ome.zarr")
    half, valid = image.read(whole(image, 1), 1), image.read_valid(whole(image, 1), 1)
    assert valid is not None
    assert (half[valid] == 200).all()
    expected = np.ones((350, 300), bool)
    expected[51:150, 26:125] = False
    np.testing.assert_array_equal(valid, expected)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2, 64])
def test_memory_changes_the_steps_and_not_the_result(
    data: Path, tmp_path: Path, limit: int
) -> None:
    steps: list[tuple[int, int]] = []
    convert(
        data / "wsi/CMU-1-Small-Region.svs",
        tmp_path / "image.ome.zarr",
        memory_limit=limit * MIB,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
    assert (len(steps) > 30) == (limit == 2)
    image = open_image(tmp_path / "image.ome.zarr")
    source = open_image(data / "wsi/CMU-1-Small-Region.svs")
    np.testing.assert_array_equal(image.read(whole(image)), source.read(whole(source)))


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["zlib", "lzw", None])
@pytest.mark.parametrize("bands", [1, 3])
def test_one_huge_strip_is_streamed(tmp_path: Path, compression: str | None, bands: int) -> None:
    pixels = chart(3000, 1000, bands) // 16 * 16  # few values, which also LZW makes smaller
    tifffile.imwrite(
        tmp_path / "strip.tif",
        pixels.squeeze(),
        rowsperstrip=3000,
        compression=compression,
        photometric="rgb" if bands == 3 else "minisblack",
    )
    limit = 4 * pixels.nbytes - 4  # a strip is a byte beyond a step
    convert(tmp_path / "strip.tif", tmp_path / "image.ome.zarr", memory_limit=limit)
    image = open_image(tmp_path / "image.ome.zarr")
    np.testing.assert_array_equal(image.read(whole(image)), pixels)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_too_large_to_hold_is_streamed(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"picture.{suffix}"
    # Full chroma: decoders differ in how they enlarge it.
    options = {"subsampling": 0} if suffix == "jpg" else {}
    PillowImage.fromarray(chart(1500, 800, 3)).save(path, **options)
    expected = open_image(path).read(Window(0, 0, 1500, 800))
    monkeypatch.setattr("tilepipe.images.picture.LARGEST_BYTES", 1000)
    convert(path, tmp_path / "image.ome.zarr", memory_limit=8 * MIB)
    image = open_image(tmp_path / "image.ome.zarr")
    difference = np.abs(image.read(whole(image)).astype(int) - expected)
    assert difference.max() <= (0 if suffix == "png" else 4)  # two JPEG decoders


def test_a_large_progressive_jpeg_is_refused_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    PillowImage.fromarray(chart(64, 64, 3)).save(path, progressive=True)
    content = bytearray(path.read_bytes())
    start_of_frame = content.index(b"\xff\xc2")
    size = slice(start_of_frame + 5, start_of_frame + 9)
    content[size] = struct.pack(">HH", 30000, 30000)  # as it says itself
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"decoded whole.* or as a baseline JPEG"):
        convert(path, tmp_path / "image.ome.zarr")
    assert [file.name for file in tmp_path.iterdir()] == ["picture.jpg"]


def test_one_huge_tile_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "tile.tif", chart(2048, 2048)[..., 0], tile=(2048, 2048), compression="zlib"
    )
    with pytest.raises(InputError, match=r"tile\.tif can only be decoded whole.*memory limit"):
        convert(tmp_path / "tile.tif", tmp_path / "image.ome.zarr", memory_limit=4 * MIB)
    assert not list(tmp_path.glob("image*"))


def test_a_stack_is_not_slipped_past_its_refusal(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 40, 30), "u1"), metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match="along axis Z"):
        convert(tmp_path / "a.tif", tmp_path / "image.ome.zarr")


def test_a_target_that_exists_is_kept(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "image.ome.zarr"
    convert(data / "wsi/XYC.png", target)
    with pytest.raises(InputError, match="exists"):
        convert(data / "geo/s2_band.tif", target)
    assert open_image(target).shape == (512, 512, 3)
    convert(data / "geo/s2_band.tif", target, overwrite=True)
    assert open_image(target).shape == (243, 167, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["image.ome.zarr"]


def test_a_folder_of_something_else_is_never_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not a zarr folder"):
        convert(data / "wsi/XYC.png", tmp_path / "letters", overwrite=True)
    assert (tmp_path / "letters" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (UnreadableError("broken"), UnreadableError),
        (OSError(errno.ENOSPC, "No space left on device"), EnvironmentFailure),
    ],
)
def test_a_conversion_that_stops_leaves_what_was_there(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
) -> None:
    target = tmp_path / "image.ome.zarr"
    convert(data / "wsi/XYC.png", target)

    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(convert_module, "read_with_valid", stop)
    with pytest.raises(raised):
        convert(data / "geo/s2_band.tif", target, overwrite=True)
    assert open_image(target).shape == (512, 512, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["image.ome.zarr"]


def test_what_a_kill_leaves_is_no_image_and_is_cleared(data: Path, tmp_path: Path) -> None:
    left = tmp_path / "image.ome.zarr.part"
    convert(data / "geo/s2_band.tif", left)
    (left / "rubbish").write_text("")
    convert(data / "wsi/XYC.png", tmp_path / "image.ome.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["image.ome.zarr"]


def test_georeferenced_coordinates_survive_in_full(data: Path, tmp_path: Path) -> None:
    convert(data / "geo/L7_ETMs.tif", tmp_path / "image.ome.zarr")
    image = open_image(tmp_path / "image.ome.zarr")
    with rasterio.open(data / "geo/L7_ETMs.tif") as dataset:
        assert image.transform == tuple(dataset.transform)[:6]
        assert rasterio.CRS.from_wkt(image.crs) == dataset.crs


def channels_of(path: Path) -> list[dict[str, Any]]:
    document = json.loads((path / "zarr.json").read_text())
    found: list[dict[str, Any]] = document["attributes"]["ome"]["omero"]["channels"]
    return found


def converted(folder: Path, pixels: NDArray[Any], **options: Any) -> Path:
    source = geotiff(folder / "image.tif", pixels, **options)
    convert(source, folder / "image.ome.zarr", overwrite=True)
    return folder / "image.ome.zarr"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 4, 9])
def test_bands_without_names_are_numbered_in_viewers_alone(
    tmp_path: Path, bands: int, dtype: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (60, 50, bands)).astype(dtype)
    path = converted(tmp_path, pixels, photometric="minisblack")
    channels = channels_of(path)
    assert [c["label"] for c in channels] == [f"band {n + 1}" for n in range(bands)]
    colours = [c["color"] for c in channels]
    assert len(set(colours)) == min(bands, 8)
    assert sum(c["active"] for c in channels) == min(bands, 3)
    assert open_image(path).band_names == ("",) * bands
    NgffImage.from_zarr(zarr.open_group(path, mode="r"))
    open_image(path).close()
    convert(path, tmp_path / "again.ome.zarr")
    assert channels_of(tmp_path / "again.ome.zarr") == channels


def test_bands_with_names_have_their_own_colours(tmp_path: Path) -> None:
    names = ["nir", "red", "green", "blue"]
    pixels = np.zeros((60, 50, 4), np.uint16)
    path = converted(tmp_path, pixels, names=names)
    channels = channels_of(path)
    assert [c["label"] for c in channels] == names
    assert [c["color"] for c in channels] == ["FF00FF", "FF0000", "00FF00", "0000FF"]
    assert [c["active"] for c in channels] == [False, True, True, True]
    assert list(open_image(path).band_names) == names


def test_the_range_of_bands_is_that_of_their_data(tmp_path: Path) -> None:
    pixels = np.linspace(1000, 3000, 100 * 100).reshape(100, 100, 1).astype(np.uint16)
    pixels[:10] = 65535
    path = converted(tmp_path, pixels, nodata=65535)
    (window,) = [c["window"] for c in channels_of(path)]
    assert window["min"] == pixels[10:].min()
    assert window["max"] == 3000
    assert window["min"] < window["start"] < window["end"] < window["max"]
