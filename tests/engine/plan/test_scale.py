"""A model meets every image at its own pixel size, and the mask knows where it lies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from numpy.typing import NDArray

import tilepipe
from tests.engine.making import SMALL, model_of
from tests.making import digest, make_image, save_tiny, whole_image_logits, write_tiff
from tests.products.making import MemoryImage
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.describe import show_scale
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import PixelSize, open_image
from tilepipe.images.resampled import ResampledImage
from tilepipe.quantities import parse_length


def image_of(y: float | None, x: float | None = None, unit: str = "micrometer") -> MemoryImage:
    """400 x 320 pixels, and levels of half and a quarter."""
    size = None if y is None else PixelSize(y, y if x is None else x, unit)
    shrunk = tuple(np.zeros((400 // f, 320 // f, 3), np.uint8) for f in (2, 4))
    return MemoryImage(np.zeros((400, 320, 3), np.uint8), shrunk, pixel_size=size)


@pytest.mark.parametrize(
    ("image", "model", "level", "factor"),
    [
        (0.25, 0.25, 0, None),
        (0.2525, 0.25, 0, None),
        (0.2625, 0.25, 0, None),  # just 5 %
        (0.25, 0.5, 1, None),
        (0.13, 0.5, 2, None),  # level 2 is 0.52: 4 % coarser
        (0.135, 0.5, 1, 0.5 / 0.27),  # level 2 is 0.54: 8 % coarser, so the one above it
        (0.25, 0.3, 0, 1.2),
        (0.25, 0.9, 1, 1.8),
        (0.25, 8.0, 2, 8.0),
        (0.5, 0.25, 0, 0.5),
        (0.499, 0.25, 0, 0.25 / 0.499),
        (1.0, 0.25, 0, 0.25),
    ],
)
def test_the_level_at_or_just_above_the_model(
    image: float, model: float, level: int, factor: float | None
) -> None:
    scale = choose_scale(image_of(image), model_of(model), RunOptions("i"))
    assert scale.level == level
    assert scale.factors == (None if factor is None else pytest.approx((factor, factor)))
    assert (scale.warning is not None) == (factor is not None and factor < 1)
    if factor is not None:
        assert scale.pixel_size == PixelSize(model, model, "micrometer")


def test_units_are_converted() -> None:
    scale = choose_scale(image_of(0.5, unit="meter"), model_of(200, "centimeter"), RunOptions("i"))
    assert scale.level == 2
    assert scale.factors is None
    scale = choose_scale(image_of(500, unit="nanometer"), model_of(0.25), RunOptions("i"))
    assert scale.factors == (0.5, 0.5)
    assert scale.pixel_size == PixelSize(250, 250, "nanometer")
    scale = choose_scale(image_of(0.1, unit="degree"), model_of(0.2, "degree"), RunOptions("i"))
    assert scale.level == 1


def test_each_axis_has_its_own_factor_where_they_hardly_differ() -> None:
    scale = choose_scale(image_of(0.5, 0.51), model_of(0.25), RunOptions("i"))
    assert scale.factors == (0.5, 0.25 / 0.51)


def test_a_model_without_a_pixel_size_never_asks() -> None:
    for image in (image_of(None), image_of(0.5, 0.1), image_of(0.1, unit="degree"), image_of(7)):
        scale = choose_scale(image, model_of(None), RunOptions("i"))
        assert (scale.level, scale.factors, scale.warning) == (0, None, None)


def test_a_level_named_by_hand_is_taken_as_it_is() -> None:
    scale = choose_scale(image_of(0.25), model_of(0.25), RunOptions("i", level=1))
    assert (scale.level, scale.factors) == (1, None)
    assert "2.00 times" in str(scale.warning)
    assert choose_scale(image_of(0.25), model_of(0.5), RunOptions("i", level=1)).warning is None
    for image in (image_of(None), image_of(0.1, unit="degree")):
        assert choose_scale(image, model_of(0.5), RunOptions("i", level=0)).warning is not None


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (image_of(None), "has no pixel size"),
        (image_of(0.5, 0.4), "not square, 0.4 x 0.5 um/px"),
        (image_of(0.0), "impossible pixel size, 0 um/px"),
        (image_of(0.1, unit="degree"), "in degree, which cannot be compared"),
        (image_of(1.1), "4.4 times as coarse"),
        (image_of(0.0005), "125 times as fine"),
        (replace(image_of(0.25), pixel_size_doubt="its A says 1 and its B says 2"), "its B says 2"),
    ],
)
def test_what_cannot_be_relied_on_is_refused(image: MemoryImage, said: str) -> None:
    model = model_of(0.25)
    with pytest.raises(InputError, match=said) as refused:
        choose_scale(image, model, RunOptions("i"))
    assert "--level" in str(refused.value)
    assert "0.25 um/px" in str(refused.value)
    assert choose_scale(image, model, RunOptions("i", level=0)).factors is None
    scale = choose_scale(image, model, RunOptions("i", pixel_size=0.5))
    assert scale.factors == (0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "value"), [("0.25", 0.25), ("250nm", 0.25), ("10 m", 1e7), ("0.5um", 0.5), (1, 1.0)]
)
def test_pixel_sizes_are_read_as_people_write_them(text: str | float, value: float) -> None:
    assert parse_length(text) == value


# ------------------------------------------------------------------ runs


def resampled_by_hand(path: Path, factor: float, level: int = 0) -> NDArray[Any]:
    image = ResampledImage(open_image(path), level, (factor, factor))
    grid = image.levels[level]
    return image.read(Window(0, 0, grid.height, grid.width), level)


@pytest.mark.slow
@pytest.mark.parametrize(("pixel_size", "factor"), [(0.5, 0.5), (0.182, 0.25 / 0.182)])
def test_the_mask_is_that_of_the_whole_image_resampled_whatever_the_window(
    pixel_size: float, factor: float, tmp_path: Path
) -> None:
    shape = int(300 * factor), int(541 * factor)  # blocks and tiles on the model's grid
    image = write_tiff(tmp_path / "i.tif", make_image(*shape), pixel_size)
    model = save_tiny(tmp_path / "m.safetensors", SMALL)
    whole = resampled_by_hand(image, factor)
    truth = whole_image_logits(model, whole).argmax(0)
    digests = []
    for number, window in enumerate((572, "auto")):
        output = tmp_path / str(number) / "mask.ome.zarr"
        output.parent.mkdir()
        summary = tilepipe.run(
            image, model=tmp_path / "m.safetensors", outputs=output, window=window,
            precision="fp64", verify=3,
        )  # fmt: skip
        assert summary.verification is not None
        assert summary.verification.exact
        assert summary.plan.image.factors == (factor, factor)
        labels = tilepipe.open_mask(output).read(Window(0, 0, *whole.shape[:2]))
        assert (labels == truth).all()
        digests.append(digest(output))
    assert digests[0] == digests[1]
    assert tilepipe.verify(output, windows=4, seed=3).exact
    again = Plan.from_json(summary.plan.to_json())
    assert again == summary.plan


@pytest.mark.slow
def test_verify_sees_another_resampling(tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "i.tif", make_image(600, 500), 0.5)
    save_tiny(tmp_path / "m.safetensors", SMALL)
    output = tmp_path / "mask.ome.tif"
    tilepipe.run(image, model=tmp_path / "m.safetensors", outputs=output)
    assert tilepipe.verify(output, windows=3).exact
    record = tmp_path / "mask.run.json"
    document = json.loads(record.read_text())
    document["plan"]["image"]["factors"] = [0.501, 0.5]
    record.write_text(json.dumps(document))
    assert not tilepipe.verify(output, windows=3).exact


@pytest.mark.slow
def test_the_plan_says_whether_and_why(tmp_path: Path) -> None:
    for size, model_size, said in (
        (0.5, 0.25, "level 0 (0.5 um/px) resampled by 0.5 to the model's 0.25 um/px"),
        (0.255, 0.25, "not resampled: within 5% of the model's 0.25 um/px"),
        (0.25, None, "not resampled: the model is for images without a scale"),
    ):
        image = write_tiff(tmp_path / "i.tif", make_image(300, 280), size)
        model = tmp_path / "m.safetensors"
        save_tiny(model, SMALL, pixel_size_um=model_size)
        plan, estimate = tilepipe.plan(image, model=model)
        assert show_scale(plan) == said
        assert bool(estimate.warnings) == (size == 0.5)
    save_tiny(model, SMALL, pixel_size_um=1.0)
    plan, estimate = tilepipe.plan(image, model=model, level=0)
    assert show_scale(plan) == "level 0 without resampling, as requested; not the model's 1 um/px"
    assert estimate.warnings


@pytest.mark.slow
def test_a_slide_keeps_its_place(tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "i.tif", make_image(700, 900), 0.5)
    model = tmp_path / "m.safetensors"
    save_tiny(model, SMALL)
    outputs = [tmp_path / name for name in ("mask.ome.zarr", "mask.ome.tif", "mask.png")]
    tilepipe.run(image, model=model, outputs=outputs)
    multiscale = zarr.open_group(outputs[0]).attrs["ome"]["multiscales"][0]  # type: ignore[index,call-overload]
    scale, translation = multiscale["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [0.25, 0.25]
    # Corners fall together: the first centre lies a quarter of the image's pixel further out.
    assert translation["translation"] == [-0.125, -0.125]
    with tifffile.TiffFile(outputs[1]) as tiff:
        assert tiff.series[0].shape == (1400, 1800)
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        assert float(pixels["PhysicalSizeX"]) == float(pixels["PhysicalSizeY"]) == 0.25


def write_scene(
    path: Path, pixels: NDArray[Any], metres: float, nodata: float | None = None
) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1],
        count=pixels.shape[2], dtype=pixels.dtype, crs="EPSG:32633", nodata=nodata,
        transform=rasterio.Affine(metres, 0, 5e5, 0, -metres, 5e6), tiled=True, blockxsize=128,
        blockysize=128,
    ) as scene:  # fmt: skip
        scene.write(np.moveaxis(pixels, -1, 0))
    return path


def save_for_scenes(path: Path, metres: float) -> Path:
    from tilepipe.models.file import save_model

    save_model(path, model_of(metres, "meter"))
    return path


@pytest.mark.slow
def test_a_scene_keeps_its_place_and_its_nodata(tmp_path: Path) -> None:
    pixels = np.maximum(make_image(611, 733), 1)
    pixels[104:200, 304:496] = 0
    scene = write_scene(tmp_path / "scene.tif", pixels, 10.0, nodata=0)
    model = save_for_scenes(tmp_path / "m.safetensors", 16.0)
    output = tmp_path / "mask.tif"
    tilepipe.run(scene, model=model, outputs=output, verify=3)
    with rasterio.open(scene) as image, rasterio.open(output) as mask:
        assert mask.crs == image.crs
        assert mask.res == (16.0, 16.0)
        assert mask.xy(0, 0, offset="ul") == image.xy(0, 0, offset="ul")
        assert mask.shape == (-(-6110 // 16), -(-7330 // 16))
        labels = mask.read(1)
        # A hole of 960 m x 1920 m, 1040 m down and 3040 m across, as it is in the scene.
        row, column = mask.index(5e5 + 4000, 5e6 - 1500)
        assert labels[row, column] == 255
        rows, columns = np.nonzero(labels == 255)
        assert (rows.min(), rows.max()) == (65, 124)
        assert (columns.min(), columns.max()) == (190, 309)


# ------------------------------------------------------------------ back to the image's grid

LIKE = ("mask.ome.zarr", "mask.ome.tif", "mask.tif", "mask.png")


@pytest.mark.slow
@pytest.mark.parametrize(("pixel_size", "factor"), [(0.182, 0.25 / 0.182)])
def test_like_image_brings_every_format_back_to_the_images_own_grid(
    pixel_size: float, factor: float, tmp_path: Path
) -> None:
    height, width = int(300 * factor), int(541 * factor)
    image = write_tiff(tmp_path / "i.tif", make_image(height, width), pixel_size)
    model = save_tiny(tmp_path / "m.safetensors", SMALL)
    outputs = [tmp_path / name for name in LIKE]
    summary = tilepipe.run(
        image, model=tmp_path / "m.safetensors", outputs=outputs, like_image=True, verify=3,
        precision="fp64",
    )  # fmt: skip
    assert summary.verification is not None
    assert summary.verification.exact
    labels = whole_image_logits(model, resampled_by_hand(image, factor)).argmax(0)
    rows = ((np.arange(height) + 0.5) / factor).astype(int)
    columns = ((np.arange(width) + 0.5) / factor).astype(int)
    truth = labels[rows][:, columns]
    for output in outputs[:3]:
        mask = tilepipe.open_mask(output)
        assert mask.shape == (height, width)
        assert mask.pixel_size == open_image(image).pixel_size or output.suffix == ".tif"
        assert (mask.read(Window(0, 0, height, width)) == truth).all()
        mask.close()
        assert tilepipe.verify(output, windows=3).exact
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["i.tif", "m.safetensors", "mask.run.json", "mask.tif.aux.xml", *LIKE]
    )
    again = tilepipe.run(
        image, model=tmp_path / "m.safetensors", outputs=outputs, like_image=True, precision="fp64"
    )
    assert again.resumed == again.blocks
    with pytest.raises(InputError, match="exists already"):
        tilepipe.run(image, model=tmp_path / "m.safetensors", outputs=outputs, precision="fp64")
    tilepipe.run(
        image, model=tmp_path / "m.safetensors", outputs=outputs, precision="fp64", overwrite=True
    )
    assert tilepipe.open_mask(outputs[0]).shape == labels.shape
    tilepipe.run(
        image, model=tmp_path / "m.safetensors", outputs=outputs, precision="fp64",
        like_image=True, overwrite=True,
    )  # fmt: skip
    assert (tilepipe.open_mask(outputs[0]).read(Window(0, 0, height, width)) == truth).all()


@pytest.mark.slow
def test_verify_sees_a_mask_on_the_images_grid_that_is_wrong(tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "i.tif", make_image(600, 500), 0.5)
    save_tiny(tmp_path / "m.safetensors", SMALL)
    output = tmp_path / "mask.ome.zarr"
    tilepipe.run(image, model=tmp_path / "m.safetensors", outputs=output, like_image=True)
    whole = Window(0, 0, 512, 500)
    mask = tilepipe.open_mask(output)
    mask.write(whole, np.roll(mask.read(whole), 1, axis=1))  # type: ignore[attr-defined]
    assert not tilepipe.verify(output, windows=4).exact


def test_like_image_puts_a_scene_on_its_own_transform(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", make_image(300, 420), 7.3)
    model = save_for_scenes(tmp_path / "m.safetensors", 20.0)
    output = tmp_path / "mask.tif"
    tilepipe.run(scene, model=model, outputs=output, like_image=True)
    with rasterio.open(scene) as image, rasterio.open(output) as mask:
        assert tuple(mask.transform) == tuple(image.transform), "to the last bit"
        assert mask.shape == image.shape
    with pytest.raises(InputError, match="like_image was on, now off"):
        tilepipe.run(scene, model=model, outputs=output)


@pytest.mark.slow
def test_probabilities_come_back_too(tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "i.tif", make_image(600, 500), 0.5)
    save_tiny(tmp_path / "m.safetensors", SMALL)
    output = tmp_path / "mask.ome.zarr"
    summary = tilepipe.run(
        image, model=tmp_path / "m.safetensors", outputs=output, like_image=True,
        probabilities="float16", verify=2,
    )  # fmt: skip
    assert summary.verification is not None
    assert summary.verification.exact
    assert summary.verification.largest_difference is not None
    mask = tilepipe.open_mask(output)
    shares = mask.read_probabilities(Window(0, 0, 600, 500))  # type: ignore[attr-defined]
    clear = np.abs(shares[0] - shares[1]) > 1e-3
    assert clear.any()
    assert (shares.argmax(0) == mask.read(Window(0, 0, 600, 500)))[clear].all()


class StopAt(RunCallbacks):
    """Interrupts a run after a block, or at a stage."""

    def __init__(self, stage: str) -> None:
        self.at = stage

    def block(self, receipt: object) -> None:
        if self.at == "block":
            raise KeyboardInterrupt

    def stage(self, name: str) -> None:
        if self.at in name:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["block", "mask.ome.zarr", "mask.ome.tif"])
def test_a_resumed_run_ends_with_the_same_bytes(stage: str, tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "i.tif", make_image(700, 901), 0.5)
    model = tmp_path / "m.safetensors"
    save_tiny(model, SMALL)
    options: dict[str, Any] = {"model": model, "window": 572, "threads": 1, "like_image": True}
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    outputs = {
        name: [tmp_path / name / output for output in LIKE[:2]] for name in ("whole", "stopped")
    }
    tilepipe.run(image, outputs=outputs["whole"], **options)
    with pytest.raises(KeyboardInterrupt):
        tilepipe.run(image, outputs=outputs["stopped"], watch=StopAt(stage), **options)
    with pytest.raises(InputError, match=r"resampled by 0\.5, and is now resampled by 0\.625"):
        tilepipe.run(image, outputs=outputs["stopped"], pixel_size=0.4, **options)
    tilepipe.run(image, outputs=outputs["stopped"], **options)
    assert digest(tmp_path / "whole") == digest(tmp_path / "stopped")


@pytest.mark.slow
def test_what_cannot_be_read_is_read_around_on_the_models_grid(tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    save_tiny(model, SMALL)
    image = write_tiff(tmp_path / "i.tif", make_image(800, 900), 0.5)
    sound = tilepipe.run(image, model=model, outputs=tmp_path / "sound.ome.zarr")
    with tifffile.TiffFile(image) as tiff:
        offset, count = (
            values[3 * 8 + 4]
            for values in (tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts)
        )
    content = bytearray(image.read_bytes())
    content[offset : offset + count] = bytes(count)
    image.write_bytes(content)
    # Tile 28: rows 384 to 511, columns 512 to 639; twice that on the model's grid.
    broken = tilepipe.run(image, model=model, outputs=tmp_path / "broken.ome.zarr")
    assert sound.exit_code == 0
    assert broken.exit_code == 3
    whole = Window(0, 0, 1600, 1800)
    before = tilepipe.open_mask(tmp_path / "sound.ome.zarr").read(whole)
    after = tilepipe.open_mask(tmp_path / "broken.ome.zarr").read(whole)
    lost = after == 255
    assert lost[768:1024, 1024:1280].all()
    assert (after[~lost] == before[~lost]).all()
    geometry = broken.plan.tiling.geometry
    reach = geometry.margin + geometry.stride_factor + 64 + 2
    rows, columns = np.nonzero(lost)
    assert rows.min() >= 768 - reach
    assert rows.max() < 1024 + reach
    assert columns.min() >= 1024 - reach
    assert columns.max() < 1280 + reach
    assert tilepipe.verify(tmp_path / "broken.ome.zarr", windows=4).differing == 0
