"""A window of the planned size on the GPU, before the plan is frozen: its memory is a forecast.

What a GPU takes beyond the tensors of a pass (workspaces of convolutions, fragments, what other
programs hold by now) cannot be counted beforehand. So one window is computed, and if the GPU runs
out of memory, the plan is made again with less of it.
"""

from __future__ import annotations

from contextlib import closing

import numpy as np

from tilepipe.engine.cluster.failures import out_of_memory
from tilepipe.engine.plan.plan import ImageFacts
from tilepipe.engine.planning.memory import MemoryModel
from tilepipe.engine.planning.timing import PassSettings
from tilepipe.engine.work.device import Device
from tilepipe.errors import InputError, NonFiniteError
from tilepipe.grid import Tiling
from tilepipe.models.file import load_model
from tilepipe.models.specs import Model
from tilepipe.products.product import Product

SHRINK = 0.8
"""The share of the memory that a window was thought to take that the next one may take."""


def computes(
    model: Model, facts: ImageFacts, tiling: Tiling, settings: PassSettings,
    products: tuple[Product, ...],
) -> bool:  # fmt: skip
    """Whether the device computes windows of a tiling; False where it runs out of memory."""
    pixels = np.zeros((*tiling.input, facts.bands), facts.dtype)
    try:
        with closing(Device(model, *settings)) as device:
            device.answer(pixels, None, tiling.keep, products).result()
    except NonFiniteError:
        return True  # of an image without content; the run looks at every window of its own
    except Exception as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        if settings.device.startswith("cuda"):
            from tilepipe._torch import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # a worker in another process may need it
    return True


def computes_on_worker(
    model: str, facts: ImageFacts, tiling: Tiling, settings: PassSettings,
    products: tuple[Product, ...],
) -> bool:  # fmt: skip
    """The same for the worker where this runs; True where it cannot open the model.

    Why not is reported when all workers are prepared.
    """
    try:
        return computes(load_model(model), facts, tiling, settings, products)
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
