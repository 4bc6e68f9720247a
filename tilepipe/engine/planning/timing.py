"""Timing forward passes on a tile of the image, here or on a worker."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.inputs import open_planned
from tilepipe.engine.plan.plan import ImageFacts, at_model_scale
from tilepipe.engine.planning.cost import PassCost, Timing
from tilepipe.engine.work.device import Device
from tilepipe.errors import InputError, NonFiniteError, UnreadableError
from tilepipe.grid import Geometry, Window
from tilepipe.images import Image, read_with_valid
from tilepipe.images.validity import Validity
from tilepipe.models.file import load_model
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.base import Predictor
from tilepipe.models.predictors.quantised import with_network
from tilepipe.models.specs import Model
from tilepipe.products.product import Product

PASSES = 2
"""The number of timed passes. The fastest counts, because the first one builds kernels."""


class Sample(NamedTuple):
    """A window of the image, as the arguments of `Device.answer`."""

    pixels: NDArray[Any]
    valid: Validity | None
    keep: tuple[int, int]

    @property
    def area(self) -> int:
        """The number of input pixels."""
        return int(self.pixels.shape[0] * self.pixels.shape[1])

    def filling(self, size: tuple[int, int], keep: tuple[int, int]) -> Sample:
        """A window of ``size`` (height, width) with the same pixels, side by side."""
        valid = None if self.valid is None else _repeated(self.valid, size)
        return Sample(_repeated(self.pixels, size), valid, keep)


class PassSettings(NamedTuple):
    """How a pass of a model is computed."""

    device: str
    precision: Precision
    threads: int
    runtime: str


def central_tile(image: Image, facts: ImageFacts, geometry: Geometry) -> Sample | None:
    """The model's tile at the centre of the image; None if it cannot be read."""
    factor, step = geometry.stride_factor, geometry.step
    y = max(0, (facts.height - step) // 2) // factor * factor
    x = max(0, (facts.width - step) // 2) // factor * factor
    window = geometry.window_for(Window(y, x, step, step))
    try:
        return Sample(*read_with_valid(image, window, facts.level), (step, step))
    except UnreadableError:
        return None  # the run will report it


def smaller(tile: Sample, geometry: Geometry) -> Sample:
    """A window of about half the side in the middle of a tile."""
    factor = geometry.stride_factor
    keep = max(factor, geometry.step // 2 // factor * factor)
    side = geometry.input_for(keep)
    top, left = ((length - side) // 2 for length in tile.pixels.shape[:2])
    part = (slice(top, top + side), slice(left, left + side))
    valid = None if tile.valid is None else tile.valid[part]
    return Sample(tile.pixels[part], valid, (keep, keep))


_speeds: WeakKeyDictionary[Predictor, dict[Any, float]] = WeakKeyDictionary()
"""Of the networks in use, so that the images of a batch do not all time the same."""


def speed_of(model: Model, tile: Sample, settings: PassSettings) -> float:
    """Input pixels per second of passes on a tile, timed once for a model in use.

    Raises NonFiniteError if the network overflows on the tile that is timed.
    """
    known = _speeds.setdefault(model.predictor, {})
    key = settings, tile.pixels.shape, tile.valid is None
    if key not in known:
        with closing(Device(model, *settings)) as device:
            known[key] = tile.area / timed(device, tile).seconds
    return known[key]


def logits_and_cost(
    model: Model, tile: Sample, settings: PassSettings
) -> tuple[NDArray[np.float64], float, PassCost]:
    """The logits of a tile, (outputs, rows, columns), its input pixels per second, and the cost.

    A network of one window only gets a guess of what part of it is fixed.
    """
    geometry = model.geometry
    with closing(Device(model, *settings)) as device:
        part = tile if model.predictor.fixed else smaller(tile, geometry)
        # The smaller one first: threads that start, and libraries that load, are no fresh memory.
        timings = [timed(device, part)]
        if part.area != tile.area:
            timings.append(timed(device, tile))
        speed = tile.area / timings[-1].seconds
        return device.logits(*tile), speed, PassCost(geometry.shrink, tuple(timings))


def time_larger(model: Model, tile: Sample, settings: PassSettings, keep: int) -> Timing:
    """Time passes of a window that keeps a square of so many pixels: a tile, again and again."""
    side = model.geometry.input_for(keep)
    with closing(Device(model, *settings)) as device:
        return timed(device, tile.filling((side, side), (keep, keep)))


def _repeated(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Values (height, width, bands), side by side, cut to a size."""
    down, across = (-(-n // length) for n, length in zip(size, values.shape, strict=False))
    return np.ascontiguousarray(np.tile(values, (down, across, 1))[: size[0], : size[1]])


def timed(device: Device, tile: Sample, products: tuple[Product, ...] | None = None) -> Timing:
    """Time passes of a device on a tile, making some products or the model's mask."""
    seconds = []
    for _ in range(PASSES):
        begin = time.perf_counter()
        device.answer(*tile, products).result()
        seconds.append(time.perf_counter() - begin)
    height, width = tile.pixels.shape[:2]
    return Timing(height, width, min(seconds), seconds[0])


def speed_on_worker(
    model: str, facts: ImageFacts, settings: PassSettings, network: bytes | None = None
) -> float | None:
    """Input pixels per second on the worker where this runs, by a quantised network if given.

    None if it cannot open image or model; the reason is reported when all workers are prepared.
    """
    try:
        image = open_planned(facts)
    except InputError:
        return None
    try:
        loaded = load_model(model)
        loaded = loaded if network is None else with_network(loaded, network)
        tile = central_tile(at_model_scale(image, facts), facts, loaded.geometry)
        return None if tile is None else speed_of(loaded, tile, settings)
    except NonFiniteError:
        raise
    except InputError:
        return None
    finally:
        image.close()
