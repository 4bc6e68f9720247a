"""What tests of training make: folders of images with drawn masks, and quick options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

import tilepipe
from tilepipe.training.train import TrainCallbacks, TrainSummary

QUICK: dict[str, Any] = {
    "width": 2, "depth": 1, "tile": 48, "batch": 2, "steps": 4, "validate_every": 2, "threads": 1,
    "precision": "fp32", "device": "cpu",
}  # fmt: skip


def discs(side: int, seed: int, count: int = 6, radius: int = 7) -> NDArray[np.uint8]:
    """Discs that may touch, each with its number."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    numbers = np.zeros((side, side), np.uint8)
    for number in range(1, count + 1):
        cy, cx = rng.integers(radius, side - radius, 2)
        numbers[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number
    return numbers


def picture_of(mask: NDArray[Any], seed: int, bands: int = 3) -> NDArray[np.uint8]:
    """A picture in which the mask is easy to see."""
    noise = np.random.default_rng(seed).normal(0, 10, (*mask.shape, bands))
    return np.asarray((60 + 120 * (mask[..., None] > 0) + noise).clip(0, 255).astype(np.uint8))


def write_png(path: Path, pixels: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_folder(
    folder: Path,
    count: int = 4,
    side: int = 64,
    mask: Callable[[NDArray[np.uint8]], NDArray[Any]] = lambda numbers: (numbers > 0).astype("u1"),
    seed: int = 0,
) -> Path:
    """A folder of ``images`` and ``masks``; ``mask`` makes a mask of numbered discs."""
    for i in range(count):
        numbers = discs(side, seed + i)
        write_png(folder / "images" / f"{i:02d}.png", picture_of(numbers, seed + i))
        write_png(folder / "masks" / f"{i:02d}.png", mask(numbers))
    return folder


def write_values(path: Path, values: NDArray[np.float32], nodata: float | None = None) -> Path:
    """A float32 TIFF mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]
    tifffile.imwrite(path, values, extratags=tags, metadata=None)
    return path


def train(
    data: Any, output: Path, watch: TrainCallbacks | None = None, **options: Any
) -> TrainSummary:
    """A training of a few seconds."""
    return tilepipe.train(data, output, watch=watch, **{**QUICK, **options})
