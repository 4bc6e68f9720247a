"""What holds no data, in one band or in all, from the file to the mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tilepipe
from tests.engine.making import model_of, write_tiled_scene
from tests.making import make_image, save_tiny, whole_image_logits
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.models.file import save_model
from tilepipe.models.unet import UNetArguments

SMALL = UNetArguments(width=2, depth=2, bands=3, outputs=3)
MEAN = 127.0
"""Of the tiny model, in every band."""

HEIGHT, WIDTH = 300, 360
STRIP = (slice(120, 230), slice(200, 240))
"""Where one band holds nothing."""
HOLE = (slice(30, 130), slice(20, 160))
"""Where no band does."""


def scene_with_holes(
    path: Path, dtype: str, nodata: float | None, hole: float
) -> tuple[Path, NDArray[Any]]:
    """A scene, and what the network is to see of it: the model's mean where a band is empty."""
    pixels = np.maximum(make_image(HEIGHT, WIDTH), 1).astype(dtype)
    pixels[STRIP][..., 1] = hole
    pixels[HOLE] = hole
    seen = pixels.astype(np.float64)
    seen[STRIP][..., 1] = MEAN
    seen[HOLE] = MEAN
    return write_tiled_scene(path, pixels, nodata), seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "nodata", "hole"),
    [
        ("int16", -9999, -9999),
        ("float32", -9999, -9999),
        ("float32", None, np.nan),
        ("float32", -9999, np.nan),
        ("float32", 0, np.nan),
    ],
)
def test_a_band_without_data_is_the_mean_and_the_pixel_keeps_its_answer(
    dtype: str, nodata: float | None, hole: float, tmp_path: Path
) -> None:
    scene, seen = scene_with_holes(tmp_path / "scene.tif", dtype, nodata, hole)
    model = tmp_path / "m.safetensors"
    loaded = save_tiny(model, SMALL, dtype=dtype, pixel_size_um=None)
    truth = whole_image_logits(loaded, seen).argmax(0)
    truth[HOLE] = 255
    small = loaded.geometry.input_for(128)
    for name, window in (("auto", "auto"), ("small", small)):
        output = tmp_path / f"{name}.ome.zarr"
        summary = tilepipe.run(
            scene, model=model, outputs=output, precision="fp64", window=window, verify=6,
            probabilities="float16",
        )  # fmt: skip
        mask = tilepipe.open_mask(output)
        assert (mask.read(Window(0, 0, HEIGHT, WIDTH)) == truth).all()
        assert summary.verification is not None
        assert summary.verification.exact
        probabilities = mask.read_probabilities(Window(0, 0, HEIGHT, WIDTH))  # type: ignore[attr-defined]
        assert (np.isnan(probabilities).all(0) == (truth == 255)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "value"), [("uint8", 0), ("uint8", 255), ("int16", 0)])
def test_a_shadow_or_a_cloud_in_one_band_stays_data(dtype: str, value: int, tmp_path: Path) -> None:
    pixels = np.clip(make_image(300, 400), 1, 254).astype(dtype)
    pixels[50:90, 60:200, 1] = value
    pixels[150:200] = value
    scene = write_tiled_scene(tmp_path / "scene.tif", pixels, value)
    model = save_tiny(tmp_path / "m.safetensors", SMALL, dtype=dtype, pixel_size_um=None)
    output = tmp_path / "m.ome.zarr"
    tilepipe.run(scene, model=tmp_path / "m.safetensors", outputs=output, precision="fp64")
    seen = pixels.astype(np.float64)
    seen[150:200] = MEAN
    truth = whole_image_logits(model, seen).argmax(0)
    truth[150:200] = 255
    assert (tilepipe.open_mask(output).read(Window(0, 0, 300, 400)) == truth).all()


@pytest.mark.slow
def test_fill_without_a_tag_is_left_out_when_the_user_names_it(tmp_path: Path) -> None:
    pixels = np.maximum(make_image(300, 400), 1)
    pixels[:, :90] = 0
    scene = write_tiled_scene(tmp_path / "scene.tif", pixels, None)
    save_tiny(tmp_path / "m.safetensors", SMALL, pixel_size_um=None)
    tagged = write_tiled_scene(tmp_path / "tagged.tif", pixels, 0)
    masks = []
    for name, image, nodata in (("a", scene, 0), ("b", tagged, None), ("c", tagged, "none")):
        output = tmp_path / f"{name}.ome.zarr"
        summary = tilepipe.run(
            image, model=tmp_path / "m.safetensors", outputs=output, nodata=nodata, verify=3
        )
        assert summary.verification is not None
        assert summary.verification.exact
        assert tilepipe.verify(output).exact
        masks.append(tilepipe.open_mask(output).read(Window(0, 0, 300, 400)))
    assert (masks[0] == masks[1]).all()
    assert (masks[0][:, :90] == 255).all()
    assert (masks[0][:, 90:] != 255).all()
    assert (masks[2] != 255).all()


def test_a_run_goes_on_with_the_nodata_value_that_it_began_with(tmp_path: Path) -> None:
    pixels = np.maximum(make_image(100, 120), 1)
    pixels[:40] = 0
    scene = write_tiled_scene(tmp_path / "scene.tif", pixels, None)
    save_tiny(tmp_path / "m.safetensors", SMALL, pixel_size_um=None)
    options: dict[str, Any] = {
        "model": tmp_path / "m.safetensors", "outputs": tmp_path / "m.ome.zarr",
    }  # fmt: skip
    tilepipe.run(scene, nodata=0, **options)
    assert tilepipe.run(scene, nodata=0, **options).resumed
    with pytest.raises(InputError, match="nodata was 0, now as in the file"):
        tilepipe.run(scene, **options)


@pytest.mark.slow
def test_holes_in_bands_and_pixels_survive_resampling_and_the_way_back(tmp_path: Path) -> None:
    scene, _ = scene_with_holes(tmp_path / "scene.tif", "float32", -9999, -9999)
    for metres in (16.0, 7.0):
        model = model_of(metres, "meter")
        model = replace(model, input=replace(model.input, dtype="float32"))
        save_model(tmp_path / "m.safetensors", model)
        for like_image in (False, True):
            output = tmp_path / f"{metres}{like_image}.ome.zarr"
            summary = tilepipe.run(
                scene, model=tmp_path / "m.safetensors", outputs=output, precision="fp64",
                like_image=like_image, verify=6,
            )  # fmt: skip
            assert summary.verification is not None
            assert summary.verification.exact
            labels = tilepipe.open_mask(output)
            shape = labels.shape
            found = labels.read(Window(0, 0, *shape)) == 255
            share = HOLE[0].stop - HOLE[0].start, HOLE[1].stop - HOLE[1].start
            assert found.mean() == pytest.approx(share[0] * share[1] / (HEIGHT * WIDTH), rel=0.05)
