"""Tiles: what is read, what is learnt from, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray

from tests.making import make_image, write_tiff
from tests.training.making import write_png, write_values
from tilepipe.engine.work.device import Device
from tilepipe.grid import Window
from tilepipe.images import open_image
from tilepipe.models.geometry import geometry_of
from tilepipe.models.specs import InputSpec
from tilepipe.models.unet import UNetArguments
from tilepipe.training import tiles
from tilepipe.training.augment import Augmentation
from tilepipe.training.labels import LabelScheme, open_training_mask
from tilepipe.training.pairs import TrainingPair
from tilepipe.training.tiles import OpenPair, PairCache, TileMaker, chances, has_known_pixels

SIDE, MARGIN = 48, 8
EVERYTHING = Augmentation(True, True, 1.3, 5.0, 0.2, 0.2)


def maker(
    image: Path,
    mask: Path,
    scheme: LabelScheme,
    how: Augmentation,
    rows: tuple[float, float] = (0, 1),
) -> TileMaker:
    opened = open_image(image)
    bands = opened.bands
    spec = InputSpec(
        bands, opened.dtype.name, 1 / 255 if opened.dtype == np.uint8 else 1.0,
        tuple(0.1 * b + 0.3 for b in range(bands)), tuple(0.2 + 0.1 * b for b in range(bands)),
    )  # fmt: skip
    pair = TrainingPair(str(image), str(mask), image.stem, rows=(float(rows[0]), float(rows[1])))
    geometry = geometry_of(UNetArguments(width=2, depth=1))
    assert geometry.margin == MARGIN
    return TileMaker(PairCache([pair]), np.ones(1), scheme, spec, geometry, SIDE, how, 0)


def normalised(pixels: NDArray[np.generic], spec: InputSpec) -> NDArray[np.float32]:
    scaled = pixels.astype(np.float32) * np.float32(spec.scale)
    return np.asarray((scaled - np.float32(spec.mean)) / np.float32(spec.std)).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(70, 90), (20, 27)])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_without_augmentation_a_tile_is_what_run_reads_bit_for_bit(
    tmp_path: Path, size: tuple[int, int], dtype: str
) -> None:
    pixels = make_image(*size).astype(dtype)
    image = write_tiff(tmp_path / "image.tif", pixels)
    # The mask tells where a tile was taken: no two pixels are alike.
    code = np.arange(size[0] * size[1], dtype=np.float32).reshape(size)
    mask = write_values(tmp_path / "mask.tif", code)
    made = maker(image, mask, LabelScheme("values", 1), Augmentation())
    opened = open_image(image)
    outside = 0
    for step in range(25):
        tile = made.tile(step, 0)
        middle = int(tile.target[0, made.out // 2, made.out // 2])
        centre = divmod(middle, size[1])
        window = Window(centre[0] - SIDE // 2, centre[1] - SIDE // 2, SIDE, SIDE)
        outside += window.y < 0 or window.x < 0 or window.stop_y > 70 or window.stop_x > 90
        expected = normalised(opened.read(window), made.spec)
        assert tile.pixels.dtype == torch.float32
        assert np.array_equal(tile.pixels.numpy(), expected)
        inner = Window(window.y + MARGIN, window.x + MARGIN, made.out, made.out)
        mirrored = np.pad(code, 60, mode="reflect")
        assert np.array_equal(
            tile.target[0].numpy(),
            mirrored[inner.y + 60 : inner.stop_y + 60, inner.x + 60 : inner.stop_x + 60],
        )
    assert outside


def test_pixels_are_normalised_as_the_device_does(tmp_path: Path) -> None:
    from tests.making import make_model

    image = write_tiff(tmp_path / "image.tif", make_image(60, 60))
    mask = write_png(tmp_path / "mask.png", np.zeros((60, 60), np.uint8))
    model = make_model(UNetArguments(width=2, depth=1))
    made = replace(maker(image, mask, LabelScheme("classes", 2), Augmentation()), spec=model.input)
    tile = made._draw(made.cache[0], np.random.default_rng(3))
    rng = np.random.default_rng(3)
    centre = tuple(tiles._draw_centre(0, 60, made.out, rng) for _ in range(2))
    pixels = open_image(image).read(Window(centre[0] - 24, centre[1] - 24, SIDE, SIDE))
    device = Device(model, "cpu", "fp32", 1)
    try:
        logits = device.logits(pixels, None, (made.out, made.out))
    finally:
        device.close()
    with torch.inference_mode():
        same = model.network(tile.pixels[None].to(memory_format=torch.channels_last))[0]
    np.testing.assert_array_equal(same.double().numpy(), logits)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_bent_image_and_bent_values_stay_aligned(tmp_path: Path, dtype: str) -> None:
    y, x = np.mgrid[:120, :140]
    coded = np.stack([y, x, y + x], -1)
    image = write_tiff(tmp_path / "image.tif", (coded.clip(0, 255)).astype(dtype))
    mask = write_values(tmp_path / "mask.tif", y.astype(np.float32))
    made = maker(
        image, mask, LabelScheme("values", 1), replace(EVERYTHING, brightness=0, contrast=0)
    )
    for step in range(8):
        tile = made.tile(step, 1)
        inner = tile.pixels[0, MARGIN:-MARGIN, MARGIN:-MARGIN]
        row = (inner * made.spec.std[0] + made.spec.mean[0]) / made.spec.scale
        assert (row - tile.target[0]).abs().max() <= 0.51
        assert (tile.target == tile.target.round()).all()


@pytest.mark.parametrize("how", [Augmentation(), EVERYTHING])
def test_rows_kept_for_validation_weigh_nothing(tmp_path: Path, how: Augmentation) -> None:
    labels = np.zeros((120, 80), np.uint8)
    labels[60:] = 1
    image = write_tiff(tmp_path / "image.tif", make_image(120, 80))
    mask = write_png(tmp_path / "mask.png", labels)
    scheme = LabelScheme("classes", 2)
    for rows, allowed in (((0.0, 0.5), {0, 255}), ((0.5, 1.0), {1, 255})):
        made = maker(image, mask, scheme, how, rows)
        met = set()
        for step in range(25):
            met |= set(made.tile(step, 0).target.unique().tolist())
        assert met <= allowed
        assert len(met - {255}) == 1


@pytest.mark.parametrize("how", [Augmentation(contrast=0.2, brightness=0.2), EVERYTHING])
def test_pixels_without_data_are_the_mean_and_weigh_nothing(
    tmp_path: Path, how: Augmentation
) -> None:
    pixels = make_image(100, 100).astype(np.float32)
    pixels[30:60, 20:70] = np.nan
    image = write_tiff(tmp_path / "image.tif", pixels)
    mask = write_png(tmp_path / "mask.png", np.ones((100, 100), np.uint8))
    made = maker(image, mask, LabelScheme("classes", 2), how)
    ignored = 0
    for step in range(8):
        tile = made.tile(step, 0)
        assert bool(tile.pixels.isfinite().all())
        nothing = tile.target == 255
        assert not tile.pixels[:, MARGIN:-MARGIN, MARGIN:-MARGIN][:, nothing].any()
        ignored += int(nothing.sum())
    assert ignored


def test_nodata_of_a_mask_of_values_is_no_value(tmp_path: Path) -> None:
    values = np.full((60, 60), 5.0, np.float32)
    values[:30] = -9999
    path = write_values(tmp_path / "mask.tif", values, nodata=-9999)
    target = LabelScheme("values", 1).target(open_training_mask(str(path)), Window(0, 0, 60, 60))
    assert np.isnan(target.labels[0, :30]).all()
    assert (target.labels[0, 30:] == 5).all()


def test_a_tile_depends_on_seed_step_and_place_and_on_nothing_else(tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "image.tif", make_image(120, 140))
    mask = write_png(tmp_path / "mask.png", (make_image(120, 140)[..., 0] > 120).astype("u1"))
    scheme = LabelScheme("classes", 2)
    first, second = (maker(image, mask, scheme, EVERYTHING) for _ in range(2))
    later = first.tile(7, 1)
    for step in range(3):
        second.tile(step, 0)
    assert torch.equal(second.tile(7, 1).pixels, later.pixels)
    assert torch.equal(second.tile(7, 1).target, later.target)
    others = [first.tile(7, 0), first.tile(8, 1), replace(first, seed=1).tile(7, 1)]
    assert not any(torch.equal(other.pixels, later.pixels) for other in others)


def test_another_place_is_drawn_where_a_tile_says_nothing(tmp_path: Path) -> None:
    labels = np.full((48, 400), 255, np.uint8)
    labels[:, :130] = 1
    image = write_tiff(tmp_path / "image.tif", make_image(48, 400))
    mask = write_png(tmp_path / "mask.png", labels)
    made = maker(image, mask, LabelScheme("classes", 2), Augmentation())
    assert all(has_known_pixels(made.tile(step, 0).target) for step in range(30))


def test_a_large_mask_is_read_by_windows_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = make_image(150, 130)[..., :1].squeeze()
    path = str(write_png(tmp_path / "mask.png", labels))
    held = open_training_mask(path)
    monkeypatch.setattr("tilepipe.training.labels.HELD_BYTES", 0)
    windowed = open_training_mask(path)
    assert held.held_bytes
    assert not windowed.held_bytes
    mirrored = np.pad(labels, 100, mode="reflect")
    for window in (Window(3, 5, 20, 30), Window(-40, -7, 90, 60), Window(120, 100, 60, 70)):
        expected = mirrored[
            window.y + 100 : window.stop_y + 100, window.x + 100 : window.stop_x + 100
        ]
        assert np.array_equal(held.read_mirrored(window)[0], expected)
        assert np.array_equal(windowed.read_mirrored(window)[0], expected)


def test_no_more_files_stay_open_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "OPEN_FILES", 3)
    pairs = []
    for i in range(6):
        image = write_tiff(tmp_path / f"{i}.tif", make_image(200, 200, seed=i))
        mask = write_png(tmp_path / f"{i}.png", np.full((200, 200), i, np.uint8))
        pairs.append(TrainingPair(str(image), str(mask), str(i)))
    cache = PairCache(pairs)
    for i in (0, 1, 2, 3, 4, 5, 0, 3):
        opened: OpenPair = cache[i]
        assert opened.labels.read(Window(0, 0, 1, 1)).item() == i
        assert len(cache._open) <= 3


def test_palette_masks_are_read_as_numbers_not_colours(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode=None).convert("P")
    picture.putdata([0, 1, 2, 1])
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "mask.png")
    read = open_training_mask(str(tmp_path / "mask.png")).read(Window(0, 0, 2, 2))
    assert read.tolist() == [[[0, 1], [2, 1]]]


def test_a_mask_may_be_an_ome_zarr(tmp_path: Path) -> None:
    from tilepipe.images.convert import convert

    labels = (make_image(90, 80)[..., 0] > 120).astype(np.uint8)
    tifffile.imwrite(tmp_path / "mask.tif", labels, metadata=None)
    convert(tmp_path / "mask.tif", tmp_path / "mask.ome.zarr")
    read = open_training_mask(str(tmp_path / "mask.ome.zarr")).read(Window(10, 20, 40, 50))
    assert np.array_equal(read[0], labels[10:50, 20:70])


def test_tiles_are_shared_by_pixels_or_as_told() -> None:
    pairs = [(0, 100), (0, 300), (1, 100)]
    np.testing.assert_allclose(chances(pairs, ()), [0.2, 0.6, 0.2])
    np.testing.assert_allclose(chances(pairs, (1, 3)), [1 / 16, 3 / 16, 3 / 4])
    np.testing.assert_allclose(chances(pairs, (1, 0)), [1 / 4, 3 / 4, 0])
