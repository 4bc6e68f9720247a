"""A window of the planned size on the GPU, before the plan is frozen: its memory is a forecast.

What a GPU takes beyond the tensors of a pass (workspaces of convolutions, fragments, what other
programs hold by now) cannot be counted beforehand. So one window is computed, and if the GPU runs
out of memory, the plan is made again with less of it. Its time is also that of the run's passes.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from tilepipe.engine.cluster.failures import out_of_memory
from tilepipe.engine.plan.plan import ImageFacts
from tilepipe.engine.planning.memory import MemoryModel
from tilepipe.engine.planning.timing import PassSettings, Sample, timed
from tilepipe.engine.work.device import Device
from tilepipe.errors import InputError, NonFiniteError
from tilepipe.grid import Tiling
from tilepipe.models.file import load_model
from tilepipe.models.predictors.base import Predictor
from tilepipe.models.specs import Model
from tilepipe.products.product import Product

SHRINK = 0.8
"""The share of the memory that a window was thought to take that the next one may take."""


class Tried(NamedTuple):
    """What came of computing a window."""

    fits: bool
    """Whether the memory was enough."""
    seconds: float | None = None
    """Of a pass; None where it is not known."""


_fitting: WeakKeyDictionary[Predictor, dict[Any, Tried]] = WeakKeyDictionary()
"""Of the networks in use, so that the images of a batch do not all try the same."""


def window_of(tiling: Tiling, facts: ImageFacts, tile: Sample | None) -> Sample:
    """A window of a tiling with the pixels of a tile, again and again; without one, of zeros."""
    if tile is None:
        return Sample(np.zeros((*tiling.input, facts.bands), facts.dtype), None, tiling.keep)
    return tile.filling(tiling.input, tiling.keep)


def try_window(
    model: Model, window: Sample, settings: PassSettings, products: tuple[Product, ...]
) -> Tried:
    """Compute a window on the device, unless one like it is known to fit.

    Raises
    ------
    NonFiniteError
        When the network overflows.
    """
    known = _fitting.setdefault(model.predictor, {})
    key = settings, window.pixels.shape, window.pixels.dtype, window.valid is None, products
    if key in known:
        return known[key]
    try:
        with closing(Device(model, *settings)) as device:
            known[key] = Tried(True, timed(device, window, products).seconds)
        return known[key]
    except Exception as error:
        if not out_of_memory(error):
            raise
        return Tried(False)
    finally:
        if settings.device.startswith("cuda"):
            from tilepipe._torch import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # a worker in another process may need it


def fits_on_worker(
    model: str, facts: ImageFacts, tiling: Tiling, settings: PassSettings,
    products: tuple[Product, ...],
) -> bool:  # fmt: skip
    """Whether the worker where this runs has memory for it; True where it cannot open the model.

    Why not is reported when all workers are prepared.
    """
    try:
        window = window_of(tiling, facts, None)
        return try_window(load_model(model), window, settings, products).fits
    except NonFiniteError:
        return True  # of an image without content; the run looks at every window of its own
    except InputError:
        return True


def smaller(memory: MemoryModel, tiling: Tiling, window: str | int, *, fixed: bool) -> MemoryModel:
    """Memory that has no room for a tiling, of which the GPU ran out.

    Raises
    ------
    InputError
        Where the window may not change, because the user named it or the network takes no other.
    """
    height, width = tiling.input
    failed = f"the GPU runs out of memory with windows of {width} x {height} (width x height)"
    if fixed:
        raise InputError(f"{failed}, and the model takes no others; use --device cpu")
    if window != "auto":
        raise InputError(f"window {window}: {failed}; use a smaller one, or --window auto")
    return memory.with_gpu(int(SHRINK * memory.gpu_bytes(tiling)))


def warning(tried: Tiling, chosen: Tiling) -> str:
    """That a window was tried in vain."""
    (height, width), (rows, columns) = tried.input, chosen.input
    return (
        f"the GPU ran out of memory with windows of {width} x {height} (width x height), and "
        f"the plan uses {columns} x {rows}"
    )
