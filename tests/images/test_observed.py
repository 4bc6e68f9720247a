"""Fill along borders, and alpha bands that are data: said where they are, and nowhere else."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image as Picture
from rasterio.enums import ColorInterp

from tests.images.making import write_scene
from tests.making import make_image
from tests.products.making import MemoryImage
from tilepipe.grid import Window
from tilepipe.images import Image, observed, open_image
from tilepipe.images.observed import alpha_note, border_fill, notes_of
from tilepipe.images.reading import Reading
from tilepipe.images.windowed import WindowedImage


def scene(height: int = 400, width: int = 500, bands: int = 3) -> NDArray[Any]:
    return np.clip(make_image(height, width, bands), 1, 254)


def turned(pixels: NDArray[Any], value: float) -> NDArray[Any]:
    """A scene as satellites have them: a parallelogram in a frame of fill; about 40 %."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width]
    shift = 0.4 * width * (1 - y / height)
    pixels = pixels.copy()
    pixels[(x < shift) | (x > shift + 0.6 * width)] = value
    return pixels


@pytest.mark.parametrize("value", [0, 255])
def test_fill_is_found_with_its_value_and_its_share(value: int, tmp_path: Path) -> None:
    pixels = turned(scene(), value)
    found = border_fill(open_image(write_scene(tmp_path / "i.tif", pixels)))
    assert found is not None
    assert found.value == value
    assert found.share == pytest.approx((pixels == value).all(2).mean(), abs=0.01)
    assert f"--nodata {value}" in str(found)


def test_fill_of_floats_is_found(tmp_path: Path) -> None:
    found = border_fill(
        open_image(write_scene(tmp_path / "i.tif", turned(scene() / 255.0, -9999.0)))
    )
    assert found is not None
    assert found.value == -9999


def no_fill(pixels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    one_band, inside, thin = pixels.copy(), pixels.copy(), pixels.copy()
    one_band[:, :200, 1] = 0
    inside[100:300, 100:400] = 0
    thin[:3] = 0
    differing = pixels.copy()
    differing[:, :200] = (10, 20, 30)
    return {
        "none": pixels, "one band": one_band, "inside": inside, "thin": thin, "colour": differing,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["none", "one band", "inside", "thin", "colour"])
def test_what_is_not_fill_is_not_called_fill(kind: str, tmp_path: Path) -> None:
    assert border_fill(open_image(write_scene(tmp_path / "i.tif", no_fill(scene())[kind]))) is None


def test_it_is_said_only_of_scenes_that_say_nothing_themselves(tmp_path: Path) -> None:
    pixels = turned(scene(), 0)
    assert border_fill(open_image(write_scene(tmp_path / "tagged.tif", pixels, 0))) is None
    path = write_scene(tmp_path / "scene.tif", pixels)
    for choice in (0.0, "none"):
        assert border_fill(open_image(path, Reading(nodata=choice))) is None  # type: ignore[arg-type]
    tifffile.imwrite(tmp_path / "slide.tif", turned(scene(), 255), photometric="rgb")
    assert border_fill(open_image(tmp_path / "slide.tif")) is None
    alpha = np.dstack([pixels, 255 * pixels.any(2).astype(np.uint8)])
    rgba = write_scene(tmp_path / "rgba.tif", alpha, photometric="rgb", alpha="yes")
    assert open_image(rgba).bands == 3
    assert border_fill(open_image(rgba)) is None


@pytest.mark.parametrize("tiled", [True, False])
def test_of_a_large_image_some_places_are_looked_at(
    tiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observed, "LARGEST_LEVEL", 1000)
    pixels = turned(scene(900, 1000), 0)
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64} if tiled else {"tiled": False}
    image = open_image(write_scene(tmp_path / "i.tif", pixels, **layout))
    seen = 0
    read = image.read

    def counted(window: Window, level: int = 0) -> NDArray[Any]:
        nonlocal seen
        seen += window.area
        return read(window, level)

    monkeypatch.setattr(image, "read", counted)
    found = border_fill(image)
    assert found is not None
    assert found.share == pytest.approx((pixels == 0).all(2).mean(), abs=0.06)
    assert seen <= (24 * 24 if tiled else 24 * 1000)


def test_no_more_is_decoded_than_a_look_may_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observed, "LARGEST_LEVEL", 1000)
    monkeypatch.setattr(observed, "MOST_BYTES", 20 * 128 * 128 * 4)
    path = write_scene(
        tmp_path / "i.tif", turned(scene(), 0), tiled=True, blockxsize=128, blockysize=128
    )
    assert border_fill(open_image(path)) is None, "20 tiles show too little"


def test_images_of_the_data_folder_are_judged_right(data: Path) -> None:
    fill = {
        "LC08_L1TP_224078_20200518_20200518_01_RT.TIF": (0, 0.165), "s2_band.tif": (0, 0.762),
        "edge/cog.tif": (1, 0.482),
    }  # fmt: skip
    for name in (
        *fill, "L7_ETMs.tif", "OSBS_029.tif", "RGB.byte.tif", "edge/cog_rgba.tif",
        "edge/cog_rgb_mask.tif", "edge/image_colormap.tif", "edge/image_nan.tif",
        "naip/m_4709963_se_14_1_20140720.tif",
    ):  # fmt: skip
        found = border_fill(open_image(data / "geo" / name))
        said = None if found is None else (found.value, pytest.approx(found.share, abs=0.01))
        assert said == fill.get(name), name


# ------------------------------------------------------------------ alpha


def with_alpha(tmp_path: Path, alpha: NDArray[Any], kind: str, dtype: str = "uint8") -> Image:
    pixels = np.dstack([scene(300, 280), alpha]).astype(dtype)
    path = tmp_path / f"{kind}.tif"
    if kind == "geo":
        write_scene(path, pixels, photometric="rgb", alpha="yes")
        with rasterio.open(path) as dataset:
            assert dataset.colorinterp[3] == ColorInterp.alpha
    elif kind == "png":
        Picture.fromarray(pixels).save(path, "png")
    else:
        separate = kind == "planar"
        tifffile.imwrite(
            path, np.moveaxis(pixels, 2, 0) if separate else pixels, photometric="rgb",
            extrasamples=["unassalpha"], planarconfig="separate" if separate else "contig",
            tile=(64, 64),
        )  # fmt: skip
    return open_image(path)


@pytest.mark.parametrize("kind", ["geo", "plain", "planar", "png"])
def test_an_alpha_band_of_many_values_may_be_infrared(kind: str, tmp_path: Path) -> None:
    image = with_alpha(tmp_path, make_image(300, 280, 1, seed=5), kind)
    assert image.bands == 3
    note = alpha_note(image)
    assert note is not None
    assert "--bands 1,2,3,4" in note
    assert note in notes_of(image)


@pytest.mark.parametrize("kind", ["geo", "plain"])
def test_an_alpha_band_is_alpha_with_soft_edges_too(kind: str, tmp_path: Path) -> None:
    alpha = np.full((300, 280), 255, np.uint8)
    alpha[:, :100] = 0
    alpha[:, 100:110] = np.arange(10) * 25  # 4 % of the image
    assert alpha_note(with_alpha(tmp_path, alpha, kind)) is None


def test_the_alpha_band_is_read_as_it_is(tmp_path: Path) -> None:
    alpha = make_image(300, 280, 1, seed=5)
    for kind in ("geo", "plain", "planar", "png"):
        image = with_alpha(tmp_path, alpha, kind)
        window = Window(37, 60, 150, 90)
        assert isinstance(image, WindowedImage)
        assert image.alpha_band == 4
        with closing(open_image(image.path, Reading(bands=(4,)))) as alone:
            np.testing.assert_array_equal(alone.read(window), alpha[window.slices()])


def test_an_image_without_alpha_has_no_note() -> None:
    assert notes_of(MemoryImage(scene())) == ()
