"""Windows of each format, against another reader of it and numpy's padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image as PillowImage
from rasterio.transform import from_origin

from tests.images.oracle import chart, mirrored, windows_of
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import Image, open_image

XYC_J2K = (
    "wsi/xyc/XYC_-compression_JPEG-2000_-tilex_128_-tiley_128_-pyramid-scale_2_-merge.ome.tiff"
)
XYC_LZW = "wsi/xyc/XYC_-compression_LZW_-tilex_128_-tiley_128_-pyramid-scale_2_-merge.ome.tiff"


def assert_reads(image: Image, level: int, expected: NDArray[Any]) -> None:
    expected = expected.reshape(*expected.shape[:2], -1)
    size = image.levels[level]
    assert (size.height, size.width, image.bands) == expected.shape
    for window in windows_of(size.height, size.width):
        pixels = image.read(window, level)
        assert pixels.dtype == image.dtype == expected.dtype
        assert pixels.dtype.isnative
        np.testing.assert_array_equal(pixels, mirrored(expected, window), str(window))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("wsi/CMU-1-Small-Region.svs", "SVS"),
        ("wsi/CMU-1-Small-Region.jp2.tiff", "TIFF"),
        ("wsi/CMU-1-Small-Region.webp.tiff", "TIFF"),
        ("wsi/HE_example.ome.tif", "OME-TIFF"),
        (XYC_LZW, "OME-TIFF"),
        (XYC_J2K, "OME-TIFF"),
    ],
)
def test_real_slides_read_as_tifffile_reads_them(data: Path, name: str, kind: str) -> None:
    image = open_image(data / name)
    assert image.kind == kind
    assert_reads(image, 0, tifffile.imread(data / name, series=0))


@pytest.mark.parametrize("name", ["wsi/XYC.png", XYC_LZW, XYC_J2K])
def test_every_pixel_of_the_test_chart_is_at_its_own_place(data: Path, name: str) -> None:
    with PillowImage.open(data / "wsi/XYC.png") as chart_png:
        assert_reads(open_image(data / name), 0, np.asarray(chart_png))


def test_a_slide_reads_as_openslide_reads_it(data: Path) -> None:
    path = data / "wsi/CMU-1-Small-Region.svs"
    with openslide.OpenSlide(path) as slide:
        expected = np.asarray(slide.read_region((700, 900), 0, (600, 500)))[..., :3]
    pixels = open_image(path).read(Window(900, 700, 500, 600))
    # Two JPEG decoders may round a colour differently.
    assert np.abs(pixels.astype(int) - expected).max() <= 2


@pytest.mark.slow
def test_every_level_of_an_ndpi_is_read(data: Path) -> None:
    path = data / "wsi/test3-DAPI-2-387.ndpi"
    image = open_image(path)
    assert [level.scale_y for level in image.levels] == [1, 2, 4, 8]
    for level in range(4):
        assert_reads(image, level, tifffile.imread(path, series=0, level=level))


@pytest.mark.parametrize("name", ["geo/L7_ETMs.tif", "geo/edge/cog.tif", "geo/s2_band.jp2"])
def test_every_level_of_a_georeferenced_image_reads_as_rasterio_reads_it(
    data: Path, name: str
) -> None:
    image = open_image(data / name)
    for level in range(len(image.levels)):
        options = {"OVERVIEW_LEVEL": level - 1} if level else {}
        with rasterio.open(data / name, **options) as dataset:
            assert_reads(image, level, dataset.read().transpose(1, 2, 0))
            base = image.transform
            if base is not None:
                # A level covers the whole extent, as GDAL has it.
                assert dataset.transform.a == pytest.approx(base[0] * image.levels[level].scale_x)
                assert dataset.transform.e == pytest.approx(base[4] * image.levels[level].scale_y)
    with rasterio.open(data / name) as dataset:
        assert [round(level.scale_y) for level in image.levels] == [1, *dataset.overviews(1)]


WRITINGS: dict[str, dict[str, Any]] = {
    "strips": {"rowsperstrip": 7},
    "deflate strips": {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
    "one raw strip": {"rowsperstrip": 1000},
    "tiles": {"tile": (32, 48)},
    "lzw": {"tile": (32, 48), "compression": "lzw", "predictor": True},
    "deflate": {"tile": (32, 48), "compression": "zlib"},
    "zstd": {"tile": (32, 48), "compression": "zstd"},
    "packbits": {"rowsperstrip": 9, "compression": "packbits"},
    "big-endian": {"byteorder": ">", "rowsperstrip": 11},
    "big-endian tiles": {"byteorder": ">", "tile": (16, 16)},
    "bigtiff": {"bigtiff": True, "tile": (64, 64), "compression": "zlib"},
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("writing", WRITINGS)
def test_grey_tiffs_of_all_makes(tmp_path: Path, writing: str, dtype: str) -> None:
    if writing == "packbits" and dtype != "uint8":
        pytest.skip("PackBits is for bytes")
    pixels = chart(101, 83, dtype=dtype)[..., 0]
    path = tmp_path / "image.anything"
    tifffile.imwrite(path, pixels, **WRITINGS[writing])
    assert_reads(open_image(path), 0, pixels)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("writing", WRITINGS)
def test_rgb_tiffs_of_all_makes(tmp_path: Path, writing: str, planar: str) -> None:
    pixels = chart(101, 83, bands=3)
    path = tmp_path / "image.tif"
    written = pixels if planar == "contig" else pixels.transpose(2, 0, 1)
    tifffile.imwrite(path, written, photometric="rgb", planarconfig=planar, **WRITINGS[writing])
    assert_reads(open_image(path), 0, pixels)


@pytest.mark.parametrize("writing", ["tiles", "strips", "one raw strip"])
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_channels_in_pages_of_their_own_are_bands(tmp_path: Path, kind: str, writing: str) -> None:
    if kind == "imagej" and writing != "one raw strip":
        pytest.skip("ImageJ writes one strip a plane")
    pixels = chart(70, 50, bands=4, dtype="uint16")
    path = tmp_path / "fluorescence.tif"
    options = WRITINGS[writing] if kind == "ome" else {}
    tifffile.imwrite(
        path, pixels.transpose(2, 0, 1), metadata={"axes": "CYX"}, **{kind: True}, **options
    )
    assert_reads(open_image(path), 0, pixels)


@pytest.mark.parametrize("axis", ["T", "Z"])
def test_stacks_are_refused_with_what_to_do(tmp_path: Path, axis: str) -> None:
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(
        path, np.zeros((5, 40, 30), np.uint8), ome=True, metadata={"axes": f"{axis}YX"}
    )
    with pytest.raises(InputError, match=f"5 planes along axis {axis}.*save the plane you want"):
        open_image(path)


def test_a_stack_of_one_plane_is_a_plane(tmp_path: Path) -> None:
    path = tmp_path / "stack.ome.tif"
    pixels = chart(40, 30)[..., 0]
    tifffile.imwrite(path, pixels[None], ome=True, metadata={"axes": "ZYX"})
    assert_reads(open_image(path), 0, pixels)


def test_sub_resolutions_are_levels(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.ome.tif"
    full = chart(300, 201, bands=3)
    levels = [full, full[::2, ::2], full[::4, ::4]]
    with tifffile.TiffWriter(path, ome=True) as writer:
        for level, pixels in enumerate(levels):
            writer.write(
                pixels,
                subifds=0 if level else 2,
                subfiletype=1 if level else 0,
                tile=(64, 64),
                photometric="rgb",
                compression="zlib",
                metadata={"axes": "YXS"},
            )
    image = open_image(path)
    assert [level.scale_x for level in image.levels] == [1, 2, 4]
    for level, pixels in enumerate(levels):
        assert_reads(image, level, pixels)


def test_a_palette_is_colours(tmp_path: Path) -> None:
    indices = chart(40, 30)[..., 0]
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    path = tmp_path / "palette.tif"
    tifffile.imwrite(path, indices, photometric="palette", colormap=colours * 257)
    assert_reads(open_image(path), 0, colours.T[indices].astype(np.uint8))


def test_one_bit_a_pixel_is_numbers(tmp_path: Path) -> None:
    pixels = chart(40, 32)[..., 0] > 100
    path = tmp_path / "bilevel.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack")
    assert_reads(open_image(path), 0, pixels.astype(np.uint8))


@pytest.mark.parametrize("height", [1, 2, 5])
def test_images_smaller_than_the_margin_are_mirrored_over_and_over(
    tmp_path: Path, height: int
) -> None:
    pixels = chart(height, 9)[..., 0]
    path = tmp_path / "small.tif"
    tifffile.imwrite(path, pixels)
    window = Window(-92, -92, 572, 572)
    np.testing.assert_array_equal(
        open_image(path).read(window), mirrored(pixels[..., None], window)
    )


def test_a_window_is_not_copied_from_a_decoded_picture(data: Path) -> None:
    image = open_image(data / "wsi/XYC.png")
    first, second = (image.read(Window(5, 5, 100, 100)) for _ in range(2))
    assert np.shares_memory(first, second)


def test_a_level_that_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(InputError, match="no level 3; choose one of 0 to 0"):
        open_image(data / "wsi/XYC.png").read(Window(0, 0, 5, 5), level=3)


def test_dask_is_lazy_and_the_same(data: Path) -> None:
    path = data / "geo/edge/cog.tif"
    image = open_image(path)
    lazy = image.as_dask()
    with rasterio.open(path) as dataset:
        expected = dataset.read().transpose(1, 2, 0)
    assert lazy.shape == expected.shape
    assert lazy.chunks[0] == (2048, 619)
    assert lazy.name == open_image(path).as_dask().name
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), expected)
    np.testing.assert_array_equal(
        image.as_dask(2)[:40, 3:9].compute(), image.read(Window(0, 3, 40, 6), 2)
    )


def test_dask_chunks_of_strips_hold_no_more_than_others(tmp_path: Path) -> None:
    path = tmp_path / "wide.tif"
    tifffile.imwrite(path, np.zeros((3000, 8192), np.uint8), rowsperstrip=48, compression="zlib")
    rows, columns, _ = open_image(path).as_dask().chunks
    assert columns == (8192,)
    assert rows[0] == 528  # 2048 * 2048 / 8192, rounded up to whole strips


def test_plain_images_without_a_place_are_read_by_gdal_too(tmp_path: Path) -> None:
    pixels = chart(40, 30, bands=3)
    PillowImage.fromarray(pixels).save(tmp_path / "image.bmp")
    image = open_image(tmp_path / "image.bmp")
    assert (image.crs, image.transform, image.pixel_size) == (None, None, None)
    assert_reads(image, 0, pixels)


def test_mosaics_are_read_through_their_vrt(data: Path, tmp_path: Path) -> None:
    pixels = chart(60, 50)
    for name, x in (("left", 0), ("right", 50)):
        with rasterio.open(
            tmp_path / f"{name}.tif",
            "w",
            driver="GTiff",
            height=60,
            width=50,
            count=1,
            dtype="uint8",
            crs="EPSG:32633",
            transform=from_origin(x, 60, 1, 1),
        ) as dataset:
            dataset.write(pixels[..., 0] if name == "left" else 255 - pixels[..., 0], 1)
    (tmp_path / "both.vrt").write_text(
        '<VRTDataset rasterXSize="100" rasterYSize="60"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>0,1,0,60,0,-1</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename>'
            f'<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="50" ySize="60"/>'
            f'<DstRect xOff="{x}" yOff="0" xSize="50" ySize="60"/></SimpleSource>'
            for name, x in (("left", 0), ("right", 50))
        )
        + "</VRTRasterBand></VRTDataset>"
    )
    image = open_image(tmp_path / "both.vrt")
    assert_reads(image, 0, np.hstack([pixels, 255 - pixels]))
    before = image.fingerprint()
    with rasterio.open(tmp_path / "right.tif", "r+") as dataset:
        dataset.write(pixels[..., 0], 1)
    assert open_image(tmp_path / "both.vrt").fingerprint() != before
