"""Which runtime computes the passes, where the user does not say: the fastest, as measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.work.device import Device
from tilepipe.errors import InputError
from tilepipe.grid import Tiling
from tilepipe.images.validity import Validity
from tilepipe.models.precision import TIE_FP32
from tilepipe.models.runtimes import MEASURED, installed

if TYPE_CHECKING:
    from tilepipe.engine.planning.sizing import MemoryModel
    from tilepipe.models.specs import Model

CLEARLY = 1.05
"""How much faster than torch another runtime must be."""
SHARE = 0.25
"""Of a run's time, what measuring may take."""
OPENING = 0.6
"""Seconds to load a runtime and build the network in it, about."""
PASSES = 2
"""Of each runtime; the first one builds kernels, the faster counts."""
AGREES = {"fp32": TIE_FP32 / 2, "bf16": 0.02}
"""Logits may differ from torch's by that much of their range. In fp32 both logits of a tie by as
much, so that `verify`, which computes with torch, finds no more than ties; in bf16, which `verify`
judges by what the run's own runtime is found to differ, by about what rounding comes to."""

Sample = tuple[NDArray[Any], Validity | None, tuple[int, int]]
"""A window of the image: pixels, where they are data, outputs kept."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A runtime, and why."""

    runtime: str
    speeds: tuple[tuple[str, float], ...] = ()
    """Input pixels per second of each runtime measured; empty where none was."""
    warnings: tuple[str, ...] = ()


def fastest_runtime(
    model: Model,
    precision: str,
    threads: int,
    tile: Sample,
    tiling: Tiling,
    rate: float,
    seconds: float,
    memory: Callable[[str], MemoryModel],
    limit: int,
    names: tuple[str, ...] | None = None,
) -> Choice:
    """Torch, or what is installed, fits the memory, agrees with torch and is clearly faster.

    On a CPU. Nothing is measured where that would take more than `SHARE` of the run.

    Parameters
    ----------
    tile
        A small window, on which runtimes must agree and are timed. Of larger ones others than torch
        gain, if anything: torch asks the system for fresh memory in every pass.
    tiling, rate, seconds
        Of the run, with torch: how it is cut, input pixels per second of a pass, and in all.
    memory
        What a runtime needs.
    limit
        Bytes.
    """
    found = [name for name in names or MEASURED if installed(name)][: len(names) if names else 1]
    # What each has loaded stays loaded.
    extra = {name: memory(name).total(tiling) - memory("torch").total(tiling) for name in found}
    room = limit - memory("torch").total(tiling)
    found = [name for name in found if sum(extra.values()) <= room]
    one = tile[0].shape[0] * tile[0].shape[1] / rate
    cost = len(found) * OPENING + (1 + len(found)) * PASSES * one
    if not found or cost > SHARE * seconds:
        return Choice("torch")

    warnings = []
    truth, best = _measured(model, precision, threads, "torch", tile)
    speeds = {"torch": best}
    span = float(np.ptp(truth)) or 1.0
    for name in found:
        try:
            logits, speed = _measured(model, precision, threads, name, tile)
        except (InputError, RuntimeError) as error:
            warnings.append(f"runtime {name} does not work here ({error}) and is left out")
            continue
        apart = float(np.abs(logits - truth).max()) / span
        if not apart <= AGREES[precision]:  # NaN does not either
            warnings.append(
                f"runtime {name} differs from torch by {apart:.1e} of the logits' range on this "
                f"image, more than {AGREES[precision]:.0e}, and is left out"
            )
            continue
        speeds[name] = speed
    fastest = max(speeds, key=lambda name: speeds[name])
    chosen = fastest if speeds[fastest] > CLEARLY * best else "torch"
    return Choice(chosen, tuple(speeds.items()), tuple(warnings))


def _measured(
    model: Model, precision: str, threads: int, name: str, tile: Sample
) -> tuple[NDArray[np.float64], float]:
    """The logits of a tile, and the input pixels per second of its passes."""
    # A copy: in half precision torch turns the weights it is given into its own.
    own = model if precision == "fp32" else replace(model, network=deepcopy(model.network))
    device = Device(own, "cpu", precision, threads, name)
    try:
        logits = device.logits(*tile)
        area = tile[0].shape[0] * tile[0].shape[1]
        speed = 0.0
        for _ in range(PASSES):
            begin = time.perf_counter()
            device.answer(*tile).result()
            speed = max(speed, area / (time.perf_counter() - begin))
        return logits, speed
    finally:
        device.close()
