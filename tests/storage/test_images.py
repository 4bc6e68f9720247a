"""Images on an object store are the same images: pixels, validity, facts and fingerprint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from PIL import Image as Picture
from rasterio.transform import from_origin

import tilepipe
from tests.making import make_image, write_tiff
from tests.storage.conftest import Service
from tests.storage.making import at
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.grid import Window
from tilepipe.images import byte_ranges, read_with_valid
from tilepipe.images.convert import convert

PIXELS = make_image(700, 900)


def tiled(folder: Path) -> Path:
    return write_tiff(folder / "tiled.tif", PIXELS)


def strips(folder: Path) -> Path:
    tifffile.imwrite(folder / "strips.tif", PIXELS, photometric="rgb", metadata=None)
    return folder / "strips.tif"


def planes(folder: Path) -> Path:
    path = folder / "planes.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"tile": (64, 64), "photometric": "minisblack", "compression": "zlib"}
        channels = PIXELS.transpose(2, 0, 1)
        writer.write(channels, subifds=1, metadata={"axes": "CYX"}, **options)
        writer.write(channels[:, ::2, ::2], subfiletype=1, **options)
    return path


def geotiff(folder: Path, compress: str = "deflate") -> Path:
    path = folder / f"{compress}.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=700, width=900, count=3, dtype="uint8", tiled=True,
        blockxsize=128, blockysize=128, compress=compress, crs="EPSG:32631", nodata=0,
        transform=from_origin(500_000, 5_000_000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(np.where(PIXELS < 40, 0, PIXELS).transpose(2, 0, 1))
        dataset.build_overviews([2])
    return path


def jpeg_in_tiff(folder: Path) -> Path:
    return geotiff(folder, "jpeg")


def mosaic(folder: Path) -> Path:
    rasterio.shutil.copy(geotiff(folder), folder / "mosaic.vrt", driver="VRT")
    return folder / "mosaic.vrt"


def ome_zarr(folder: Path) -> Path:
    convert(tiled(folder), folder / "image.ome.zarr", chunk=128)
    return folder / "image.ome.zarr"


def png(folder: Path) -> Path:
    Picture.fromarray(PIXELS).save(folder / "picture.png")
    return folder / "picture.png"


def jpeg(folder: Path) -> Path:
    Picture.fromarray(PIXELS).save(folder / "picture.jpg")
    return folder / "picture.jpg"


KINDS = [tiled, strips, planes, geotiff, jpeg_in_tiff, mosaic, ome_zarr, png, jpeg]
WINDOWS = [
    (Window(-30, 650, 260, 280), 0),
    (Window(300, 300, 200, 333), 0),
    (Window(9, 9, 70, 70), 1),
]


def uploaded(path: Path, address: str) -> str:
    """The address of a file, or of all files of a folder, and of its siblings."""
    for file in path.parent.rglob("*"):
        if file.is_file():
            (at(address) / file.relative_to(path.parent).as_posix()).write_bytes(file)
    return f"{address}/{path.name}"


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
def test_an_image_is_read_as_from_a_disk(
    make: Callable[[Path], Path], folder: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    address = uploaded(path, folder)
    with tilepipe.open_image(path) as here, tilepipe.open_image(address) as there:
        assert there.path == address
        assert there.fingerprint() == here.fingerprint()
        for fact in (
            "kind",
            "shape",
            "levels",
            "dtype",
            "pixel_size",
            "crs",
            "transform",
            "chunks",
        ):
            assert getattr(there, fact) == getattr(here, fact), fact
        for window, level in WINDOWS:
            if level < len(here.levels):
                for a, b in zip(
                    read_with_valid(here, window, level),
                    read_with_valid(there, window, level),
                    strict=True,
                ):
                    np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(
            there.as_dask()[:50, :60].compute(), here.as_dask()[:50, :60].compute()
        )


def test_tiles_of_a_window_are_fetched_together_and_a_bounded_amount_at_a_time(
    s3: Service, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiled(tmp_path)
    address = uploaded(path, folder)
    whole = Window(0, 0, 700, 900)
    with tilepipe.open_image(address) as image:
        s3.log()
        image.read(whole)
        assert len(s3.log()) == 1  # 48 tiles, one behind the other
        monkeypatch.setattr(byte_ranges, "AHEAD_BYTES", os.path.getsize(path) // 5)  # noqa: PTH202
        np.testing.assert_array_equal(image.read(whole), PIXELS)
        assert 4 <= len(s3.log()) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiled, geotiff, ome_zarr, png])
def test_a_store_that_fails_is_no_damage_of_the_image(
    make: Callable[[Path], Path],
    s3: Service,
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tilepipe.storage.objects import connection

    address = uploaded(make(tmp_path), folder)
    monkeypatch.setenv("TILEPIPE_OBJECT_PATIENCE", "0.5")
    connection.cache_clear()
    with tilepipe.open_image(address) as image:
        s3.order(fail=".")
        with pytest.raises(EnvironmentFailure, match="the object store fails"):
            image.read(Window(300, 300, 200, 200))
        s3.order()
        np.testing.assert_array_equal(image.read(Window(0, 0, 5, 5)).shape, (5, 5, 3))


def test_what_is_not_there_or_no_image_is_said_in_one_sentence(folder: str) -> None:
    with pytest.raises(InputError, match=r"image.tif does not exist; check the path"):
        tilepipe.open_image(f"{folder}/image.tif")
    (at(folder) / "empty.tif").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        tilepipe.open_image(f"{folder}/empty.tif")
    (at(folder) / "text.tif").write_bytes(b"no image at all" * 100)
    with pytest.raises(InputError, match="not an image that tilepipe can read"):
        tilepipe.open_image(f"{folder}/text.tif")
    (at(folder) / "cut.tif").write_bytes(b"II*\x00\xff\xff\xff\x00" + b"x" * 100)
    with pytest.raises(InputError, match=r"cut.tif"):
        tilepipe.open_image(f"{folder}/cut.tif")


@pytest.mark.parametrize(
    ("name", "relative"), [("/etc/hosts", 0), ("../x.tif", 1), ("/vsicurl/http://127.0.0.1/x", 0)]
)
def test_a_mosaic_opens_nothing_but_what_lies_beside_it(
    name: str, relative: int, folder: str, tmp_path: Path
) -> None:
    text = mosaic(tmp_path).read_text()
    source = '<SourceFilename relativeToVRT="1">deflate.tif<'
    assert source in text
    changed = text.replace(source, f'<SourceFilename relativeToVRT="{relative}">{name}<')
    (at(folder) / "mosaic.vrt").write_bytes(changed.encode())
    with pytest.raises(InputError, match="vrt refers to"):
        tilepipe.open_image(f"{folder}/mosaic.vrt")


def test_a_file_cut_off_is_unreadable_where_it_ends(folder: str, tmp_path: Path) -> None:
    path = tiled(tmp_path)
    (at(folder) / "cut.tif").write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with tilepipe.open_image(f"{folder}/cut.tif") as image:
        np.testing.assert_array_equal(image.read(Window(0, 0, 99, 99)), PIXELS[:99, :99])
        with pytest.raises(InputError, match="beyond the end of the file"):
            image.read(Window(600, 800, 50, 50))


def test_convert_writes_to_an_object_store(folder: str, tmp_path: Path) -> None:
    path = tiled(tmp_path)
    convert(path, tmp_path / "here.ome.zarr")
    convert(path, f"{folder}/there.ome.zarr")
    with pytest.raises(InputError, match="exists"):
        convert(path, f"{folder}/there.ome.zarr")
    convert(path, f"{folder}/there.ome.zarr", overwrite=True)
    here = {
        f.relative_to(tmp_path / "here.ome.zarr").as_posix(): f.read_bytes()
        for f in (tmp_path / "here.ome.zarr").rglob("*")
        if f.is_file()
    }
    top = at(f"{folder}/there.ome.zarr")
    assert {str(o).removeprefix(f"{top}/"): o.read_bytes() for o in top.objects()} == here
