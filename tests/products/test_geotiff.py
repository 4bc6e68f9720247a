from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from tests.products.making import CLASSES, KINDS, NO_ANSWER, SHAPES, make_mask, make_spec, whole
from tilepipe.products.geotiff import write_cog

UTM = CRS.from_epsg(32618).to_wkt()

TRANSFORMS = {
    "ugly": (300.0379266750948, 0.0, 101985.0, 0.0, -300.041782729805, 2826915.0),
    "thirds": (1 / 3, 0.0, 1e6 / 3, 0.0, -1 / 3, 7e6 / 3),
    "rotated": (0.1, 0.30000000000000004, 1e6 / 3, 0.2, -0.1, 7 / 3),
    "south up": (0.1, 0.0, 1e6 / 3, 0.0, 0.1, 7 / 3),
    "east left": (-0.1, 0.0, 1e6 / 3, 0.0, -0.1, 7 / 3),
}


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, **options) as dataset:
            yield dataset


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gdal_reads_every_level_of_a_valid_cog(
    tmp_path: Path, kind: Any, shape: tuple[int, int]
) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec(shape, kind))
    path = tmp_path / "m.tif"
    write_cog(mask, path)
    bands = 1 if kind == "labels" else None
    with opened(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.compression.name == "deflate"
        assert set(dataset.block_shapes) == {(512, 512)}
        assert len(dataset.overviews(1)) == len(mask.levels) - 1
        if kind == "values":
            assert np.isnan(dataset.nodata)
        else:
            assert dataset.nodata == NO_ANSWER
        np.testing.assert_array_equal(dataset.read(bands), mask.read(whole(shape)))
    for level, size in enumerate(mask.levels[1:], start=1):
        with opened(path, overview_level=level - 1) as overview:
            np.testing.assert_array_equal(overview.read(bands), mask.read(whole(size), level))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_transform_is_kept_to_the_last_bit(tmp_path: Path, name: str) -> None:
    spec = make_spec((600, 30), crs=UTM, transform=TRANSFORMS[name])
    write_cog(make_mask(tmp_path / "m.ome.zarr", spec), tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert tuple(dataset.transform)[:6] == TRANSFORMS[name]
        assert dataset.crs == CRS.from_wkt(UTM)


@pytest.mark.parametrize(
    "name",
    [
        "RGB.byte.tif",
        "LC08_L1TP_224078_20200518_20200518_01_RT.TIF",
        "L7_ETMs.tif",
        "s2_band.tif",
        "naip/m_4709963_se_14_1_20200831.tif",
    ],
)
def test_the_place_of_a_real_image_is_kept(tmp_path: Path, data: Path, name: str) -> None:
    with rasterio.open(data / "geo" / name) as source:
        crs, transform = source.crs, tuple(source.transform)[:6]
    spec = make_spec((40, 50), crs=crs.to_wkt(), transform=transform)
    write_cog(make_mask(tmp_path / "m.ome.zarr", spec), tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert tuple(dataset.transform)[:6] == transform
        assert dataset.crs == crs


@pytest.mark.parametrize("kind", KINDS)
def test_a_crs_that_geotiff_cannot_express_is_kept_beside_it(tmp_path: Path, kind: Any) -> None:
    rotated_pole = CRS.from_string(
        "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18"
        " +to_meter=0.0174532925199433"
    )
    spec = make_spec((9, 9), kind, crs=rotated_pole.to_wkt(), transform=TRANSFORMS["thirds"])
    write_cog(make_mask(tmp_path / "m.ome.zarr", spec), tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert dataset.crs == CRS.from_wkt(rotated_pole.to_wkt())
        assert tuple(dataset.transform)[:6] == TRANSFORMS["thirds"]


def test_a_mask_of_a_slide_has_its_pixel_size_in_the_tags(tmp_path: Path) -> None:
    write_cog(make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9))), tmp_path / "m.tif")
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        assert file.pages[0].get_resolution("MICROMETER") == (1 / 0.5, 1 / 0.25)


def test_a_georeferenced_mask_has_no_second_pixel_size(tmp_path: Path) -> None:
    spec = make_spec((9, 9), crs=UTM, transform=TRANSFORMS["ugly"])
    write_cog(make_mask(tmp_path / "m.ome.zarr", spec), tmp_path / "m.tif")
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        assert "XResolution" not in file.pages[0].tags


def test_a_mask_without_a_place_has_none(tmp_path: Path) -> None:
    write_cog(make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9))), tmp_path / "m.tif")
    with opened(tmp_path / "m.tif") as dataset:
        assert dataset.crs is None
        assert dataset.transform.is_identity


def test_labels_have_the_colours_and_names_of_their_classes(tmp_path: Path) -> None:
    write_cog(make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9))), tmp_path / "m.tif")
    with opened(tmp_path / "m.tif") as dataset:
        colours = dataset.colormap(1)
        assert [colours[i][:3] for i in range(3)] == [named.rgb for named in CLASSES]
        assert dataset.tags(1)["CLASS_2"] == "<stroma> & more"
        rasterio.shutil.copy(dataset, tmp_path / "seen.vrt", driver="VRT")
    # A VRT states what GDAL found; rasterio does not give category names itself.
    seen = (tmp_path / "seen.vrt").read_text(encoding="utf-8")
    assert "<Category>noyau é</Category>" in seen


def test_the_side_file_has_an_entry_for_each_class_and_no_background(tmp_path: Path) -> None:
    """QGIS makes its legend of it; OpenSlide and libvips read the TIFF's own."""
    write_cog(make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9))), tmp_path / "m.tif")
    with opened(tmp_path / "m.tif") as dataset:
        assert dataset.colormap(1) == {
            value: (*named.rgb, 255 if value else 0) for value, named in enumerate(CLASSES)
        }
        assert dataset.colorinterp[0].name == "palette"
    (tmp_path / "m.tif.aux.xml").unlink()
    with opened(tmp_path / "m.tif") as dataset:
        assert len(dataset.colormap(1)) == 256
        assert dataset.colormap(1)[0] == (*CLASSES[0].rgb, 255)


def test_planes_are_bands_that_are_named_and_no_colours(tmp_path: Path) -> None:
    write_cog(make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9), "planes")), tmp_path / "m.tif")
    with opened(tmp_path / "m.tif") as dataset:
        assert dataset.descriptions == tuple(named.name for named in CLASSES)
        assert {band.name for band in dataset.colorinterp} == {"gray"}
    assert not (tmp_path / "m.tif.aux.xml").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_masks_give_equal_bytes(tmp_path: Path, kind: Any) -> None:
    written = []
    for name in ("a", "b"):
        spec = make_spec((513, 600), kind, crs=UTM, transform=TRANSFORMS["ugly"])
        mask = make_mask(tmp_path / f"{name}.ome.zarr", spec)
        write_cog(mask, tmp_path / f"{name}.tif")
        side_file = tmp_path / f"{name}.tif.aux.xml"
        names = side_file.read_bytes() if kind == "labels" else b""
        written.append((tmp_path / f"{name}.tif").read_bytes() + names)
    assert written[0] == written[1]


def test_what_was_known_of_a_replaced_file_is_removed(tmp_path: Path) -> None:
    stale = tmp_path / "m.tif.aux.xml"
    stale.write_text("<PAMDataset/>")
    write_cog(make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9), "planes")), tmp_path / "m.tif")
    assert not stale.exists()


def test_a_failure_of_gdal_is_an_os_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec())
    (tmp_path / "m.tif").write_bytes(b"older")

    def fails(*_: Any, **__: Any) -> None:
        raise RasterioIOError("write failed")

    monkeypatch.setattr(rasterio.shutil, "copy", fails)
    with pytest.raises(OSError, match="write failed") as caught:
        write_cog(mask, tmp_path / "m.tif")
    assert caught.value.errno == errno.EIO
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
    with pytest.raises(OSError, match="write failed") as caught:
        write_cog(mask, tmp_path / "m.tif")
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "m.tif").read_bytes() == b"older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.ome.zarr", "m.tif"]


def test_the_side_file_is_there_before_the_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9)))
    replaced = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        replaced.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_cog(mask, tmp_path / "m.tif")
    assert replaced[-2:] == ["m.tif.aux.xml", "m.tif"]


def test_what_a_killed_export_left_is_no_obstacle(tmp_path: Path) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec((9, 9)))
    (tmp_path / "m.tif.levels.part").mkdir()
    (tmp_path / "m.tif.levels.part" / "0.tif").touch()
    (tmp_path / "m.tif.part").write_bytes(b"half")
    write_cog(mask, tmp_path / "m.tif")
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["m.ome.zarr", "m.tif", "m.tif.aux.xml"]
