"""What cannot be decoded is said to be so, and what can be is still read."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image as PillowImage
from rasterio.transform import from_origin

from tests.images.oracle import chart
from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import Window
from tilepipe.images import open_image

Damage = Callable[[bytearray, int, int], bytearray]
TILE = 5
"""Number of the tile that is damaged: the second of the second row of four."""
INSIDE, BESIDE = Window(70, 70, 20, 20), Window(0, 0, 64, 256)


def zero_all(file: bytearray, offset: int, count: int) -> bytearray:
    file[offset : offset + count] = bytes(count)
    return file


def zero_the_end(file: bytearray, offset: int, count: int) -> bytearray:
    file[offset + count // 2 : offset + count] = bytes(count - count // 2)
    return file


def cut_off(file: bytearray, offset: int, count: int) -> bytearray:
    return file[: offset + count // 2]


def break_header(file: bytearray, offset: int, count: int) -> bytearray:
    file[offset : offset + 64] = np.random.default_rng(1).bytes(64)
    return file


DAMAGES: list[Damage] = [zero_all, zero_the_end, cut_off, break_header]


def damages(*compressions: str) -> list[tuple[str, Damage]]:
    """All pairs but one: zstd has no checksum here, and zeros may be its sound data."""
    pairs = [(compression, how) for compression in compressions for how in DAMAGES]
    return [pair for pair in pairs if (pair[0].lower(), pair[1]) != ("zstd", zero_the_end)]


def damage(path: Path, how: Damage, tile: int = TILE) -> None:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        offset, count = page.dataoffsets[tile], page.databytecounts[tile]
    path.write_bytes(how(bytearray(path.read_bytes()), offset, count))


@pytest.mark.parametrize(("compression", "how"), damages("jpeg", "jpeg2000", "zlib", "lzw", "zstd"))
def test_a_broken_tile_of_a_slide(tmp_path: Path, compression: str, how: Damage) -> None:
    path = tmp_path / "slide.tif"
    pixels = chart(256, 256, bands=3)
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression=compression)
    whole = open_image(path).read(BESIDE)
    damage(path, how)
    image = open_image(path)
    with pytest.raises(UnreadableError, match=r"slide\.tif.*row 70, column 70.*level 0.*tile 5"):
        image.read(INSIDE)
    np.testing.assert_array_equal(image.read(BESIDE), whole)


@pytest.mark.parametrize(("compression", "how"), damages("JPEG", "DEFLATE", "LZW", "ZSTD"))
def test_a_broken_tile_of_a_geotiff(tmp_path: Path, compression: str, how: Damage) -> None:
    path = tmp_path / "scene.tif"
    write_scene(path, compression)
    whole = open_image(path).read(BESIDE)
    damage(path, how)
    image = open_image(path)
    assert image.kind == "GeoTIFF"
    with pytest.raises(UnreadableError, match=r"scene\.tif.*row 70, column 70"):
        image.read(INSIDE)
    np.testing.assert_array_equal(image.read(BESIDE), whole)


def write_scene(path: Path, compression: str, **options: Any) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=256,
        width=256,
        count=3,
        dtype="uint8",
        crs="EPSG:32633",
        transform=from_origin(5e5, 5e6, 0.5, 0.5),
        tiled=True,
        blockxsize=64,
        blockysize=64,
        compress=compression,
        **options,
    ) as dataset:
        dataset.write(chart(256, 256, bands=3).transpose(2, 0, 1))


@pytest.mark.parametrize("how", [zero_all, zero_the_end])
def test_a_broken_tile_of_a_real_slide(data: Path, tmp_path: Path, how: Damage) -> None:
    path = tmp_path / "copy.svs"
    shutil.copy(data / "wsi/CMU-1-Small-Region.svs", path)
    damage(path, how, tile=33)  # row 3, column 3 of ten columns
    image = open_image(path)
    with pytest.raises(UnreadableError, match="tile 33"):
        image.read(Window(700, 700, 100, 100))
    np.testing.assert_array_equal(
        image.read(Window(0, 0, 240, 240)),
        open_image(data / "wsi/CMU-1-Small-Region.svs").read(Window(0, 0, 240, 240)),
    )


def test_a_tile_with_noise_in_its_middle(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.svs"
    shutil.copy(data / "wsi/CMU-1-Small-Region.svs", path)

    def noise(file: bytearray, offset: int, count: int) -> bytearray:
        middle = offset + count // 3
        file[middle : middle + 2048] = np.random.default_rng(3).bytes(2048)
        return file

    damage(path, noise, tile=33)
    with pytest.raises(UnreadableError, match="its JPEG data is broken"):
        open_image(path).read(Window(700, 700, 100, 100))


def test_raw_strips_beyond_the_end_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "raw.tif"
    pixels = chart(1000, 1000)[..., 0]
    tifffile.imwrite(path, pixels)
    os.truncate(path, path.stat().st_size // 2)
    image = open_image(path)
    np.testing.assert_array_equal(image.read(Window(0, 0, 100, 50))[..., 0], pixels[:100, :50])
    with pytest.raises(UnreadableError, match="cut off"):
        image.read(Window(990, 0, 5, 5))


def test_the_strips_of_an_ndpi(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.ndpi"
    content = bytearray((data / "wsi/test3-DAPI-2-387.ndpi").read_bytes())
    with tifffile.TiffFile(data / "wsi/test3-DAPI-2-387.ndpi") as file:
        page = file.pages.first
        offset, count = page.dataoffsets[300], page.databytecounts[300]
    path.write_bytes(zero_the_end(content, offset, count))
    image = open_image(path)
    with pytest.raises(UnreadableError, match="tile 300"):
        image.read(Window(2400, 0, 8, 8))
    image.read(Window(2300, 0, 8, 8))


@pytest.mark.parametrize("geo", [False, True])
def test_a_tile_that_the_disk_cannot_read_is_the_images_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, geo: bool
) -> None:
    path = tmp_path / "image.tif"
    if geo:
        write_scene(path, "DEFLATE")
    else:
        tifffile.imwrite(path, chart(256, 256, bands=3), tile=(64, 64), compression="zlib")

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with open_image(path) as image:
        monkeypatch.setattr("tilepipe.images.byte_ranges.FileBytes.read", fail)
        with pytest.raises(UnreadableError, match=r"image\.tif.*cannot be read from disk"):
            image.read(INSIDE)


def test_a_file_that_cannot_be_fingerprinted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilepipe.images.fingerprints import fingerprint_files

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a.tif").touch()
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(InputError, match=r"a\.tif cannot be read \(Input/output error\)"):
        fingerprint_files([tmp_path / "a.tif"])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_cut_off_pictures(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"picture.{suffix}"
    PillowImage.fromarray(chart(200, 200, bands=3)).save(path)
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(InputError, match="picture"):
        open_image(path).read(Window(0, 0, 200, 200))


def test_a_mosaic_with_a_missing_part(tmp_path: Path) -> None:
    path = tmp_path / "mosaic.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="10" rasterYSize="10"><SRS>EPSG:32633</SRS>'
        '<GeoTransform>0,2,0,0,0,-2</GeoTransform><VRTRasterBand dataType="Byte" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">gone.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(InputError, match=r"gone\.tif"):
        open_image(path).read(Window(0, 0, 10, 10))


@pytest.mark.parametrize("geo", [False, True])
def test_a_tile_left_out_is_not_valid_in_a_slide_and_nodata_in_a_geotiff(
    tmp_path: Path, geo: bool
) -> None:
    path = tmp_path / "sparse.tif"
    if geo:
        write_scene(path, "DEFLATE", nodata=9)
    else:
        pixels = chart(256, 256, bands=3)
        tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = file.pages.first.tags[name]
            tag.overwrite([0 if i == TILE else value for i, value in enumerate(tag.value)])
    image = open_image(path)
    assert (image.read(INSIDE) == (9 if geo else 0)).all()
    valid = image.read_valid(Window(0, 0, 256, 256))
    assert valid is not None
    expected = np.ones((256, 256), bool)
    expected[64:128, 64:128] = False
    np.testing.assert_array_equal(valid, expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.tif", b"", "is empty"),
        (
            "words.tif",
            b"this is no image at all, only words",
            "not an image that tilepipe can read",
        ),
        ("header.tif", b"II*\x00\x08\x00\x00\x00", "as a TIFF|no image"),
        ("noise.tif", b"II*\x00\x08\x00\x00\x00" + bytes(range(256)), "as a TIFF|no image"),
        ("stub.png", b"\x89PNG\r\n\x1a\n", "broken"),
        ("stub.jpg", b"\xff\xd8\xff\xe0", "broken"),
    ],
)
def test_what_is_no_image_is_named_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.svs does not exist"):
        open_image(tmp_path / "gone.svs")


def test_a_folder_of_anything_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without an OME-Zarr image"):
        open_image(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret.tif"
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    path.chmod(0)
    with pytest.raises(InputError, match="may not be read"):
        open_image(path)


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.99])
def test_a_slide_cut_off_anywhere_never_gives_wrong_pixels(
    data: Path, tmp_path: Path, keep: float
) -> None:
    path = tmp_path / "cut.svs"
    shutil.copy(data / "wsi/CMU-1-Small-Region.svs", path)
    os.truncate(path, int(path.stat().st_size * keep))
    try:
        image = open_image(path)
    except InputError:
        return
    whole = open_image(data / "wsi/CMU-1-Small-Region.svs")
    for y in range(0, 2967, 480):
        window = Window(y, 480, 40, 40)
        try:
            pixels = image.read(window)
        except UnreadableError:
            continue
        np.testing.assert_array_equal(pixels, whole.read(window))


def test_a_missing_codec_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, chart(64, 64)[..., 0], compression="zstd")

    class NoCodecs(dict[int, Any]):
        def __getitem__(self, key: int) -> Any:
            raise KeyError(f"{key} requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", NoCodecs())
    with pytest.raises(InputError, match=r"ZSTD.*pip install imagecodecs"):
        open_image(path)


@pytest.mark.parametrize("big", [False, True])
def test_directories_that_go_round_in_a_circle(tmp_path: Path, big: bool) -> None:
    path = tmp_path / "circle.tif"
    with tifffile.TiffWriter(path, bigtiff=big) as writer:
        for _ in range(2):
            writer.write(chart(32, 32)[..., 0], metadata=None)
    with tifffile.TiffFile(path) as file:
        first, second = file.pages[0].offset, file.pages[1].offset
        entries = len(file.pages[1].tags)
    content = bytearray(path.read_bytes())
    place = second + (8 + 20 * entries if big else 2 + 12 * entries)
    content[place : place + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="go round in a circle"):
        open_image(path)


def test_what_cannot_be_read_can_travel_to_another_process(tmp_path: Path) -> None:
    import pickle

    from tblib import pickling_support

    pickling_support.install()  # as Dask does: causes travel along
    path = tmp_path / "scene.tif"
    write_scene(path, "LZW")
    damage(path, break_header)
    with pytest.raises(UnreadableError) as caught:
        open_image(path).read(INSIDE)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_noise_that_inflates_is_told_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (1, 256, 256), dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", height=256, width=256, count=1, dtype="uint8", crs="EPSG:32632",
        transform=rasterio.Affine(10, 0, 0, 0, -10, 0), compress="DEFLATE", tiled=True,
        blockxsize=128, blockysize=128,
    ) as file:  # fmt: skip
        file.write(pixels)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        end = page.dataoffsets[3] + page.databytecounts[3]
    content = bytearray(path.read_bytes())
    content[end - 1] ^= 1  # of the checksum: the pixels would be what they were
    path.write_bytes(content)
    image = open_image(path)
    assert np.array_equal(image.read(Window(0, 0, 128, 128))[..., 0], pixels[0, :128, :128])
    with pytest.raises(UnreadableError, match="row 1, column 1: its deflate data is broken"):
        image.read(Window(0, 0, 256, 256))
    image.close()
