"""Any bands of any file, in any order, by number or name; an alpha band that is named is data."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image as Picture
from rasterio.enums import ColorInterp

from tests.images.making import geotiff
from tests.making import make_image
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import open_image
from tilepipe.images.bands import OF_EACH_BAND, misplaced, places_by_name
from tilepipe.images.convert import convert
from tilepipe.images.reading import Reading
from tilepipe.images.source import Description

SIZE = 200, 170
WHOLE = Window(0, 0, *SIZE)


def pixels_of(bands: int) -> NDArray[np.uint8]:
    return make_image(*SIZE, bands)


def planes_tiff(path: Path, pixels: NDArray[Any], **more: Any) -> Path:
    """Without a place on Earth; each band has tiles of its own."""
    tifffile.imwrite(
        path, np.moveaxis(pixels, -1, 0), tile=(64, 64), photometric="minisblack",
        planarconfig="separate", metadata=None, compression="zlib", **more,
    )  # fmt: skip
    return path


def ome_tiff(path: Path, pixels: NDArray[Any], names: list[str]) -> Path:
    tifffile.imwrite(
        path, np.moveaxis(pixels, -1, 0), tile=(64, 64), photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": names}},
    )  # fmt: skip
    return path


def ome_zarr(path: Path, pixels: NDArray[Any], names: list[str] | None = None) -> Path:
    group = zarr.create_group(path, zarr_format=3)
    group.create_array("0", data=np.moveaxis(pixels, -1, 0), chunks=(1, 64, 64))
    axes = [{"name": name, "type": "space" if name != "c" else "channel"} for name in "cyx"]
    scale = {"type": "scale", "scale": [1.0, 1.0, 1.0]}
    multiscale = {
        "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
    }  # fmt: skip
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [multiscale]}
    if names:
        ome["omero"] = {"channels": [{"label": name, "color": "FFFFFF"} for name in names]}
    group.attrs["ome"] = ome
    return path


def rgb_tiff(path: Path, pixels: NDArray[Any]) -> Path:
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", metadata=None)
    return path


def png(path: Path, pixels: NDArray[Any]) -> Path:
    Picture.fromarray(pixels).save(path)
    return path


FILES = {
    "GeoTIFF": lambda folder: (geotiff(folder / "a.tif", pixels_of(5)), 5),
    "GeoTIFF, bands apart": lambda folder: (
        geotiff(folder / "a.tif", pixels_of(5), interleave="band", compress="deflate"), 5,
    ),
    "TIFF of planes": lambda folder: (planes_tiff(folder / "a.tif", pixels_of(5)), 5),
    "OME-TIFF": lambda folder: (ome_tiff(folder / "a.ome.tif", pixels_of(3), ["a", "b", "c"]), 3),
    "TIFF of colours": lambda folder: (rgb_tiff(folder / "a.tif", pixels_of(3)), 3),
    "OME-Zarr": lambda folder: (ome_zarr(folder / "a.zarr", pixels_of(5)), 5),
    "PNG": lambda folder: (png(folder / "a.png", pixels_of(3)), 3),
}  # fmt: skip


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("chosen", [(3,), (3, 1), (2, 2, 2), (3, 2, 1)], ids=str)
def test_the_bands_chosen_are_read_in_the_order_given(
    tmp_path: Path, file: str, chosen: tuple[int, ...]
) -> None:
    path, bands = FILES[file](tmp_path)
    with closing(open_image(path, Reading(bands=chosen))) as image:
        assert image.bands == len(chosen)
        for window in (WHOLE, Window(-9, 30, 90, 150)):
            with closing(open_image(path)) as whole:
                expected = whole.read(window)[..., [number - 1 for number in chosen]]
            np.testing.assert_array_equal(image.read(window), expected)
    assert whole.bands == bands


NAMED = {
    "descriptions": lambda f: geotiff(f / "a.tif", pixels_of(4), ["red", "green", "blue", "nir"]),
    "colours": lambda f: geotiff(
        f / "a.tif", pixels_of(4), photometric="rgb",
        colours=[ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.nir],
    ),
    "OME-XML": lambda f: ome_tiff(f / "a.ome.tif", pixels_of(4), ["red", "green", "blue", "nir"]),
    "OMERO": lambda f: ome_zarr(f / "a.zarr", pixels_of(4), ["red", "green", "blue", "nir"]),
}  # fmt: skip


@pytest.mark.parametrize("how", NAMED)
def test_bands_have_the_names_that_files_give_them(tmp_path: Path, how: str) -> None:
    path = NAMED[how](tmp_path)
    with closing(open_image(path)) as image:
        assert image.band_names == ("red", "green", "blue", "nir")
    with closing(open_image(path, Reading(bands=("NIR", 2)))) as image:
        assert image.band_names == ("nir", "green")
        assert image.reading.bands == (4, 2), "numbers, which the plan keeps"
        np.testing.assert_array_equal(image.read(WHOLE), pixels_of(4)[..., [3, 1]])


def test_colours_of_pictures_are_named(tmp_path: Path) -> None:
    for path in (rgb_tiff(tmp_path / "a.tif", pixels_of(3)), png(tmp_path / "a.png", pixels_of(3))):
        with closing(open_image(path)) as image:
            assert image.band_names == ("red", "green", "blue")


def test_channels_that_are_called_numbers_are_found_where_no_band_has_that_number(
    tmp_path: Path,
) -> None:
    path = ome_tiff(tmp_path / "a.ome.tif", pixels_of(3), ["647", "488", "2"])
    for band, number in ((488, 2), (2, 2), ("647", 1)):
        with closing(open_image(path, Reading(bands=(band,)))) as image:
            assert image.reading.bands == (number,)


@pytest.mark.parametrize("band", [0, 5, "swir"])
def test_a_band_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, band: int | str
) -> None:
    path = geotiff(tmp_path / "a.tif", pixels_of(4), ["red", "green", "blue", "nir"])
    with pytest.raises(InputError, match=re.escape("1 red, 2 green, 3 blue, 4 nir")):
        open_image(path, Reading(bands=(band,)))


def test_a_name_of_two_bands_is_refused(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", pixels_of(2), ["red", "Red"])
    with pytest.raises(InputError, match="2 bands named red"):
        open_image(path, Reading(bands=("red",)))


def test_names_from_a_file_are_fit_for_a_terminal(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", pixels_of(2), ["\x1b[31mred", "x" * 500])
    with closing(open_image(path)) as image:
        assert all(name.isprintable() and len(name) <= 40 for name in image.band_names)


def test_all_bands_as_they_are_is_the_plain_reading(tmp_path: Path) -> None:
    path = rgb_tiff(tmp_path / "a.tif", pixels_of(3))
    with closing(open_image(path, Reading(bands=(1, 2, 3)))) as image:
        assert image.reading.is_plain


def with_alpha(folder: Path, kind: str) -> tuple[Path, NDArray[np.uint8]]:
    pixels = pixels_of(4)
    pixels[..., 3] = np.where(pixels[..., 3] > 127, 255, 0)
    if kind == "png":
        return png(folder / "a.png", pixels), pixels
    if kind == "GDAL":
        return geotiff(folder / "a.tif", pixels, photometric="rgb", alpha="yes"), pixels
    tifffile.imwrite(
        folder / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"], metadata=None
    )
    return folder / "a.tif", pixels


@pytest.mark.parametrize("kind", ["png", "GDAL", "tiff"])
def test_alpha_that_is_not_chosen_still_says_where_data_is(tmp_path: Path, kind: str) -> None:
    path, pixels = with_alpha(tmp_path, kind)
    with closing(open_image(path, Reading(bands=(3, 1)))) as image:
        np.testing.assert_array_equal(image.read(WHOLE), pixels[..., [2, 0]])
        np.testing.assert_array_equal(image.read_valid(WHOLE), pixels[..., 3] != 0)


@pytest.mark.parametrize("kind", ["png", "GDAL", "tiff"])
@pytest.mark.parametrize("bands", [(1, 2, 3, 4), ("red", "green", "blue", "alpha")], ids=str)
def test_alpha_that_is_chosen_is_data_and_nothing_else(
    tmp_path: Path, kind: str, bands: tuple[int | str, ...]
) -> None:
    path, pixels = with_alpha(tmp_path, kind)
    with closing(open_image(path, Reading(bands=bands))) as image:
        np.testing.assert_array_equal(image.read(WHOLE), pixels)
        assert image.read_valid(WHOLE) is None


def test_an_alpha_band_that_has_a_name_of_its_own_is_found_by_it(tmp_path: Path) -> None:
    names = ["red", "green", "blue", "nir"]
    path = geotiff(tmp_path / "a.tif", pixels_of(4), names, photometric="rgb", alpha="yes")
    with closing(open_image(path)) as image:
        assert (image.bands, image.file_bands) == (3, tuple(names))
    with closing(open_image(path, Reading(bands=("nir",)))) as image:
        np.testing.assert_array_equal(image.read(WHOLE), pixels_of(4)[..., [3]])


def test_nodata_is_that_of_the_bands_that_are_read(tmp_path: Path) -> None:
    pixels = pixels_of(2)
    pixels[:50, :, 0] = 7
    path = geotiff(tmp_path / "a.tif", pixels, nodata=7)
    with closing(open_image(path, Reading(bands=(1,)))) as image:
        np.testing.assert_array_equal(image.read_valid(WHOLE), pixels[..., 0] != 7)


def test_every_field_of_a_description_is_known_to_be_of_the_file_or_of_its_bands() -> None:
    # A new one that has an entry for each band belongs into `OF_EACH_BAND`, or bands that are
    # chosen get those of others.
    of_bands = {*OF_EACH_BAND, "bands", "band_names", "alpha", "decoded_bands", "masked"}
    of_the_file = {
        "path", "kind", "levels", "dtype", "chunks", "grid", "pixel_size_doubt", "streaming",
        "notes", "alpha_name", "series", "series_number", "palette",
    }  # fmt: skip
    assert {field.name for field in fields(Description)} == of_bands | of_the_file


def test_a_colour_of_a_palette_can_be_read_alone(tmp_path: Path) -> None:
    indices = (pixels_of(1)[..., 0] // 64).astype(np.uint8)
    colours = np.arange(768, dtype=np.uint16).reshape(3, 256) % 251 * 257
    tifffile.imwrite(
        tmp_path / "a.tif", indices, photometric="palette", colormap=colours, metadata=None
    )
    with closing(open_image(tmp_path / "a.tif")) as image:
        expected = image.read(WHOLE)[..., [2]]
    with closing(open_image(tmp_path / "a.tif", Reading(bands=("blue",)))) as image:
        np.testing.assert_array_equal(image.read(WHOLE), expected)


@pytest.mark.parametrize("file", ["GeoTIFF, bands apart", "TIFF of planes", "OME-TIFF"])
def test_bands_that_lie_apart_are_not_decoded_for_each_other(tmp_path: Path, file: str) -> None:
    path, _ = FILES[file](tmp_path)
    with closing(open_image(path, Reading(bands=(2,)))) as image:
        assert image.decoded_bytes == 1


def test_a_broken_tile_of_another_band_does_no_harm(tmp_path: Path) -> None:
    path = planes_tiff(tmp_path / "a.tif", pixels_of(3))
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        offset = page.dataoffsets[len(page.dataoffsets) // 3]  # the first of band 2
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 64)
    with closing(open_image(path, Reading(bands=(1, 3)))) as image:
        np.testing.assert_array_equal(image.read(WHOLE), pixels_of(3)[..., [0, 2]])


@pytest.mark.parametrize("bands", [4, 3])
def test_a_converted_image_keeps_the_names_of_its_bands(tmp_path: Path, bands: int) -> None:
    names = ["nir", "red", "green", "blue"][:bands]
    path = geotiff(tmp_path / "a.tif", pixels_of(bands), names)
    convert(path, tmp_path / "a.ome.zarr")
    with closing(open_image(tmp_path / "a.ome.zarr")) as image:
        assert list(image.band_names) == names


def test_a_conversion_does_not_make_up_names(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", pixels_of(4))
    convert(path, tmp_path / "a.ome.zarr", reading=Reading(bands=(4, 1, 2)))
    with closing(open_image(tmp_path / "a.ome.zarr")) as image:
        assert image.band_names == ("", "", "")


def test_an_image_is_converted_as_it_is_to_be_read(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", pixels_of(4))
    convert(path, tmp_path / "a.ome.zarr", reading=Reading(bands=(4, 1)))
    with closing(open_image(tmp_path / "a.ome.zarr")) as image:
        np.testing.assert_array_equal(image.read(WHOLE), pixels_of(4)[..., [3, 0]])


def test_bands_are_found_by_name_only_where_all_have_one_and_each_is_there_once() -> None:
    image = ("Blue", "green", "red", "NIR")
    assert places_by_name(image, ("red", "green", "blue")) == (2, 1, 0)
    assert places_by_name(image, ("r", "g", "b")) == (2, 1, 0)
    assert places_by_name(image, ("red", "swir")) is None
    assert places_by_name(("red", "red", "blue"), ("red", "blue")) is None
    assert places_by_name(("red", "", "blue"), ("red", "blue")) is None
    assert places_by_name(image, ()) is None


def test_a_band_is_misplaced_where_its_name_belongs_to_another() -> None:
    assert misplaced(("nir", "red", "green"), ("red", "green", "blue"))
    assert misplaced(("", "", "red"), ("red", "green", "blue"))
    assert not misplaced(("red", "green", ""), ("red", "green", "blue"))
    assert not misplaced(("B4", "B3", "B2"), ("red", "green", "blue"))
