"""Maps of density: what they sum to, where they lie, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.objects.tables import CLASSES, blobs, label_mask, scene, table_of, write_table
from tests.products.making import tree
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.base import PixelSize
from tilepipe.images.control import GroundControl
from tilepipe.objects import areas, density
from tilepipe.objects.areas import PixelArea, answered_area
from tilepipe.objects.density import density_map
from tilepipe.products.formats import open_mask


def read_all(path):
    mask = open_mask(path)
    try:
        return mask.read(Window(0, 0, *mask.shape)), mask.grid
    finally:
        mask.close()


def cell_areas(mask, labels, sides, shape):
    """The answered area of each cell, one pixel at a time."""
    pixel = PixelArea(mask.spec)
    rows = np.minimum(((np.arange(labels.shape[0]) + 0.5) / sides[0]).astype(int), shape[0] - 1)
    columns = np.minimum(((np.arange(labels.shape[1]) + 0.5) / sides[1]).astype(int), shape[1] - 1)
    found = np.zeros(shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            inside = np.outer(rows == row, columns == column) & (labels != 255)
            found[row, column] = pixel.of(Window(0, 0, *labels.shape), inside)
    return found


def made(tmp_path, shape=(300, 420), **facts):
    labels = blobs(*shape)
    mask = label_mask(tmp_path / "m.ome.zarr", labels, **facts)
    return labels, mask, table_of(tmp_path / "objects.zarr", mask, labels)


@pytest.mark.parametrize("cell", ["19.3um", "40px", "1mm"])
def test_density_times_area_is_the_count_of_each_class(tmp_path, cell):
    labels, mask, objects = made(tmp_path)
    found = density_map(objects, mask, cell, tmp_path / "d.ome.zarr")
    values, _ = read_all(found.path)
    sides = {"19.3um": (19.3 / 0.25, 19.3 / 0.5), "40px": (40, 40), "1mm": (4000, 2000)}[cell]
    sizes = cell_areas(mask, labels, sides, values.shape[1:])
    assert sizes.sum() == pytest.approx(answered_area(mask, mask.spec).size)
    np.testing.assert_array_equal(np.isnan(values[0]), sizes == 0)
    kinds = objects.column("class")
    inside = (np.nan_to_num(values) * sizes).sum((1, 2))
    expected = [len(kinds), (kinds == 1).sum(), (kinds == 2).sum()]
    assert inside[0] == pytest.approx(expected[0] - found.unplaced, rel=1e-5)
    if not found.unplaced:
        np.testing.assert_allclose(inside, expected, rtol=1e-5)
    assert [c.name for c in found.spec.classes] == [
        "all per mm²", "nucleus per mm²", "gland per mm²",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "step"), [("EPSG:32633", 10.0), ("EPSG:4326", 1e-4), ("EPSG:3857", 20.0)]
)
def test_cells_are_as_large_on_the_ground_as_asked(tmp_path, code, step):
    labels, mask, objects = made(tmp_path, **scene(code, step))
    found = density_map(objects, mask, "1km", tmp_path / "d.tif")
    values, grid = read_all(found.path)
    pixel = PixelArea(mask.spec)
    sides = tuple(1000 / metres for metres in pixel.metres)
    sizes = cell_areas(mask, labels, sides, values.shape[1:])
    factor = {"ha": 100, "km2": 1}[pixel.unit.large]
    full = sizes[1 : int(300 // sides[0]), int(420 // sides[1]) - 1]
    assert full == pytest.approx(np.full(len(full), factor), rel=0.05)
    assert np.nansum(values[0] * sizes) == pytest.approx(len(objects) - found.unplaced, rel=1e-5)
    # The corner of the map is that of the mask, and its pixels are as wide as the cells.
    a, _, c, _, e, f = mask.spec.transform
    assert grid.transform == pytest.approx((a * sides[1], 0, c, 0, e * sides[0], f))
    assert grid.crs is not None


def test_map_lies_where_the_mask_does(tmp_path):
    origin = 3.0, 7.0
    _, mask, objects = made(tmp_path, origin=origin)
    found = density_map(objects, mask, "20um", tmp_path / "d.ome.zarr")
    spec = found.spec
    assert spec.pixel_size == PixelSize(20.0, 20.0, "micrometer")
    # The corner of the first cell is that of the first pixel.
    assert spec.origin[0] - 10 == pytest.approx(origin[0] - 0.25 / 2)
    assert spec.origin[1] - 10 == pytest.approx(origin[1] - 0.5 / 2)


@pytest.mark.parametrize("code", ["EPSG:32633", "EPSG:4326", "EPSG:3857"])
def test_gdal_finds_an_object_in_its_cell(tmp_path, code):
    import rasterio

    place = scene(code, 1e-4 if code == "EPSG:4326" else 10.0)
    labels = np.zeros((200, 300), np.uint8)
    mask = label_mask(tmp_path / "m.ome.zarr", labels, **place)
    x, y = 211.3, 77.7
    objects = write_table(tmp_path / "t", mask.spec, np.array([[1, 1.0, x, y]]))
    density_map(objects, mask, "300m", tmp_path / "d.tif")
    a, _, c, _, e, f = place["transform"]
    with rasterio.open(tmp_path / "d.tif") as file:
        assert file.crs == code
        values = file.read(1)
        row, column = file.index(a * x + c, e * y + f)
    assert values[row, column] > 0
    assert np.count_nonzero(values) == 1


def test_ome_tiff_says_the_size_of_a_cell(tmp_path):
    import tifffile

    _, mask, objects = made(tmp_path)
    density_map(objects, mask, "20um", tmp_path / "d.ome.tif")
    with tifffile.TiffFile(tmp_path / "d.ome.tif") as file:
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"]) == (20.0, 20.0)
    names = [channel["Name"] for channel in pixels["Channel"]]
    assert names == ["all per mm²", "nucleus per mm²", "gland per mm²"]


def test_map_in_pixels_needs_no_pixel_size(tmp_path):
    names = ("LINE_OFF", "LINE_SCALE", "SAMP_OFF", "SAMP_SCALE")
    control = GroundControl(rpcs=tuple((name, "10") for name in names))
    _, mask, objects = made(tmp_path, pixel_size=None, control=control)
    found = density_map(objects, mask, "50px", tmp_path / "d.ome.zarr")
    assert found.spec.pixel_size == PixelSize(50, 50, "pixel")
    assert found.spec.origin == (24.5, 24.5)
    assert found.spec.classes[0].name == "all per million pixels"
    assert found.spec.control == control.on_grid(50, 50)
    with pytest.raises(InputError, match="in pixels, for example 64px"):
        density_map(objects, mask, "50um", tmp_path / "e.ome.zarr")


@pytest.mark.parametrize("name", ["d.ome.tif", "d.tif", "d.ome.zarr"])
def test_every_format_holds_the_same_and_equal_maps_are_equal_bytes(tmp_path, name):
    _, mask, objects = made(tmp_path)
    first = density_map(objects, mask, "20um", tmp_path / "first.ome.zarr").path
    second, third = tmp_path / "a" / name, tmp_path / "b" / name
    for path in (second, third):
        path.parent.mkdir()
        density_map(objects, mask, "20um", path)
        density_map(objects, mask, "20um", path)  # over the first
    np.testing.assert_array_equal(read_all(first)[0], read_all(second)[0])
    assert read_all(first)[1].pixel_size == read_all(second)[1].pixel_size
    assert tree(second.parent) == tree(third.parent)
    assert {file.split("/")[0] for file in tree(second.parent)} <= {
        name,
        name + ".aux.xml",
        "d.qml",
    }


def test_windows_do_not_change_the_map(tmp_path, monkeypatch):
    _, mask, objects = made(tmp_path, shape=(700, 600))
    density_map(objects, mask, "21um", tmp_path / "a.ome.zarr")
    monkeypatch.setattr(areas, "SIDE", 111)
    density_map(objects, mask, "21um", tmp_path / "b.ome.zarr")
    np.testing.assert_allclose(
        read_all(tmp_path / "a.ome.zarr")[0], read_all(tmp_path / "b.ome.zarr")[0], rtol=1e-6
    )


def test_objects_in_cells_without_an_answer_are_told(tmp_path):
    labels = np.full((64, 64), 255, np.uint8)
    labels[:32, :32] = 0
    mask = label_mask(tmp_path / "m.ome.zarr", labels)
    rows = np.array([[1, 1.0, 10.0, 10.0], [1, 1.0, 50.0, 50.0]])
    objects = write_table(tmp_path / "t", mask.spec, rows)
    found = density_map(objects, mask, "32px", tmp_path / "d.ome.zarr")
    assert found.unplaced == 1


def test_a_single_class_is_a_single_plane(tmp_path):
    labels = np.zeros((64, 64), np.uint8)
    mask = label_mask(tmp_path / "m.ome.zarr", labels, classes=CLASSES[:2])
    rows = np.array([[1, 1.0, 10.0, 10.0], [1, 1.0, 50.0, 50.0], [1, 1.0, 64.0, 64.0]])
    objects = write_table(tmp_path / "t", mask.spec, rows)
    values, _ = read_all(density_map(objects, mask, "32px", tmp_path / "d.tif").path)
    size = 32 * 32 * 0.25 * 0.5e-6
    np.testing.assert_allclose(values, [[[1 / size, 0], [0, 2 / size]]])


def test_viewers_are_told_the_range(tmp_path):
    import zarr

    _, mask, objects = made(tmp_path)
    values, _ = read_all(density_map(objects, mask, "20um", tmp_path / "d.ome.zarr").path)
    channels = zarr.open_group(tmp_path / "d.ome.zarr", mode="r").attrs["ome"]["omero"]["channels"]
    tops = [channel["window"]["end"] for channel in channels]
    np.testing.assert_allclose(tops, np.nanmax(values, (1, 2)))


@pytest.mark.parametrize(
    ("cell", "said"),
    [("0.1um", "smaller than a pixel"), ("0um", "above 0"), ("wide", "not a length"),
     ("-3px", "above 0"), ("nanpx", "above 0"), ("px", "not a length")],
)  # fmt: skip
def test_cells_that_are_none_are_refused(tmp_path, cell, said):
    _, mask, objects = made(tmp_path, shape=(64, 64))
    with pytest.raises(InputError, match=said):
        density_map(objects, mask, cell, tmp_path / "d.ome.zarr")


def test_maps_with_too_many_cells_and_pictures_are_refused(tmp_path, monkeypatch):
    _, mask, objects = made(tmp_path, shape=(64, 64))
    with pytest.raises(InputError, match="holds values"):
        density_map(objects, mask, "9px", tmp_path / "d.png")
    monkeypatch.setattr(density, "MOST_CELLS", 100)
    with pytest.raises(InputError, match="use larger cells"):
        density_map(objects, mask, "9px", tmp_path / "d.ome.zarr")
    assert not list(tmp_path.glob("d.*"))
