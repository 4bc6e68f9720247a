"""Pictures of a training: its curves, its tiles, and predictions for validation images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe._torch import Tensor
from tilepipe.drawing import (
    NO_DATA_COLOUR,
    RGB,
    LegendEntry,
    Panel,
    as_rgb,
    colour_mapped,
    contact_sheet,
    plain_style,
    write_png,
)
from tilepipe.engine.work.device import Device
from tilepipe.grid import Window
from tilepipe.models.specs import Model
from tilepipe.text import drawable
from tilepipe.training.labels import IGNORED, LabelScheme
from tilepipe.training.tiles import OpenPair, PairCache, Tile, TileMaker
from tilepipe.training.validate import predict

ROWS = 6
"""Most validation images on the sheet."""
TILES = 3
"""Number of tiles that are drawn."""
SIDE = 512
"""Largest side of the part of a validation image that is drawn, in pixels."""


def draw_curves(rows: Sequence[dict[str, Any]], metric: str, kept: int, path: Path) -> None:
    """Plot losses and scores over the steps, with a line at the weights that were kept."""
    from matplotlib.figure import Figure

    if not rows:
        return
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, [row["loss"] for row in rows], label="training loss")
    if "validation_loss" in rows[0]:
        name = "validation, unweighted entropy"
        if "dice" not in rows[0]:
            name = "validation, mean squared error"
        left.plot(steps, [row["validation_loss"] for row in rows], label=name)
    left.set(xlabel="step", ylabel="loss", ylim=(0, None))
    names = [n for n in rows[0] if n not in ("step", "seconds", "lr", "loss", "validation_loss")]
    for name in names:
        right.plot(
            steps, [row[name] for row in rows], label=drawable(name.replace("_", " ")),
            linewidth=2 if name == metric else 1, alpha=1 if name == metric else 0.6,
        )  # fmt: skip
    if not names:
        right.plot(steps, [float(row["lr"]) for row in rows], label="learning rate")
    right.set(xlabel="step", ylabel="validation" if names else "")
    left.legend(fontsize=8, frameon=False)
    # Beside the curves, as scores may lie anywhere.
    figure.legend(handles=right.get_lines(), loc="outside right center", fontsize=8, frameon=False)
    for axes in (left, right):
        axes.axvline(kept, color="0.5", linestyle=":", linewidth=1)
    plain_style(left, right)
    figure.savefig(path, dpi=120)


def draw_tiles(
    maker: TileMaker, weights: Callable[[Tensor, Tensor | None], Tensor], path: Path
) -> None:
    """Draw tiles as the network will get them: input, target, and the weight of each pixel.

    Parameters
    ----------
    maker
        Makes the tiles.
    weights
        A function of targets and gaps that returns the weights, (N, H, W).
    """
    rows = []
    for tile in (maker.tile(0, i) for i in range(TILES)):
        if tile.target.ndim == 3:
            weight = tile.target.isfinite().all(0).float()
            target = tile.target[0].numpy()
        else:
            weight = weights(tile.target[None], None if tile.gaps is None else tile.gaps[None])[0]
            labels = tile.target.numpy()
            target = np.where(labels == IGNORED, np.nan, labels)
        high = float(weight.max())
        rows.append(
            [
                Panel("input, with a frame around the target", _framed(tile, maker)),
                Panel("target", _scaled(target)),
                Panel(
                    f"weight, 0 to {high:.3g}", colour_mapped(weight.numpy(), "magma", 0.0, high)
                ),
            ]
        )
    write_png(contact_sheet(rows), path)


def _framed(tile: Tile, maker: TileMaker) -> RGB:
    """The pixels of a tile, with a white frame around those that the target covers."""
    pixels = tile.pixels.permute(1, 2, 0).numpy() * maker.spec.std + maker.spec.mean
    as_bytes = maker.spec.scale == 1 / 255
    rgb = as_rgb(pixels * 255 if as_bytes else pixels, as_bytes=as_bytes)
    margin = (tile.pixels.shape[-1] - tile.target.shape[-1]) // 2
    first, last = max(0, margin - 1), rgb.shape[0] - max(1, margin)
    for line in (first, last):
        rgb[line, first : last + 1] = rgb[first : last + 1, line] = 255
    return rgb


def draw_sheet(model: Model, pairs: PairCache, scheme: LabelScheme, path: Path) -> None:
    """Draw some validation images, with truth and prediction beside them."""
    shown = min(ROWS, len(pairs.pairs))
    chosen = np.unique(np.linspace(0, len(pairs.pairs) - 1, shown).astype(int))
    device = Device(model, "cpu", "fp32", 1)
    try:
        rows = [_panels(device, pairs[int(index)], scheme) for index in chosen]
    finally:
        device.close()
    entries = [] if scheme.kind == "values" else [
        LegendEntry(spec.name, _rgb(spec.colour)) for spec in model.output.classes
    ]  # fmt: skip
    write_png(contact_sheet(rows, entries), path)


def _panels(device: Device, opened: OpenPair, scheme: LabelScheme) -> list[Panel]:
    """The middle of an image, its truth and its prediction."""
    region = opened.region
    height, width = min(SIDE, region.height), min(SIDE, region.width)
    y, x = region.y + (region.height - height) // 2, region.x + (region.width - width) // 2
    part = Window(y, x, height, width)
    truth = scheme.target(opened.labels, part).labels
    missing = np.nan if scheme.kind == "values" else IGNORED
    predicted = np.full(truth.shape, missing, truth.dtype)
    for window, answer in predict(device, opened.image, part):
        predicted[(..., *window.slices(part))] = answer.mask
    image = as_rgb(opened.image.read(part))
    if scheme.kind == "values":
        # Truth and prediction in the colours of one scale.
        pictures = _scaled(truth[0]), _scaled(predicted[0], like=truth[0])
    else:
        colours = np.full((IGNORED + 1, 3), NO_DATA_COLOUR, np.uint8)
        for label, spec in enumerate(device.output.classes):
            colours[label] = _rgb(spec.colour)
        pictures = colours[truth], colours[predicted]
    captions = (opened.pair.name, "truth", "prediction")
    return [Panel(*panel) for panel in zip(captions, (image, *pictures), strict=True)]


def _scaled(values: NDArray[Any], like: NDArray[Any] | None = None) -> RGB:
    """Values, or labels, in colours from the smallest to the largest (of ``like``)."""
    scale = values if like is None else like
    known = scale[np.isfinite(scale)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return colour_mapped(values, "viridis", low, high)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue
