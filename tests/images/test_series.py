"""A file that holds several images: all are listed, the main one is read, and any can be chosen."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from rasterio.transform import from_origin

from tests.images import slides
from tests.making import make_image
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import PixelSize, open_image
from tilepipe.images.base import Series
from tilepipe.images.convert import convert
from tilepipe.images.reading import Reading
from tilepipe.images.series import choose, passed_over

SMALL, LARGE = make_image(90, 120), make_image(500, 600, seed=1)
WINDOW = Window(10, 20, 50, 60)


def ome_tiff(path: Path) -> Path:
    """The overview first, as some scanners' exports have it."""
    with tifffile.TiffWriter(path, ome=True) as writer:
        for pixels, name, um in ((SMALL, "overview", 16.0), (LARGE, "scan", 0.25)):
            metadata = {"axes": "YXS", "Name": name}
            for axis in "XY":
                metadata[f"PhysicalSize{axis}"] = um  # type: ignore[assignment]
                metadata[f"PhysicalSize{axis}Unit"] = "µm"
            writer.write(pixels, photometric="rgb", tile=(64, 64), metadata=metadata)
    return path


def plain_tiff(path: Path) -> Path:
    """Pages of different sizes, a thumbnail first."""
    with tifffile.TiffWriter(path) as writer:
        for pixels in (SMALL, LARGE):
            writer.write(pixels, photometric="rgb", tile=(64, 64), metadata=None, contiguous=False)
    return path


def geotiff(path: Path) -> Path:
    """Two directories with places on Earth."""
    for pixels in (SMALL, LARGE):
        height, width, count = pixels.shape
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=count, dtype="uint8",
            crs="EPSG:32631", transform=from_origin(5e5, 5e6, 10, 10),
            APPEND_SUBDATASET=pixels is LARGE,
        ) as dataset:  # fmt: skip
            dataset.write(pixels.transpose(2, 0, 1))
    return path


def bioformats2raw(path: Path, names: tuple[str, ...] = ("0", "1")) -> Path:
    """Numbered images in a folder."""
    root = zarr.create_group(path, attributes={"bioformats2raw.layout": 3}, zarr_format=2)
    for name, pixels in zip(names, (SMALL, LARGE), strict=True):
        group = root.create_group(name)
        group.create_array("0", data=pixels.transpose(2, 0, 1), chunks=(1, 64, 64))
        group.attrs["multiscales"] = [multiscale("0")]
    return path


def listed_scenes(path: Path) -> Path:
    """As bioformats2raw lists images that it does not number."""
    bioformats2raw(path, names=("a", "b"))
    zarr.open_group(path).create_group("OME").attrs["series"] = ["a", "b"]
    return path


def two_multiscales(path: Path) -> Path:
    """Two entries of ``multiscales`` in one group."""
    group = zarr.create_group(path, zarr_format=2)
    for name, pixels in (("small", SMALL), ("large", LARGE)):
        group.create_array(name, data=pixels.transpose(2, 0, 1), chunks=(1, 64, 64))
    group.attrs["multiscales"] = [multiscale("small"), multiscale("large")]
    return path


def multiscale(path: str) -> dict[str, object]:
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    steps = [{"type": "scale", "scale": [1.0, 0.25, 0.25]}]
    datasets = [{"path": path, "coordinateTransformations": steps}]
    return {"version": "0.4", "name": "", "axes": axes, "datasets": datasets}


CONTAINERS: dict[str, Callable[[Path], Path]] = {
    "scenes.ome.tif": ome_tiff,
    "pages.tif": plain_tiff,
    "places.tif": geotiff,
    "numbered.zarr": bioformats2raw,
    "listed.zarr": listed_scenes,
    "two.zarr": two_multiscales,
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_largest_image_is_read_wherever_it_stands(tmp_path: Path, name: str) -> None:
    image = open_image(CONTAINERS[name](tmp_path / name))
    assert [(s.number, s.height, s.width, s.bands, s.dtype) for s in image.series] == [
        (0, 90, 120, 3, "uint8"),
        (1, 500, 600, 3, "uint8"),
    ]
    assert image.series_number == 1
    np.testing.assert_array_equal(image.read(WINDOW), LARGE[WINDOW.slices()])
    assert image.series[1].pixel_size == image.pixel_size


@pytest.mark.parametrize("name", CONTAINERS)
def test_any_image_can_be_chosen(tmp_path: Path, name: str) -> None:
    image = open_image(CONTAINERS[name](tmp_path / name), Reading(series=0))
    assert (image.series_number, image.shape) == (0, SMALL.shape)
    np.testing.assert_array_equal(image.read(WINDOW), SMALL[WINDOW.slices()])
    again = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(again.read(WINDOW), SMALL[WINDOW.slices()])


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("wanted", [2, "no such"])
def test_an_image_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, name: str, wanted: int | str
) -> None:
    with pytest.raises(InputError, match=r"no image .*0.*\(120 x 90.*1.*\(600 x 500"):
        open_image(CONTAINERS[name](tmp_path / name), Reading(series=wanted))


@pytest.mark.parametrize("wanted", [1, "no such"])
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_file_of_one_image_has_no_other(tmp_path: Path, suffix: str, wanted: int | str) -> None:
    from PIL import Image

    Image.fromarray(SMALL).save(tmp_path / f"a.{suffix}")
    assert open_image(tmp_path / f"a.{suffix}", Reading(series=0)).shape == SMALL.shape
    with pytest.raises(InputError, match="no image"):
        open_image(tmp_path / f"a.{suffix}", Reading(series=wanted))


def test_each_image_has_its_own_pixel_size_and_name(tmp_path: Path) -> None:
    image = open_image(ome_tiff(tmp_path / "a.ome.tif"), Reading(series="Overview"))
    assert [s.name for s in image.series] == ["overview", "scan"]
    assert image.pixel_size == PixelSize(16.0, 16.0, "micrometer")
    assert image.series[1].pixel_size == PixelSize(0.25, 0.25, "micrometer")


def test_a_label_that_is_larger_than_the_scan_is_no_main_image(tmp_path: Path) -> None:
    levels = [Series(0, "Baseline", 100, 100, 3, "uint8"), Series(1, "Macro", 200, 300, 3, "uint8")]
    assert choose("a.svs", levels, None).number == 0
    note = passed_over(levels, 0)
    assert note is not None
    assert "larger" in note
    assert "--series" in note
    assert "1 'Macro' (300 x 200 pixels, 3 bands of uint8)" in note


def test_a_scan_with_its_label_and_thumbnail_is_read_without_a_word(tmp_path: Path) -> None:
    image = open_image(slides.aperio(tmp_path / "a.svs"))
    assert [s.name for s in image.series] == ["Baseline", "Thumbnail", "Label", "Macro"]
    assert image.notes == ()


def test_scenes_of_one_size_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    scenes = [Series(i, f"scene {i}", 100, 100, 1, "uint8") for i in range(3)]
    note = passed_over(scenes, 0)
    assert note is not None
    assert "other images of about this size" in note


def test_who_chose_is_told_nothing(tmp_path: Path) -> None:
    path = ome_tiff(tmp_path / "a.ome.tif")
    assert open_image(path, Reading(series=0)).notes == ()


def test_two_images_of_one_name_are_told_apart_by_number() -> None:
    twins = [Series(i, "scan", 9, 9, 1, "uint8") for i in range(2)]
    with pytest.raises(InputError, match="2 images named 'scan'; choose by number"):
        choose("a.tif", twins, "scan")


def test_a_stack_leaves_the_other_images_of_its_file_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        stack = np.stack([LARGE[..., 0]] * 3)
        writer.write(stack, photometric="minisblack", metadata={"axes": "ZYX", "Name": "stack"})
        writer.write(SMALL, photometric="rgb", metadata={"axes": "YXS", "Name": "plane"})
    with pytest.raises(InputError, match=r"3 planes along axis Z.*--series: 1 'plane'"):
        open_image(path)
    assert open_image(path, Reading(series="plane")).shape == SMALL.shape


def test_conversion_takes_the_image_that_is_chosen(tmp_path: Path) -> None:
    source = ome_tiff(tmp_path / "a.ome.tif")
    convert(source, tmp_path / "a.ome.zarr", reading=Reading(series=0))
    assert open_image(tmp_path / "a.ome.zarr").shape == SMALL.shape


def test_a_huge_strip_is_not_streamed_from_another_image_of_the_file(tmp_path: Path) -> None:
    # Two images of one size, which the OME-XML has in another order than the file.
    twins = [np.full((3000, 100, 3), value, np.uint8) for value in (10, 20)]
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for pixels in twins:
            strip = {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 3000}
            writer.write(pixels, metadata={"axes": "YXS"}, **strip)
    data = path.read_bytes()
    first, second = (b'<TiffData IFD="%d"' % number for number in range(2))
    assert data.count(first) == data.count(second) == 1
    other = b'<TiffData IFD="9"'
    swapped = data.replace(first, other).replace(second, first).replace(other, second)
    path.write_bytes(swapped)
    whole = Window(0, 0, 3000, 100)
    np.testing.assert_array_equal(open_image(path).read(whole), twins[1])
    with pytest.raises(InputError, match="can only be decoded whole"):
        convert(path, tmp_path / "a.zarr", memory_limit=2 * twins[0].nbytes)


def test_a_huge_strip_of_a_plain_file_is_streamed_from_the_image_that_is_chosen(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.tif"
    tall = make_image(3000, 100)
    with tifffile.TiffWriter(path) as writer:
        for pixels in (tall, np.concatenate([tall, tall])):
            strip = {"photometric": "rgb", "metadata": None, "rowsperstrip": len(pixels)}
            writer.write(np.full_like(pixels, 7), compression="zlib", contiguous=False, **strip)
    convert(path, tmp_path / "a.zarr", reading=Reading(series=0), memory_limit=2 * tall.nbytes)
    image = open_image(tmp_path / "a.zarr")
    assert image.shape == tall.shape
    assert (image.read(Window(0, 0, 3000, 100)) == 7).all()
