from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine
from rasterio.crs import CRS

from tests.products.making import KINDS, MemoryImage, make_mask, make_spec, whole
from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import Window
from tilepipe.images.base import Image, PixelSize
from tilepipe.products import Mask, MaskClass, export, open_mask, suffix_kind

UTM = CRS.from_epsg(32618)
SUFFIXES = (".ome.tif", ".tif")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.ome.zarr", "ome-zarr"),
        ("a.zarr", "ome-zarr"),
        ("a.OME.TIF", "ome-tiff"),
        ("a.ome.tiff", "ome-tiff"),
        ("a.tif", "cog"),
        ("a.b.TIFF", "cog"),
        ("a.png", "png"),
    ],
)
def test_a_suffix_stands_for_a_format(name: str, kind: str) -> None:
    assert suffix_kind(Path("folder.zarr") / name) == kind


@pytest.mark.parametrize("name", ["a", "a.jpg", ".zarr", "a.tif.gz", "tif"])
def test_any_other_suffix_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(InputError, match=r"use \.ome\.zarr, \.ome\.tif"):
        suffix_kind(Path(name))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_opens_as_the_mask_that_it_is_of(tmp_path: Path, kind: Any, suffix: str) -> None:
    transform = (0.1, 0.0, 1e6 / 3, 0.0, -0.1, 7 / 3)
    spec = make_spec(kind=kind, crs=UTM.to_wkt(), transform=transform)
    mask = make_mask(tmp_path / "m.ome.zarr", spec)
    image = MemoryImage(np.zeros((*mask.shape, 3), np.uint8))
    assert isinstance(image, Image)
    export(mask, tmp_path / f"m{suffix}", image)

    opened = open_mask(tmp_path / f"m{suffix}")
    assert isinstance(opened, Mask)
    assert (opened.kind, opened.classes, opened.planes) == (kind, spec.classes, spec.planes)
    assert (opened.levels, opened.shape) == (mask.levels, mask.shape)
    assert (opened.pixel_size, opened.transform) == (spec.pixel_size, transform)
    assert opened.dtype == mask.dtype
    assert opened.crs is not None
    assert CRS.from_wkt(opened.crs) == UTM
    windows = [Window(500, 3, 30, 600), Window(1024, 699, 1, 1), whole(mask.shape)]
    for window in windows:
        np.testing.assert_array_equal(opened.read(window), mask.read(window))
    lazy = opened.as_dask(1)
    np.testing.assert_array_equal(lazy.compute(scheduler="sync"), mask.read(whole((513, 350)), 1))
    with pytest.raises(ValueError, match="outside"):
        opened.read(Window(0, 0, 1026, 1))
    opened.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["planes", "values"])
def test_a_single_plane_stays_a_plane(tmp_path: Path, kind: Any, suffix: str) -> None:
    spec = make_spec((30, 20), kind, background=None)
    spec = make_spec((30, 20), kind, background=None, classes=spec.classes[:1])
    mask = make_mask(tmp_path / "m.ome.zarr", spec)
    path = tmp_path / f"m{suffix}"
    export(mask, path, MemoryImage(np.zeros((30, 20, 3), np.uint8)))
    opened = open_mask(path)
    assert (opened.kind, opened.planes) == (kind, 1)
    np.testing.assert_array_equal(opened.read(whole((30, 20))), mask.read(whole((30, 20))))
    opened.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_threads_read_the_same(tmp_path: Path, suffix: str) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec())
    path = tmp_path / f"m{suffix}"
    export(mask, path, MemoryImage(np.zeros((*mask.shape, 3), np.uint8)))
    opened = open_mask(path)
    windows = [Window(y, x, 100, 100) for y in range(0, 900, 90) for x in range(0, 600, 90)]
    with ThreadPoolExecutor(4) as threads:
        for window, pixels in zip(windows, threads.map(opened.read, windows), strict=True):
            np.testing.assert_array_equal(pixels, mask.read(window))
    opened.close()


@pytest.mark.parametrize("suffix", [".ome.zarr", *SUFFIXES])
def test_an_opened_mask_travels_to_another_process(tmp_path: Path, suffix: str) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((600, 30)))
    path = tmp_path / f"m{suffix}"
    if path != mask.path:
        export(mask, path, MemoryImage(np.zeros((600, 30, 3), np.uint8)))
    opened = open_mask(path)
    travelled = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(travelled.read(whole((600, 30))), mask.read(whole((600, 30))))
    travelled.close()
    opened.close()


def test_what_gdal_made_of_a_mask_is_taken_as_it_is(tmp_path: Path) -> None:
    spec = make_spec((600, 60), crs=UTM.to_wkt(), transform=(0.5, 0, 9, 0, -0.5, 9))
    mask = make_mask(tmp_path / "m.ome.zarr", spec)
    export(mask, tmp_path / "m.tif", MemoryImage(np.zeros((600, 60, 3), np.uint8)))
    halved, real = tmp_path / "halved.tif", tmp_path / "real.tif"
    with rasterio.open(tmp_path / "m.tif") as source:
        profile = {"driver": "GTiff", "count": 1, "crs": UTM, "dtype": "uint8"}
        profile |= {"height": 300, "width": 30, "transform": source.transform * Affine.scale(2)}
        for path, dtype in ((halved, "uint8"), (real, "float32")):
            with rasterio.open(path, "w", **(profile | {"dtype": dtype})) as target:
                target.update_tags(**source.tags())
                target.write(source.read(1, out_shape=(300, 30)).astype(dtype), 1)
    mask_halved, mask_real = open_mask(halved), open_mask(real)
    assert (mask_halved.kind, mask_halved.classes) == ("labels", spec.classes)
    assert mask_halved.pixel_size == PixelSize(1.0, 1.0, "meter")
    assert (mask_real.kind, mask_real.classes) == ("values", None)
    mask_halved.close()
    mask_real.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_names_that_no_xml_can_hold_do_no_harm(tmp_path: Path, kind: Any, suffix: str) -> None:
    classes = (MaskClass("bell \x07", "#000000"), MaskClass("two\nlines", "#ffffff"))
    spec = make_spec((9, 9), kind, classes=classes, name="byte \udce9")
    path = tmp_path / f"m{suffix}"
    mask = make_mask(tmp_path / "m.ome.zarr", spec)
    export(mask, path, MemoryImage(np.zeros((9, 9, 3), np.uint8)))
    opened = open_mask(path)
    assert opened.classes == classes
    opened.close()


def test_zarr_masks_open_and_pictures_do_not(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9)))
    assert open_mask(str(mask.path)).shape == (9, 9)
    with pytest.raises(InputError, match="is a picture"):
        open_mask(tmp_path / "m.png")
    with pytest.raises(InputError, match="cannot be an export"):
        export(mask, tmp_path / "n.zarr", MemoryImage(np.zeros((9, 9, 3), np.uint8)))


def test_a_plain_geotiff_of_labels_is_a_mask(tmp_path: Path) -> None:
    labels = np.arange(200, dtype=np.uint8).reshape(10, 20)
    with rasterio.open(
        tmp_path / "m.tif",
        "w",
        driver="GTiff",
        height=10,
        width=20,
        count=1,
        dtype="uint8",
        crs=UTM,
        transform=Affine(0.5, 0, 10, 0, -0.25, 20),
    ) as target:
        target.write(labels, 1)
    mask = open_mask(tmp_path / "m.tif")
    assert (mask.kind, mask.classes) == ("labels", None)
    assert mask.pixel_size == PixelSize(0.25, 0.5, "meter")
    np.testing.assert_array_equal(mask.read(whole((10, 20))), labels)
    mask.close()


def test_an_ome_tiff_of_labels_in_strips_is_a_mask(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 9, (100, 70)).astype(np.uint8)
    meta = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    tifffile.imwrite(tmp_path / "m.ome.tif", labels, metadata=meta, rowsperstrip=7)
    mask = open_mask(tmp_path / "m.ome.tif")
    assert (mask.kind, mask.classes) == ("labels", None)
    assert mask.pixel_size == PixelSize(0.25, 0.5, "micrometer")
    np.testing.assert_array_equal(mask.read(Window(5, 3, 50, 60)), labels[5:55, 3:63])
    mask.close()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("made", ["missing", "text", "uint16", "rgb"])
def test_what_is_no_mask_is_refused_in_one_sentence(tmp_path: Path, suffix: str, made: str) -> None:
    path = tmp_path / f"m{suffix}"
    if made == "text":
        path.write_text("not a TIFF")
    elif made == "uint16":
        tifffile.imwrite(path, np.zeros((9, 9), np.uint16))
    elif made == "rgb" and suffix == ".ome.tif":
        tifffile.imwrite(path, np.zeros((9, 9, 3), np.uint8), photometric="rgb")
    elif made == "rgb":
        tifffile.imwrite(path, np.zeros((9, 9, 3), np.int32), photometric="rgb")
    with pytest.raises(InputError) as caught:
        open_mask(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_tile_is_named_unreadable(tmp_path: Path, suffix: str) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((600, 600)))
    path = tmp_path / f"m{suffix}"
    export(mask, path, MemoryImage(np.zeros((600, 600, 3), np.uint8)))
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"\xaa" * size
    path.write_bytes(content)
    opened = open_mask(path)
    with pytest.raises(UnreadableError, match="is damaged"):
        opened.read(Window(0, 0, 10, 10))
    opened.close()


def test_importing_masks_imports_no_format() -> None:
    code = (
        "import sys, tilepipe.products;"
        "heavy = {'torch', 'zarr', 'rasterio', 'tifffile', 'PIL', 'dask'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
