"""The pixels that a network is quantised on, and how far its labels are from fp32's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.planning.timing import PassSettings, Sample
from tilepipe.engine.work.device import Device
from tilepipe.models.normalisation import ArrayNormalisation
from tilepipe.models.precision import Precision
from tilepipe.models.specs import Model

CALIBRATING, MEASURING = 16, 8
"""Tiles for each, at most, of one image."""


def network_inputs(model: Model, tiles: Iterable[Sample]) -> list[NDArray[np.float32]]:
    """The network's input on tiles, each (1, bands, H, W)."""
    normalise = ArrayNormalisation(model.input)
    return [
        normalise(pixels, None if valid is None else ~valid).copy() for pixels, valid, _ in tiles
    ]


def labels_of(model: Model, tiles: Sequence[Sample], settings: PassSettings) -> list[NDArray[Any]]:
    """The labels that a model gives tiles, each as `Device.answer` does."""
    with closing(Device(model, *settings)) as device:
        return [device.answer(*tile).result().mask for tile in tiles]


def reference_settings(model: Model, threads: int) -> PassSettings:
    """Of passes in fp32, by the network's reference runtime."""
    return PassSettings("cpu", Precision.FP32, threads, model.predictor.runtimes[0])


def int8_settings(threads: int) -> PassSettings:
    """Of passes in int8."""
    return PassSettings("cpu", Precision.INT8, threads, "openvino")
