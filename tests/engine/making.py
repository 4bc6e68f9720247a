"""What the tests of the engine share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tests.images.making import write_scene
from tests.making import make_model
from tilepipe.images import PixelSize
from tilepipe.models.precision import Precision
from tilepipe.models.specs import Model
from tilepipe.models.unet import UNetArguments

SMALL = UNetArguments(width=2, depth=2)


def foretold(model: Model, name: str, side: int) -> int:
    """What the plan counts for a pass."""
    return model.predictor.memory(model.geometry, Precision.FP32, name)(side, side)


def model_of(size: float | None, unit: str = "micrometer") -> Model:
    model = make_model(SMALL)
    found = None if size is None else PixelSize(size, size, unit)
    return replace(model, input=replace(model.input, pixel_size=found))


def write_tiled_scene(path: Path, pixels: NDArray[Any], nodata: float | None, **extra: Any) -> Path:
    """A GeoTIFF in tiles of 128."""
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128}
    return write_scene(path, pixels, nodata, **tiles, **extra)
