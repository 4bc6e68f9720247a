"""The tiled answer is the whole-image answer, whatever the window, the network, the image.

Each network meets two of the sizes, and each size both paddings; `TILEPIPE_LONG=1` crosses all.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tilepipe
from tests.making import make_image, make_model, save_tiny, whole_image_logits, write_tiff
from tilepipe.engine.work.device import Device
from tilepipe.grid import Tiling, Window, candidate_tilings, paper_tiling
from tilepipe.images import open_image
from tilepipe.models.specs import Model
from tilepipe.models.unet import UNetArguments

TIE = 1e-5
NETWORKS = {
    "depth 1": UNetArguments(width=3, depth=1),
    "depth 2": UNetArguments(width=4, depth=2, outputs=3),
    "depth 3, batch norm": UNetArguments(width=3, depth=3, normalisation="batch"),
    "depth 4": UNetArguments(width=2, depth=4),
    "depth 5": UNetArguments(width=1, depth=5),
    "depth 4, interpolated": UNetArguments(width=2, depth=4, upsampling="interpolation"),
    "padded, depth 2": UNetArguments(width=3, depth=2, padding="same"),
    "padded, depth 3, batch norm": UNetArguments(
        width=2, depth=3, padding="same", normalisation="batch", outputs=4
    ),
    "padded, depth 4, interpolated": UNetArguments(
        width=2, depth=4, padding="same", upsampling="interpolation"
    ),
}
SIZES = [(7, 300), (600, 517), (1, 1), (513, 40)]
QUICK = [("depth 1", (7, 300)), ("padded, depth 2", (7, 300))]


def met() -> list[tuple[str, tuple[int, int]]]:
    """Networks with sizes: the first two, the last two, and again, of each padding."""
    found = []
    for padded in (False, True):
        names = [name for name in NETWORKS if name.startswith("padded") == padded]
        for number, name in enumerate(names):
            some = SIZES[:2] if number % 2 == 0 else SIZES[2:]
            found += [(name, size) for size in (SIZES if "TILEPIPE_LONG" in os.environ else some)]
    return found


def tiled_logits(
    model: Model, path: Path, tiling: Tiling, precision: str, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """The logits that a run of this tiling computes, put together."""
    image = open_image(path)
    device = Device(model, "cpu", precision, threads=2)
    whole = np.full((model.arguments.outputs, *shape), np.nan)
    try:
        for number in tiling:
            block = tiling.block_window(number)
            for patch in tiling.patches(number):
                tile = patch.keep
                kept = tile.intersect(block)
                assert kept is not None
                logits = device.logits(image.read(patch.read), None, tile.shape)
                whole[(slice(None), *kept.slices())] = logits[(slice(None), *kept.slices(tile))]
    finally:
        device.close()
        image.close()
    assert not np.isnan(whole).any(), "every pixel is covered"
    return whole


def some_tilings(shape: tuple[int, int], model: Model) -> list[Tiling]:
    """The paper's tile, the least and the most work, and one in between."""
    candidates = sorted(candidate_tilings(*shape, model.geometry, 1024), key=lambda t: t.work)
    return [
        paper_tiling(*shape, model.geometry),
        candidates[0],
        candidates[len(candidates) // 2],
        *([candidates[-1]] if candidates[-1].forward_passes < 40 else []),
    ]


@pytest.mark.parametrize(
    ("name", "shape"),
    [pytest.param(*row, marks=() if row in QUICK else pytest.mark.slow) for row in met()],
)
def test_tiles_give_the_logits_of_a_single_pass_over_the_whole_image(
    name: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    arguments = NETWORKS[name]
    pixels = make_image(*shape, arguments.bands)
    path = write_tiff(tmp_path / "image.tif", pixels)
    model = make_model(arguments)
    truth = whole_image_logits(model, pixels)
    span = np.ptp(truth) or 1.0
    for tiling in some_tilings(shape, model):
        exact = tiled_logits(make_model(arguments), path, tiling, "fp64", shape)
        assert np.abs(exact - truth).max() <= 1e-12 * span
        assert (exact.argmax(0) == truth.argmax(0)).all()

    tiling = some_tilings(shape, model)[1]
    single = tiled_logits(make_model(arguments), path, tiling, "fp32", shape)
    assert np.abs(single - truth).max() <= TIE * span
    two_best = np.sort(truth, axis=0)[-2:]
    clear = two_best[1] - two_best[0] > TIE * span
    assert clear.mean() > 0.9
    assert (single.argmax(0) == truth.argmax(0))[clear].all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [UNetArguments(width=2), UNetArguments(width=2, depth=3, padding="same", outputs=3)],
    ids=["valid", "padded"],
)
@pytest.mark.parametrize(
    ("window", "shape"), [("paper", (90, 30)), ("auto", (513, 514)), ("paper", (1537, 400))]
)
def test_the_mask_of_a_run_is_the_whole_image_answer(
    arguments: UNetArguments, window: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    pixels = make_image(*shape)
    image = write_tiff(tmp_path / "image.tif", pixels)
    model = save_tiny(tmp_path / "m.safetensors", arguments)
    side = model.geometry.input if window == "paper" else "auto"
    tilepipe.run(
        image, model=tmp_path / "m.safetensors", outputs=tmp_path / "m.ome.zarr", window=side,
        precision="fp64",
    )  # fmt: skip
    labels = tilepipe.open_mask(tmp_path / "m.ome.zarr").read(Window(0, 0, *shape))
    truth = whole_image_logits(model, pixels).argmax(0)
    assert len(np.unique(truth)) == arguments.outputs, "a picture of all classes, or nothing shows"
    assert (labels == truth).all()


@pytest.mark.slow
def test_nodata_enters_as_the_mean_and_leaves_as_255(tmp_path: Path) -> None:
    import rasterio

    pixels = make_image(300, 400)
    pixels = np.maximum(pixels, 1)
    pixels[50:90, 60:200] = 0
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=300, width=400, count=3, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as scene:  # fmt: skip
        scene.write(np.moveaxis(pixels, -1, 0))
    model = save_tiny(tmp_path / "m.safetensors", UNetArguments(width=2), pixel_size_um=None)
    tilepipe.run(
        path, model=tmp_path / "m.safetensors", outputs=tmp_path / "m.ome.zarr", precision="fp64"
    )
    labels = tilepipe.open_mask(tmp_path / "m.ome.zarr").read(Window(0, 0, 300, 400))
    filled = pixels.copy()
    filled[50:90, 60:200] = 127  # the mean of the tiny model
    truth = whole_image_logits(model, filled).argmax(0)
    truth[50:90, 60:200] = 255
    assert (labels == truth).all()
