"""Which precision and runtime compute the passes; for ``auto``, the fastest runtime as timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.planning.cost import PassCost, Timing
from tilepipe.engine.planning.timing import PASSES, PassSettings, Sample, logits_and_cost
from tilepipe.errors import InputError
from tilepipe.grid import Geometry, round_down
from tilepipe.models.precision import Precision
from tilepipe.models.specs import Model

MIN_SPEEDUP = 1.05
"""How much faster than the reference another runtime must be."""
MAX_TIME_SHARE = 0.1
"""The share of a run's time that timing runtimes may take; later runs remember what it found."""
WINDOWS = 1.3
"""Time of both windows that are timed, over that of the larger one."""
LARGER, LARGER_SHARE = (1024, 2048), 0.1
"""What is kept of larger windows that are timed in long runs, and the share of the run's time that
each of them may take: a pixel may cost more in them, from a size that depends on the processor."""
AGAIN = 0.2
"""Seconds to build a network in a runtime that is loaded, about."""
OPENING = 0.6
"""Seconds to load a runtime and build the network in it, about."""
LOADING = 1.2
"""Seconds to load torch, where nothing else has done so; others do without it."""


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """A runtime, and how it was chosen."""

    runtime: str
    speeds: tuple[tuple[str, float], ...] = ()
    """Input pixels per second of each runtime timed; empty where none was."""
    warnings: tuple[str, ...] = ()
    costs: tuple[tuple[str, PassCost], ...] = ()
    """What passes cost by each runtime timed, in its order."""

    def with_timing(self, runtime: str, timing: Timing) -> RuntimeChoice:
        """The same, with one more window that a runtime was timed on."""
        costs = ((n, c.with_timing(timing) if n == runtime else c) for n, c in self.costs)
        return replace(self, costs=tuple(costs))


def choose_precision(asked: str, device: str, model: Model) -> Precision:
    """The precision asked for; for ``auto`` the network's default on this device.

    Raises
    ------
    InputError
        When the network cannot compute in the precision asked for.
    """
    possible = model.predictor.precisions(device)
    if asked == "auto":
        return possible[0]
    if asked not in possible:
        why = "as its file holds it" if len(possible) == 1 else f"on device {device}"
        raise InputError(
            f"precision {asked}: model {model.name} computes in {' or '.join(possible)} only, "
            f"{why}; leave --precision out"
        )
    return Precision(asked)


def choose_runtime(asked: str, model: Model) -> str:
    """The runtime asked for; for ``auto`` the network's reference, before any is timed.

    Raises
    ------
    InputError
        When the network cannot be computed by the runtime asked for.
    """
    possible = model.predictor.runtimes
    if asked == "auto":
        return possible[0]
    if asked not in possible:
        raise InputError(
            f"runtime {asked}: model {model.name} is computed by {' or '.join(possible)} only; "
            "leave --runtime out"
        )
    return asked


def may_time() -> bool:
    """Whether plans may depend on what is measured at all."""
    return MAX_TIME_SHARE > 0


def worth_timing(count: int, pass_seconds: float, run_seconds: float) -> bool:
    """Whether timing the reference and so many others takes at most `MAX_TIME_SHARE` of a run."""
    cost = count * OPENING + (1 + count) * PASSES * WINDOWS * pass_seconds
    return cost <= MAX_TIME_SHARE * run_seconds


def larger_to_time(
    cost: PassCost, geometry: Geometry, size: tuple[int, int], run_seconds: float
) -> int | None:
    """What to keep of the next larger window to time; None if it is too large or takes too long.

    Parameters
    ----------
    cost
        As far as it is known.
    geometry, size
        Of the network, and (height, width) of the image.
    run_seconds
        Of all passes, as far as they are known.
    """
    timed = cost.timings[-1].height
    for keep in (round_down(keep, geometry.stride_factor) for keep in LARGER):
        side = geometry.input_for(keep) if keep else 0
        if side <= timed:
            continue
        takes = PASSES * cost.seconds(side, side) + cost.fresh({(side, side): 1}) + AGAIN
        return keep if keep <= min(size) and takes <= LARGER_SHARE * run_seconds else None
    return None


def quickest(reference: str, seconds: Mapping[str, float], *, loaded: bool = True) -> str:
    """The runtime with the shortest run, opening it included; the reference if that gains little.

    Parameters
    ----------
    reference
        The reference runtime, torch.
    seconds
        Of the passes of a run by each.
    loaded
        Whether this process has loaded torch.
    """
    own = seconds[reference] + (0.0 if loaded else LOADING)
    others = {name: value + OPENING for name, value in seconds.items() if name != reference}
    fastest = min(others, key=others.__getitem__, default=reference)
    gains = fastest != reference and MIN_SPEEDUP * others[fastest] < own
    return fastest if gains else reference


def apart(logits: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """How far logits are from others at most, as a share of their range; NaN if one is NaN."""
    return float(np.abs(logits - truth).max()) / (float(np.ptp(truth)) or 1.0)


def fastest_runtime(
    model: Model, tile: Sample, reference: PassSettings, names: Sequence[str]
) -> RuntimeChoice:
    """The reference, or another runtime that agrees with it and is clearly faster.

    Parameters
    ----------
    tile
        A window on which runtimes must agree and are timed, as on a part of it.
    reference
        How the network's reference runtime computes; others must agree with it.
    names
        The other runtimes.
    """
    bound = reference.precision.agreement
    assert bound is not None or not names, "only the reference computes in this precision"
    truth, reference_speed, cost = logits_and_cost(model, tile, reference)
    warnings, speeds = [], {reference.runtime: reference_speed}
    costs = {reference.runtime: cost}
    for name in names:
        try:
            logits, speed, cost = logits_and_cost(model, tile, reference._replace(runtime=name))
        except (InputError, RuntimeError) as error:
            warnings.append(f"runtime {name} does not work here ({error}) and is left out")
            continue
        difference = apart(logits, truth)
        if bound is None or not difference <= bound:  # NaN is not either
            warnings.append(
                f"runtime {name} is left out: on the tile that was timed, it differs from "
                f"{reference.runtime} by {difference:.1e} of the logits' range, more than "
                f"{bound:.0e}"
            )
            continue
        speeds[name], costs[name] = speed, cost
    fastest = max(speeds, key=lambda name: speeds[name])
    faster = speeds[fastest] > MIN_SPEEDUP * reference_speed
    return RuntimeChoice(
        fastest if faster else reference.runtime, tuple(speeds.items()), tuple(warnings),
        tuple(costs.items()),
    )  # fmt: skip
