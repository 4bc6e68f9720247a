"""Pictures of a training: its curves, and what the network makes of the validation images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe._torch import Tensor
from tilepipe.engine.work.device import Device
from tilepipe.grid import Window
from tilepipe.images import Image
from tilepipe.models.specs import Model
from tilepipe.text import drawable
from tilepipe.training.labels import IGNORED, LabelScheme
from tilepipe.training.tiles import OpenPair, Shelf, TileMaker
from tilepipe.training.validate import predict

ROWS = 6
"""Validation images on the sheet, at most."""
TILES = 3
"""Tiles that are shown."""
SIDE = 512
"""Pixels of each that are shown, at most."""
UNKNOWN = (200, 200, 200)
"""Colour of pixels without a label."""


def draw_curves(rows: Sequence[dict[str, Any]], metric: str, kept: int, path: Path) -> None:
    """Losses and metrics over the steps, the kept weights marked; a PNG."""
    from matplotlib.figure import Figure

    if not rows:
        return
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, [row["loss"] for row in rows], label="training loss")
    if "validation_loss" in rows[0]:
        left.plot(
            steps, [row["validation_loss"] for row in rows], label="validation, unweighted entropy"
            if "dice" in rows[0] else "validation, mean squared error",
        )  # fmt: skip
    left.set(xlabel="step", ylabel="loss", ylim=(0, None))
    names = [n for n in rows[0] if n not in ("step", "seconds", "lr", "loss", "validation_loss")]
    for name in names:
        right.plot(
            steps, [row[name] for row in rows], label=name.replace("_", " "),
            linewidth=2 if name == metric else 1, alpha=1 if name == metric else 0.6,
        )  # fmt: skip
    if not names:
        right.plot(steps, [float(row["lr"]) for row in rows], label="learning rate")
    right.set(xlabel="step", ylabel="on the validation images" if names else "")
    left.legend(fontsize=8, frameon=False)
    # Beside the curves: scores lie anywhere, and none may be hidden.
    figure.legend(handles=right.get_lines(), loc="outside right center", fontsize=8, frameon=False)
    for axes in (left, right):
        axes.axvline(kept, color="0.5", linestyle=":", linewidth=1)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def draw_tiles(
    maker: TileMaker, weigh: Callable[[Tensor, Tensor | None], Tensor], path: Path
) -> None:
    """Tiles as the network will get them: input, target, and how much each pixel weighs; a PNG.

    Parameters
    ----------
    maker
        Makes the tiles.
    weigh
        The weights (N, H, W) of targets and gaps of the same shape.
    """
    from matplotlib.figure import Figure

    tiles = [maker.tile(0, i) for i in range(TILES)]
    figure = Figure(figsize=(9, 3 * TILES), layout="constrained")
    grid = figure.subplots(TILES, 3, squeeze=False)
    margin = (tiles[0].pixels.shape[-1] - tiles[0].target.shape[-1]) // 2
    for row, tile in zip(grid, tiles, strict=True):
        pixels = tile.pixels.permute(1, 2, 0).numpy() * maker.spec.std + maker.spec.mean
        shown = pixels * 255 if maker.spec.scale == 1 / 255 else pixels
        whole = shown.clip(0, 255).astype(np.uint8) if maker.spec.scale == 1 / 255 else shown
        row[0].imshow(as_rgb(whole))
        side = tile.target.shape[-1]
        row[0].plot(
            np.array([0, side, side, 0, 0]) + margin - 0.5,
            np.array([0, 0, side, side, 0]) + margin - 0.5, color="white", linewidth=0.8,
        )  # fmt: skip
        if tile.target.ndim == 3:
            row[1].imshow(tile.target[0].numpy(), cmap="viridis")
            weight = tile.target.isfinite().all(0).float()
        else:
            labels = np.ma.masked_equal(tile.target.numpy(), IGNORED)
            row[1].imshow(labels, cmap="viridis", interpolation="nearest", vmin=0)
            gaps = None if tile.gaps is None else tile.gaps[None]
            weight = weigh(tile.target[None], gaps)[0]
        heat = row[2].imshow(weight.numpy(), cmap="magma", vmin=0)
        figure.colorbar(heat, ax=row[2], shrink=0.8)
        for axes in row:
            axes.set_axis_off()
    for axes, title in zip(grid[0], ("input", "target", "weight"), strict=True):
        axes.set_title(title, fontsize=8)
    figure.savefig(path, dpi=90)


def draw_sheet(model: Model, shelf: Shelf, scheme: LabelScheme, path: Path) -> None:
    """Input, truth and prediction of some validation images side by side; a PNG."""
    from matplotlib.figure import Figure

    chosen = np.unique(
        np.linspace(0, len(shelf.pairs) - 1, min(ROWS, len(shelf.pairs))).astype(int)
    )
    figure = Figure(figsize=(9, 3 * len(chosen) + 0.3), layout="constrained")
    grid = figure.subplots(len(chosen), 3, squeeze=False)
    device = Device(model, "cpu", "fp32", 1)
    try:
        for row, index in zip(grid, chosen, strict=True):
            opened = shelf[int(index)]
            image, truth, predicted = _panels(device, opened, scheme)
            known = truth[np.isfinite(truth)]
            low, high = (known.min(), known.max()) if known.size else (None, None)
            for axes, picture in zip(row, (image, truth, predicted), strict=True):
                # Values of truth and prediction by one scale; colours have theirs.
                axes.imshow(picture, interpolation="nearest", cmap="viridis", vmin=low, vmax=high)
                axes.set_axis_off()
            row[0].set_title(drawable(opened.pair.name), fontsize=8, loc="left")
    finally:
        device.close()
    for axes, title in zip(grid[0][1:], ("truth", "prediction"), strict=True):
        axes.set_title(title, fontsize=8)
    if scheme.kind != "values":
        from matplotlib.patches import Patch

        figure.legend(
            handles=[Patch(color=c.colour, label=drawable(c.name)) for c in model.output.classes],
            loc="outside lower center", ncols=min(6, scheme.classes), fontsize=8, frameon=False,
        )  # fmt: skip
    figure.savefig(path, dpi=110)


@dataclass(frozen=True)
class _Shown:
    image: Image
    region: Window


def _panels(
    device: Device, opened: OpenPair, scheme: LabelScheme
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    region = opened.region
    height, width = min(SIDE, region.height), min(SIDE, region.width)
    shown = Window(
        region.y + (region.height - height) // 2, region.x + (region.width - width) // 2,
        height, width,
    )  # fmt: skip
    truth = scheme.target(opened.labels, shown).labels
    predicted = np.full(truth.shape, np.nan if scheme.kind == "values" else IGNORED, truth.dtype)
    for window, answer in predict(device, _Shown(opened.image, shown)):
        predicted[(..., *window.slices(shown))] = answer.mask
    image = as_rgb(opened.image.read(shown))
    if scheme.kind == "values":
        return image, truth[0], predicted[0]
    colours = np.full((256, 3), UNKNOWN, np.uint8)
    for label, spec in enumerate(device.output.classes):
        colours[label] = tuple(bytes.fromhex(spec.colour[1:]))
    return image, colours[truth], colours[predicted]


def as_rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels of any dtype and number of bands, stretched to be looked at."""
    bands = pixels[..., [0, 1, 2]] if pixels.shape[2] >= 3 else pixels[..., [0, 0, 0]]
    if bands.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(bands)
    values = bands.astype(np.float32)
    low, high = np.nanpercentile(values, [1, 99], axis=(0, 1))
    stretched = (values - low) / np.maximum(high - low, 1e-6)
    return np.asarray((np.nan_to_num(stretched).clip(0, 1) * 255).astype(np.uint8))
