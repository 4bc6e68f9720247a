"""Scale and offset of a file: shown, and applied where asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.errors import NotGeoreferencedWarning

from tests.images.making import whole, write_scene
from tests.making import make_image
from tilepipe.errors import InputError
from tilepipe.images import open_image, read_with_valid, scaling
from tilepipe.images.convert import convert
from tilepipe.images.observed import notes_of
from tilepipe.images.reading import Reading
from tilepipe.images.resampled import ResampledImage

UNSCALE = Reading(unscale=True)


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    """int16, with a hole in one band and one in both; scale and offset of each band."""
    pixels = make_image(300, 200, 2).astype(np.int16) * 20
    pixels[40:80, 50:90, 1] = -9999
    pixels[100:120] = -9999
    path = write_scene(tmp_path / "i.tif", pixels, -9999)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4, 2e-4), (-0.1, 0.0)
    return path


def test_it_is_told_and_not_applied(scaled: Path) -> None:
    image = open_image(scaled)
    assert image.scaling == ((1e-4, -0.1), (2e-4, 0.0))
    assert image.dtype == np.int16
    (note,) = notes_of(image)
    assert "0.0001 and -0.1; 0.0002 and 0" in note
    assert "--unscale" in note


def test_it_is_applied_where_asked_for_and_nodata_is_told_by_raw_values(scaled: Path) -> None:
    image = open_image(scaled, UNSCALE)
    raw = open_image(scaled)
    assert image.dtype == np.float32
    assert image.notes == ()
    assert np.isnan(image.nodata or 0)
    pixels, valid = read_with_valid(image, whole(image))
    values, raw_valid = read_with_valid(raw, whole(image))
    np.testing.assert_array_equal(valid, raw_valid)
    assert valid is not None
    expected = values * np.array([1e-4, 2e-4]) + np.array([-0.1, 0.0])
    np.testing.assert_array_equal(pixels, np.where(valid, expected, np.nan).astype(np.float32))
    np.testing.assert_array_equal(image.read(whole(image)), pixels)
    np.testing.assert_array_equal(image.as_dask().compute(), pixels)


def test_strips_change_nothing(scaled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = open_image(scaled, UNSCALE)
    before = image.read(whole(image))
    monkeypatch.setattr(scaling, "STRIP_VALUES", 1000)
    np.testing.assert_array_equal(image.read(whole(image)), before)


def test_it_is_resampled_after_it_is_applied(scaled: Path) -> None:
    image = ResampledImage(open_image(scaled, UNSCALE), 0, (2.0, 2.0))
    pixels, valid = read_with_valid(image, whole(image))
    assert image.dtype == np.float32
    assert valid is not None
    assert np.isfinite(pixels).all()
    assert (pixels[~np.broadcast_to(valid, pixels.shape)] == 0).all()
    assert -0.1 <= pixels[..., 0].min() < pixels[..., 0].max() < 0.5


def test_a_conversion_carries_it_over_or_applies_it(scaled: Path, tmp_path: Path) -> None:
    source = open_image(scaled)
    convert(scaled, tmp_path / "kept.ome.zarr")
    kept = open_image(tmp_path / "kept.ome.zarr")
    assert kept.scaling == source.scaling
    assert kept.notes == source.notes
    convert(scaled, tmp_path / "applied.ome.zarr", reading=UNSCALE)
    applied = open_image(tmp_path / "applied.ome.zarr")
    assert applied.scaling == ()
    assert applied.dtype == np.float32
    for image in (applied, open_image(tmp_path / "kept.ome.zarr", UNSCALE)):
        expected = read_with_valid(open_image(scaled, UNSCALE), whole(source))
        for one, other in zip(read_with_valid(image, whole(image)), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_not_there_cannot_be_applied(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "i.tif", make_image(20, 30))
    with pytest.raises(InputError, match=r"i\.tif: declares no scale or .* leave out --unscale"):
        open_image(path, UNSCALE)


def test_a_plain_tiff_with_a_scale_and_no_place_is_told_of_too(tmp_path: Path) -> None:
    path = tmp_path / "i.tif"
    tifffile.imwrite(path, make_image(20, 30), photometric="rgb")
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path, "r+") as dataset:
        dataset.scales = (0.5, 0.5, 0.5)
    assert open_image(path).scaling == ((0.5, 0.0),) * 3


def test_files_of_others(data: Path) -> None:
    path = data / "geo/edge/cog_scale.tif"
    image = open_image(path, UNSCALE)
    with rasterio.open(path) as dataset:
        raw = dataset.read().transpose(1, 2, 0)
        expected = raw * np.array(dataset.scales) + np.array(dataset.offsets)
    pixels, valid = read_with_valid(image, whole(image))
    known = np.broadcast_to(True if valid is None else valid, pixels.shape)
    np.testing.assert_allclose(pixels[known], expected[known], rtol=1e-6)


def test_the_attributes_of_xarray_count(tmp_path: Path) -> None:
    import zarr

    pixels = make_image(40, 50, 1)[..., 0].astype(np.int16)
    pixels[:10] = -999
    convert(write_scene(tmp_path / "i.tif", pixels[..., None]), tmp_path / "i.ome.zarr")
    array = zarr.open_array(tmp_path / "i.ome.zarr/0")
    array.attrs.update({"scale_factor": 0.01, "add_offset": 273.15, "_FillValue": -999})
    image = open_image(tmp_path / "i.ome.zarr", UNSCALE)
    read, valid = read_with_valid(image, whole(image))
    assert valid is not None
    assert (valid[..., 0] == (np.arange(40) >= 10)[:, None]).all()
    expected = (pixels[10:] * 0.01 + 273.15).astype(np.float32)
    np.testing.assert_array_equal(read[10:, :, 0], expected)
