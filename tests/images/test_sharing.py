"""Images among threads, processes and copies: reads, pickles, fingerprints, memory."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.images.oracle import chart
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import check_bounded, convert, open_image

FILES = [
    "wsi/CMU-1-Small-Region.svs",
    "wsi/test3-DAPI-2-387.ndpi",
    "wsi/XYC.png",
    "geo/edge/cog.tif",
    "geo/edge/cog_rgb_mask.tif",
    "geo/s2_band.jp2",
]


@pytest.mark.parametrize("name", [*FILES, "converted"])
def test_threads_read_what_one_thread_reads(data: Path, tmp_path: Path, name: str) -> None:
    path = data / name
    if name == "converted":
        path = tmp_path / "image.ome.zarr"
        convert.convert(data / "wsi/XYC.png", path, chunk=128)
    rng = np.random.default_rng(5)
    height, width, _ = open_image(path).shape
    windows = [
        Window(
            *(int(v) for v in rng.integers(-40, (height, width))), *rng.integers(1, 200, 2).tolist()
        )
        for _ in range(48)
    ]
    serial = open_image(path)
    expected = [(serial.read(window), serial.read_valid(window)) for window in windows]
    shared = open_image(path)
    start = threading.Barrier(8)

    def read(part: int) -> None:
        start.wait()
        for number in range(part, len(windows), 8):
            pixels, valid = expected[number]
            np.testing.assert_array_equal(shared.read(windows[number]), pixels)
            np.testing.assert_equal(shared.read_valid(windows[number]), valid)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))


@pytest.mark.parametrize("name", FILES)
def test_a_copy_has_the_same_fingerprint_and_a_changed_one_another(
    data: Path, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "under another name"
    shutil.copy(data / name, copy)
    before = open_image(copy).fingerprint()
    assert before == open_image(data / name).fingerprint()
    assert len(before) == 16
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    assert open_image(copy).fingerprint() != before


def test_the_fingerprint_of_an_ome_zarr(data: Path, tmp_path: Path) -> None:
    first, copy = tmp_path / "image.ome.zarr", tmp_path / "copy.zarr"
    convert.convert(data / "wsi/XYC.png", first, chunk=64)
    shutil.copytree(first, copy)
    before = open_image(first).fingerprint()
    assert open_image(copy).fingerprint() == before
    chunk = copy / "0/c/0/3/5"
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.write_bytes(content)
    assert open_image(copy).fingerprint() != before
    chunk.unlink()
    assert open_image(copy).fingerprint() != before


def test_an_image_travels_as_its_path(data: Path) -> None:
    image = open_image(data / "geo/edge/cog.tif")
    window = Window(-5, 30, 40, 50)
    there = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(there.read(window), image.read(window))


def test_a_huge_strip_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "strip.tif"
    tifffile.imwrite(path, chart(1000, 1000)[..., 0], rowsperstrip=1000, compression="zlib")
    image = open_image(path)
    check_bounded(image, 0, 1_000_000)
    with pytest.raises(InputError, match=r"1000 x 1000 pixels .* at a time.*tilepipe convert"):
        check_bounded(image, 0, 999_999)


def test_a_huge_strip_of_a_geotiff_is_not_hidden_by_gdal(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "strip.tif"
    tifffile.imwrite(
        path,
        chart(3000, 40)[..., 0],
        rowsperstrip=3000,
        compression="zlib",
        extratags=[
            (33550, "d", 3, (1.0, 1.0, 0.0)),
            (33922, "d", 6, (0.0, 0.0, 0.0, 5.0, 5.0, 0.0)),
        ],
    )
    image = open_image(path)
    assert image.kind == "GeoTIFF"
    assert image.chunks == ((3000, 40),)
    assert open_image(path, streaming=True).chunks == ((1, 40),)


def test_a_raw_strip_is_read_in_parts_however_large(tmp_path: Path) -> None:
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, np.zeros((2000, 1000), np.uint8))
    check_bounded(open_image(path), 0, 2**18)


def test_importing_images_imports_no_readers_and_no_torch() -> None:
    readers = ("torch", "tifffile", "rasterio", "zarr", "dask", "PIL")
    code = f"import sys, tilepipe.images; print([m for m in {readers} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
