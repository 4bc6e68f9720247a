"""CRS, transform, nodata and masks, against rasterio."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine

from tests.images.oracle import chart, mirrored, windows_of
from tilepipe.grid import Window
from tilepipe.images import PixelSize, open_image, read_with_valid

GEO = [
    "geo/L7_ETMs.tif",
    "geo/OSBS_029.tif",
    "geo/RGB.byte.tif",
    "geo/LC08_L1TP_224078_20200518_20200518_01_RT.TIF",
    "geo/s2_band.tif",
    "geo/s2_band.jp2",
    "geo/edge/cog_rgba.tif",
    "geo/edge/cog_rgb_mask.tif",
    "geo/edge/cog_nodata_nan.tif",
    "geo/edge/image_nan.tif",
    "geo/edge/cog_scale.tif",
    "geo/edge/image_colormap.tif",
    "geo/naip/m_4709963_se_14_1_20140720.tif",
]


@pytest.mark.parametrize("name", GEO)
def test_crs_and_transform_are_rasterios_to_the_bit(data: Path, name: str) -> None:
    image = open_image(data / name)
    with rasterio.open(data / name) as dataset:
        assert image.crs == dataset.crs.to_wkt()
        assert CRS.from_wkt(image.crs) == dataset.crs
        assert image.transform is not None
        assert [value.hex() for value in image.transform] == [
            value.hex() for value in tuple(dataset.transform)[:6]
        ]
        assert image.nodata == dataset.nodata or math.isnan(image.nodata or 0)


@pytest.mark.parametrize("name", GEO)
def test_validity_is_what_gdal_says_less_what_is_not_finite(data: Path, name: str) -> None:
    image = open_image(data / name)
    with rasterio.open(data / name) as dataset:
        expected = dataset.dataset_mask() != 0
        if np.dtype(dataset.dtypes[0]).kind == "f":
            expected &= np.isfinite(dataset.read()).any(axis=0)
    height, width = expected.shape
    for window in windows_of(height, width):
        valid = image.read_valid(window)
        if valid is None:
            assert mirrored(expected, window).all()
        else:
            np.testing.assert_array_equal(valid, mirrored(expected, window))
        pixels, together = read_with_valid(image, window)
        np.testing.assert_array_equal(pixels, image.read(window))
        np.testing.assert_equal(None if together is None else together.any(axis=2), valid)


def test_an_alpha_band_is_no_band(data: Path) -> None:
    image = open_image(data / "geo/edge/cog_rgba.tif")
    assert image.bands == 3
    with rasterio.open(data / "geo/edge/cog_rgba.tif") as dataset:
        np.testing.assert_array_equal(
            image.read(Window(0, 0, 232, 383)), dataset.read([1, 2, 3]).transpose(1, 2, 0)
        )


def test_a_fourth_band_that_is_infrared_is_one(data: Path) -> None:
    assert open_image(data / "geo/naip/m_4709963_se_14_1_20140720.tif").bands == 4


def test_a_palette_is_colours(data: Path) -> None:
    path = data / "geo/edge/image_colormap.tif"
    image = open_image(path)
    with rasterio.open(path) as dataset:
        colours = np.array([dataset.colormap(1)[i][:3] for i in range(256)], np.uint8)
        expected = colours[dataset.read(1)]
    np.testing.assert_array_equal(image.read(Window(0, 0, *expected.shape[:2])), expected)


def write(path: Path, crs: str | None, transform: Affine, **options: object) -> None:
    pixels = chart(200, 150, bands=3)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=200,
        width=150,
        count=3,
        dtype="uint8",
        crs=crs,
        transform=transform,
        **options,
    ) as dataset:
        dataset.write(pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("crs", "unit"),
    [
        ("EPSG:32633", "meter"),
        ("EPSG:4326", "degree"),
        ("EPSG:2263", "us survey foot"),
        ("EPSG:2222", "foot"),
        (None, None),
    ],
)
def test_pixel_size_is_in_the_unit_of_the_crs(
    tmp_path: Path, crs: str | None, unit: str | None
) -> None:
    write(tmp_path / "image.tif", crs, Affine(0.5, 0, 10, 0, -0.25, 20))
    image = open_image(tmp_path / "image.tif")
    assert image.pixel_size == (PixelSize(0.25, 0.5, unit) if unit else None)
    assert image.transform == (0.5, 0, 10, 0, -0.25, 20)


def test_pixel_size_of_a_rotated_image_is_the_length_of_its_sides(tmp_path: Path) -> None:
    write(
        tmp_path / "image.tif",
        "EPSG:32633",
        Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(2, -3),
    )
    size = open_image(tmp_path / "image.tif").pixel_size
    assert size is not None
    assert (size.y, size.x) == pytest.approx((3, 2))


def test_the_mask_of_an_overview_is_read_with_it(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    mask = np.zeros((200, 150), bool)
    mask[40:160, 30:90] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, "EPSG:32633", Affine(1, 0, 5, 0, -1, 7))
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(mask)
            dataset.build_overviews([2], Resampling.nearest)
    image = open_image(path)
    valid = image.read_valid(Window(0, 0, 100, 75), level=1)
    np.testing.assert_array_equal(valid, mask[::2, ::2])


def test_a_place_in_a_sidecar_counts(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "ortho.png"
    path.write_bytes((data / "wsi/XYC.png").read_bytes())
    (tmp_path / "ortho.pgw").write_text("0.5\n0\n0\n-0.5\n1000\n2000\n")
    image = open_image(path)
    assert image.transform == (0.5, 0, 999.75, 0, -0.5, 2000.25)
    assert image.pixel_size is None
