from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.errors import NotGeoreferencedWarning

from tests.products.making import make_mask, make_spec, tree, whole
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.base import PixelSize
from tilepipe.products.formats import open_mask
from tilepipe.products.geotiff import write_cog
from tilepipe.products.instances import InstanceContent, create_instances, open_instances
from tilepipe.products.ome_tiff import write_ome_tiff
from tilepipe.products.pyramid import build_pyramid
from tilepipe.products.reduction import mode_of_objects
from tilepipe.storage.hashing import read_seal


def numbers(shape: tuple[int, int]) -> np.ndarray:
    """Squares of 7 pixels, each with a number of its own, with gaps between them."""
    y, x = np.indices(shape, np.uint32)
    inside = (y % 9 < 7) & (x % 9 < 7)
    return np.where(inside, y // 9 * 100_000 + x // 9 + 1, 0).astype(np.uint32)


def test_objects_lie_within_their_mask_on_its_levels(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((1025, 700)))
    path = mask.path / "objects"
    layer = create_instances(path, mask.spec, source="../")
    content = numbers(mask.shape)
    layer.write(whole(mask.shape), content)
    build_pyramid(layer)
    layer = open_instances(path)
    assert layer.levels == mask.levels
    assert layer.pixel_size == mask.pixel_size
    for level, shape in enumerate(layer.levels):
        np.testing.assert_array_equal(layer.read(whole(shape), level), content)
        content = mode_of_objects(content)


def test_chunks_without_objects_are_not_stored(tmp_path: Path) -> None:
    layer = create_instances(tmp_path / "o.ome.zarr", make_spec((1025, 700)))
    corner = Window(512, 512, 512, 188)
    layer.write(corner, np.ones(corner.shape, np.uint32))
    layer.write(Window(0, 0, 512, 512), np.zeros((512, 512), np.uint32))
    assert layer.stored_chunks() == {(1, 1)}
    seals = layer.take_seals(whole(layer.shape)).split(" ")
    keys = list(layer.chunk_keys(whole(layer.shape)))
    assert [read_seal(layer.path / key) for key in keys] == seals
    assert [key for key, seal in zip(keys, seals, strict=True) if seal != "-"] == ["0/c/1/1"]


def test_equal_objects_are_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        layer = create_instances(tmp_path / name, make_spec((600, 600)))
        layer.write(whole(layer.shape), numbers(layer.shape))
        build_pyramid(layer)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_other_readers_know_them_as_labels(tmp_path: Path) -> None:
    models = pytest.importorskip("ome_zarr_models.v05")
    zarr = pytest.importorskip("zarr")
    layer = create_instances(tmp_path / "o.ome.zarr", make_spec(), source="../../")
    label = models.image_label.ImageLabel.from_zarr(zarr.open_group(layer.path, mode="r"))
    assert label.ome_attributes.image_label.source.image == "../../"
    assert label.ome_attributes.image_label.colors is None
    assert [d.path for d in label.ome_attributes.multiscales[0].datasets] == [
        array.path for array in layer._arrays
    ]


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    create_instances(tmp_path / "o.ome.zarr", make_spec())
    with pytest.raises(InputError, match="already exists"):
        create_instances(tmp_path / "o.ome.zarr", make_spec())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        create_instances(tmp_path / "file", make_spec())


def test_anything_else_is_not_opened(tmp_path: Path) -> None:
    make_mask(tmp_path / "m.ome.zarr", make_spec((10, 10)))
    for name in ("m.ome.zarr", "nothing"):
        with pytest.raises(InputError, match="cannot be opened as objects"):
            open_instances(tmp_path / name)
    layer = create_instances(tmp_path / "new.ome.zarr", make_spec())
    document = json.loads((layer.path / "zarr.json").read_text())
    document["attributes"]["tilepipe"]["objects"] = 2
    (layer.path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="newer tilepipe"):
        open_instances(layer.path)


@pytest.mark.parametrize(
    ("four", "one"),
    [
        ((0, 0, 0, 0), 0),
        ((0, 0, 0, 5), 0),
        ((0, 5, 0, 5), 5),
        ((7, 5, 7, 5), 5),
        ((0, 0, 5, 7), 0),
        ((0, 5, 7, 9), 5),
        ((5, 7, 7, 7), 7),
        ((2**32 - 1, 0, 0, 2**32 - 1), 2**32 - 1),
    ],
)
def test_the_most_frequent_number_wins_and_objects_win_ties(
    four: tuple[int, ...], one: int
) -> None:
    found = mode_of_objects(np.array(four, np.uint32).reshape(2, 2))
    assert found.dtype == np.uint32
    assert found.tolist() == [[one]]


@given(
    arrays(np.uint32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 3))
)
def test_each_pixel_of_a_coarser_level_is_a_vote(pixels: np.ndarray) -> None:
    found = mode_of_objects(pixels)
    for (y, x), winner in np.ndenumerate(found):
        votes = np.bincount(pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel(), minlength=4)
        ranks = sorted(range(4), key=lambda n: (-votes[n], n == 0, n))
        assert winner == ranks[0]


UTM = {
    "crs": rasterio.crs.CRS.from_epsg(32633).to_wkt(),
    "transform": (10.0, 0.0, 5e5, 0.0, -10.0, 4e6),
    "pixel_size": PixelSize(10.0, 10.0, "meter"),
}


def numbered(path: Path, **spec: Any) -> InstanceContent:
    """Numbers in the upper left corner of a mask of three rows of chunks."""
    layer = create_instances(path, make_spec((1300, 1100), **spec))
    corner = Window(0, 0, 512, 512)
    layer.write(corner, numbers(corner.shape))
    build_pyramid(layer)
    return InstanceContent(open_instances(path))


def test_numbers_as_ome_tiff_are_read_by_others(tmp_path: Path) -> None:
    content = numbered(tmp_path / "o.ome.zarr")
    for name in ("a", "b"):
        write_ome_tiff(content, tmp_path / f"{name}.objects.ome.tif")
    assert (tmp_path / "a.objects.ome.tif").read_bytes() == (
        tmp_path / "b.objects.ome.tif"
    ).read_bytes()
    with tifffile.TiffFile(tmp_path / "a.objects.ome.tif") as file:
        series = file.series[0]
        assert file.is_ome
        assert (series.axes, series.dtype, len(series.levels)) == ("YX", np.uint32, 3)
        for level, shape in enumerate(content.levels):
            found = series.levels[level].asarray()
            np.testing.assert_array_equal(found, content.read_plane(0, whole(shape), level))
        assert 'PhysicalSizeX="0.5"' in str(file.ome_metadata)
        assert 'Type="uint32"' in str(file.ome_metadata)
        sizes = file.pages.first.databytecounts
    assert sizes[0] > 10 * sizes[-1]  # tiles without objects cost little
    with pytest.warns(NotGeoreferencedWarning):
        dataset = rasterio.open(tmp_path / "a.objects.ome.tif")
    with dataset:
        assert dataset.dtypes == ("uint32",)
        assert dataset.read(1).max() == content.read_plane(0, Window(0, 0, 512, 512)).max()


def test_numbers_as_geotiff_are_read_by_others(tmp_path: Path) -> None:
    content = numbered(tmp_path / "o.ome.zarr", **UTM)
    for name in ("a", "b"):
        write_cog(content, tmp_path / f"{name}.objects.tif")
    one, other = (tmp_path / f"{name}.objects.tif" for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    with rasterio.open(one) as dataset:
        assert dataset.dtypes == ("uint32",)
        assert dataset.nodata == 0
        assert dataset.crs.to_epsg() == 32633
        assert tuple(dataset.transform)[:6] == UTM["transform"]
        assert dataset.overviews(1) == [2, 4]
        np.testing.assert_array_equal(
            dataset.read(1), content.read_plane(0, whole(content.levels[0]))
        )
    with tifffile.TiffFile(one) as file:
        assert [page.shape for page in file.pages] == list(content.levels)
        for level, page in enumerate(file.pages):
            np.testing.assert_array_equal(
                page.asarray(), content.read_plane(0, whole(content.levels[level]), level)
            )
    style = (tmp_path / "a.objects.qml").read_text()
    assert "singlebandpseudocolor" in style


def test_files_of_numbers_are_not_taken_for_masks(tmp_path: Path) -> None:
    content = numbered(tmp_path / "o.ome.zarr")
    write_ome_tiff(content, tmp_path / "a.objects.ome.tif")
    write_cog(content, tmp_path / "a.objects.tif")
    for name in ("a.objects.ome.tif", "a.objects.tif"):
        with pytest.raises(InputError):
            open_mask(tmp_path / name)
