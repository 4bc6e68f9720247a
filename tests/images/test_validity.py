"""Which values are no data, band by band, against a rule written out pixel by pixel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.images.making import whole, write_scene
from tests.making import make_image
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import open_image, read_with_valid, validity
from tilepipe.images.convert import convert
from tilepipe.images.reading import Reading
from tilepipe.images.resampled import ResampledImage
from tilepipe.images.validity import validity as find


def by_hand(pixels: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """Shape (height, width, bands); one pixel and one band after the other."""
    valid = np.ones(pixels.shape, np.bool_)
    unsigned = pixels.dtype.kind == "u"
    for y, x in np.ndindex(pixels.shape[:2]):
        lacks, alone = [], []
        for band, value in enumerate(pixels[y, x].tolist()):
            none = nodata[band] if nodata else None
            broken = not math.isfinite(value)
            lacks.append(broken or (none is not None and value == none))
            honest = none == 0 or (unsigned and none == np.iinfo(pixels.dtype).max)
            alone.append(lacks[-1] and (broken or not honest))
        valid[y, x] = [not (all(lacks) or one) for one in alone]
    return valid


@given(
    st.sampled_from(["uint8", "uint16", "int16", "float32"]), st.integers(1, 4), st.integers(0),
    st.lists(st.sampled_from([None, 0.0, 1.0, 255.0, 65535.0, -9999.0, math.nan]), max_size=4),
)  # fmt: skip
def test_every_band_of_every_pixel_is_judged_by_the_rule(
    dtype: str, bands: int, seed: int, declared: list[float | None]
) -> None:
    rng = np.random.default_rng(seed)
    choice = {"uint8": [0, 1, 7, 255], "uint16": [0, 1, 255, 65535], "int16": [0, 1, -9999, 9]}
    values = choice.get(dtype, [0, 1, -9999, np.nan, np.inf])
    pixels = rng.choice(np.array(values, dtype), (5, 6, bands))
    nodata = tuple(declared[:bands]) if len(declared) >= bands else ()
    expected = by_hand(pixels, nodata)
    found = find(pixels, nodata)
    if found is None:
        assert expected.all()
        return
    np.testing.assert_array_equal(np.broadcast_to(found, pixels.shape), expected)
    agree = (expected == expected[..., :1]).all()
    assert found.shape[2] == 1 or not agree, "one plane does where all bands agree"


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = make_image(50, 40, 3).astype(np.float32)
    pixels[10:20, :, :] = np.nan
    pixels[30:31, 5, 1] = -9999
    whole = find(pixels, (-9999.0,) * 3)
    monkeypatch.setattr(validity, "STRIP_VALUES", 300)
    strips = find(pixels, (-9999.0,) * 3)
    assert whole is not None
    assert strips is not None
    np.testing.assert_array_equal(whole, strips)


def test_each_band_of_a_vrt_has_its_own_nodata_value(tmp_path: Path) -> None:
    pixels = np.full((40, 50, 3), 3000, np.uint16)
    pixels[:10, :10] = (1, 2, 3)
    pixels[20:25, 20:25, 1] = 2
    pixels[30, 30] = (2, 3, 1)  # values of other bands are data
    write_scene(tmp_path / "i.tif", pixels)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><NoDataValue>{i}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">i.tif</SourceFilename><SourceBand>{i}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for i in (1, 2, 3)
    )
    path = tmp_path / "i.vrt"
    path.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{bands}</VRTDataset>')
    _, valid = read_with_valid(open_image(path), Window(0, 0, 40, 50))
    expected = np.ones((40, 50, 3), np.bool_)
    expected[:10, :10] = False
    expected[20:25, 20:25, 1] = False
    np.testing.assert_array_equal(valid, expected)


def test_a_conversion_keeps_the_validity_of_each_band_on_all_levels(tmp_path: Path) -> None:
    for name, nodata, hole in (("a", -9999.0, -9999.0), ("b", 0.0, np.nan), ("c", None, np.nan)):
        pixels = make_image(700, 600, 2).astype(np.float32) + 1
        pixels[100:200, 100:300, 1] = hole
        pixels[400:500, :50] = np.nan if nodata is None else nodata
        source = open_image(write_scene(tmp_path / f"{name}.tif", pixels, nodata))
        convert(source, tmp_path / f"{name}.ome.zarr")
        image = open_image(tmp_path / f"{name}.ome.zarr")
        for level, step in ((0, 1), (1, 2)):
            read, valid = read_with_valid(image, whole(image, level), level)
            expected = np.ones((700, 600, 2), np.bool_)
            expected[100:200, 100:300, 1] = False
            expected[400:500, :50] = False
            np.testing.assert_array_equal(valid, expected[::step, ::step])
            assert (np.isfinite(read) & (read > 0))[expected[::step, ::step]].all()


@pytest.mark.parametrize("factor", [0.5, 1.7, 3.0])
def test_a_hole_in_one_band_is_resampled_in_that_band_alone(factor: float, tmp_path: Path) -> None:
    pixels = make_image(90, 110, 3).astype(np.float32)
    holed = pixels.copy()
    holed[30:60, 40:80, 1] = -9999
    both = [
        ResampledImage(
            open_image(write_scene(tmp_path / f"{i}.tif", p, -9999)), 0, (factor, factor)
        )
        for i, p in enumerate((pixels, holed))
    ]
    (clean, all_data), (read, valid) = (read_with_valid(i, whole(both[0])) for i in both)
    assert all_data is None
    assert valid is not None
    assert read[..., [0, 2]].tobytes() == clean[..., [0, 2]].tobytes()
    assert valid[..., [0, 2]].all()
    # The band by itself, as an image of one band.
    alone = open_image(write_scene(tmp_path / "alone.tif", holed[..., 1:2], -9999))
    expected, known = read_with_valid(ResampledImage(alone, 0, (factor, factor)), whole(both[0]))
    assert known is not None
    np.testing.assert_array_equal(read[..., 1:2], expected)
    np.testing.assert_array_equal(valid[..., 1:2], known)
    # And a window that sees no hole gives the same bits.
    window = Window(0, 0, 8, 9)
    assert read_with_valid(both[1], window)[0].tobytes() == read[:8, :9].tobytes()


# ------------------------------------------------------------------ --nodata

HOLE = (slice(100, 140), slice(20, 90))


def filled(tmp_path: Path, kind: str, value: int) -> tuple[Path, NDArray[Any]]:
    """An image of 200 x 150 x 3 with a rectangle of ``value``, in some format."""
    import tifffile
    from PIL import Image as Picture

    pixels = np.clip(make_image(200, 150), 1, 254)
    pixels[HOLE] = value
    path = tmp_path / f"i.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64))
    elif kind == "png":
        Picture.fromarray(pixels).save(path)
    elif kind == "geo.tif":
        write_scene(path, pixels, 255 - value)
    else:
        write_scene(tmp_path / "g.tif", pixels)
        convert(tmp_path / "g.tif", path)
    return path, pixels


@pytest.mark.parametrize("kind", ["tif", "geo.tif", "png", "ome.zarr"])
@pytest.mark.parametrize("value", [0, 255])
def test_a_nodata_value_of_the_users_holds_for_every_kind_of_file(
    kind: str, value: int, tmp_path: Path
) -> None:
    path, pixels = filled(tmp_path, kind, value)
    image = open_image(path, Reading(nodata=float(value)))
    assert image.nodata == value
    expected = np.ones((200, 150), np.bool_)
    expected[HOLE] = False
    np.testing.assert_array_equal(image.read_valid(whole(image)), expected)
    np.testing.assert_array_equal(image.read(whole(image)), pixels)
    plain = open_image(path).read_valid(whole(image))
    assert plain is None


def test_none_takes_the_files_nodata_value_away_and_no_mask(tmp_path: Path, data: Path) -> None:
    pixels = make_image(60, 50)
    pixels[:20] = 7
    path = write_scene(tmp_path / "i.tif", pixels, 7)
    assert open_image(path).read_valid(Window(0, 0, 60, 50)) is not None
    image = open_image(path, Reading(nodata="none"))
    assert image.nodata is None
    assert image.read_valid(Window(0, 0, 60, 50)) is None
    masked = data / "geo/edge/cog_rgba.tif"
    for reading in (Reading(), Reading(nodata="none")):
        assert open_image(masked, reading).read_valid(Window(0, 0, 232, 383)) is not None


@pytest.mark.parametrize("value", [-9999.0, 0.5, 256.0, math.nan])
def test_a_value_that_the_pixels_cannot_hold_is_refused(value: float, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "i.tif", make_image(20, 20))
    with pytest.raises(InputError, match=r"i\.tif: its pixels are uint8, which cannot hold"):
        open_image(path, Reading(nodata=value))


def test_a_palette_has_no_nodata_value_to_choose(data: Path) -> None:
    with pytest.raises(InputError, match="colours of a palette"):
        open_image(data / "geo/edge/image_colormap.tif", Reading(nodata=0.0))


def test_a_conversion_writes_the_users_nodata_value_down(tmp_path: Path) -> None:
    pixels = np.maximum(make_image(60, 50), 1)
    pixels[:20] = 0
    convert(
        write_scene(tmp_path / "i.tif", pixels),
        tmp_path / "i.ome.zarr",
        reading=Reading(nodata=0.0),
    )
    image = open_image(tmp_path / "i.ome.zarr")
    assert image.nodata == 0
    valid = image.read_valid(Window(0, 0, 60, 50))
    assert valid is not None
    assert (valid == (np.arange(60) >= 20)[:, None]).all()


def test_convert_takes_the_option(tmp_path: Path) -> None:
    from tilepipe.cli import call

    pixels = np.maximum(make_image(60, 50), 1)
    pixels[:20] = 9
    path, target = write_scene(tmp_path / "i.tif", pixels, 9), tmp_path / "i.ome.zarr"
    assert call(["convert", str(path), str(target), "-q", "--nodata", "none"]) == 0
    assert open_image(target).nodata is None
    assert call(["convert", str(path), str(target), "-q", "--nodata", "1e9"]) == 2
    assert call(["convert", str(path), str(target), "-q", "--unscale"]) == 2
