"""What a run's blocks spent their time on, and which option would help."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tilepipe.engine.state.totals import Totals
from tilepipe.models.precision import Precision
from tilepipe.text import count

Part = Literal["computing", "reading", "writing", "waiting"]

ENOUGH_ROUNDS = 2
"""With fewer blocks per slot, filling and emptying the slots is most of the run."""
ENOUGH_SECONDS = 2.0
LEAST_BUSY = 0.5
"""A device that is busy for a smaller share of the time waits for something else."""
_OTHERS = {"start": "starting", "pyramid": "the pyramid", "exports": "writing the exports"}


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the blocks were computed, as far as the advice depends on it."""

    workers: int
    slots: int
    """Blocks that a worker handles at once."""
    in_process: bool
    local: bool
    """Whether the workers are on this machine."""
    gpu: bool
    precision: str
    bf16: bool | None = None
    """Whether the processor computes bf16 in hardware; None where unknown."""
    offered: str | None = None
    """The option that the plan offered (`tilepipe.engine.planning.int8`)."""
    tissue: bool = False
    """Whether `--tissue auto` could help: an RGB slide that is computed as a whole."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What the run waited for, and what would help.

    That is computing, if the devices were busy at least half of the time; otherwise the part that
    took most of the rest.
    """

    part: Part
    shares: dict[Part, float]
    """The share of the devices' time that each part took; the sum is 1."""
    sure: bool
    """Whether the run was long enough to tell."""
    what: str
    help: str

    @property
    def share(self) -> float:
        """The part's share of the time."""
        return self.shares[self.part]

    def __str__(self) -> str:
        return f"{self.part}: {self.what}; {self.help}"

    def to_dict(self) -> dict[str, Any]:
        """The bottleneck as JSON-ready values."""
        shares = {part: round(share, 4) for part, share in self.shares.items()}
        return {**asdict(self), "shares": shares}


def find_bottleneck(
    seconds: dict[str, float], timings: Totals, setting: Setting
) -> Bottleneck | None:
    """The part that kept the run from being faster; None if no block was computed.

    Computing is limited by the device alone. The time that a device was idle is divided among
    reading, writing and having no block, in proportion to the time that its slots spent on each.

    Parameters
    ----------
    seconds
        Wall time of the parts of the run; ``blocks`` is required.
    timings
        Sums over the blocks that this run computed.
    """
    wall = seconds["blocks"]
    if timings.blocks == 0 or wall <= 0:
        return None
    devices = setting.workers * wall
    slots = devices * setting.slots
    busy = min(1.0, timings.compute / devices)
    in_hand = timings.read + timings.wait + timings.compute + timings.write
    empty = max(0.0, slots - in_hand)
    loose = timings.read + timings.write + empty
    idle = (1 - busy) / loose if loose > 0 else 0.0
    shares: dict[Part, float] = {
        "computing": busy if loose > 0 else 1.0,
        "reading": idle * timings.read,
        "writing": idle * timings.write,
        "waiting": idle * empty,
    }
    busy_enough = shares["computing"] >= LEAST_BUSY
    parts = [p for p in shares if (p == "computing") == busy_enough]
    part = max(parts, key=lambda p: shares[p])
    rounds = timings.blocks / (setting.workers * setting.slots)
    sure = rounds >= ENOUGH_ROUNDS and wall >= ENOUGH_SECONDS
    what = _what(part, shares, timings, setting, rounds)
    stages = {name: seconds[name] for name in _OTHERS if name in seconds}
    other = max(stages, key=lambda name: stages[name], default=None)
    if not sure:
        short = f"{count(timings.blocks, 'block')} in {wall:.1f} s"
        what += f" (a short run, {short}: too short to be sure)"
    if other is not None and seconds[other] > wall:
        what += f"; {_OTHERS[other]} took longer than the blocks, {seconds[other]:.1f} s"
    return Bottleneck(part, shares, sure, what, _help(part, setting, rounds))


def _what(
    part: Part, shares: dict[Part, float], timings: Totals, setting: Setting, rounds: float
) -> str:
    device = "the GPU" if setting.gpu else "the device"
    device = (
        f"{device} was" if setting.workers == 1 else f"the {setting.workers} workers' devices were"
    )
    busy = f"{device} busy {shares['computing']:.0%} of the time"
    if part == "computing":
        return busy
    if part == "waiting" and rounds < ENOUGH_ROUNDS:
        return f"{busy}: {timings.blocks} blocks for {setting.workers * setting.slots} slots"
    if part == "waiting":
        return f"{busy}: workers had no block to work on"
    read, compute, write = (
        f"{total / timings.blocks:.2g} s"
        for total in (timings.read, timings.compute, timings.write)
    )
    return f"{busy}: a block took {read} to read, {compute} to compute, {write} to write"


def _help(part: Part, setting: Setting, rounds: float) -> str:
    if part == "computing":
        return _faster_passes(setting)
    if part == "reading":
        if setting.local and setting.in_process:
            crowd = "or --workers 2 or more, which read more blocks at once"
            if setting.gpu:
                crowd += " and share the GPU"
        elif setting.local:
            crowd = "or more --workers"
        else:
            crowd = "or workers with more --nthreads, which read more blocks at once"
        return (
            "put the image on a local disk, or convert it once with `tilepipe convert` to "
            f"OME-Zarr, which decodes fast in any order; {crowd}"
        )
    if part == "writing":
        fast = "write to a faster disk: `tilepipe doctor -o FOLDER` measures disks"
        if setting.gpu and setting.local and setting.in_process:
            return f"{fast}; or --workers 2 or more, which share the GPU and write more at once"
        return fast
    if rounds < ENOUGH_ROUNDS and setting.workers > 1:
        return "fewer workers would do as well; a smaller --window makes more blocks"
    if rounds < ENOUGH_ROUNDS:
        return "only larger images would gain; a smaller --window makes more blocks"
    if setting.local:
        return "something else kept this machine busy: see `tilepipe doctor`"
    return (
        "the scheduler or the network is slow, or workers joined late: see `tilepipe doctor "
        "--scheduler`; a larger --window makes fewer, longer blocks"
    )


def _faster_passes(setting: Setting) -> str:
    ways, half = [], Precision(setting.precision).is_half
    if setting.gpu:
        ways.append("more GPUs" if setting.local else "more workers with a GPU")
        if not half:
            ways.append("--precision fp16, which is its default there")
    else:
        ways.append("more cores or a GPU" if setting.local else "more workers, or ones with a GPU")
        if setting.precision == "fp32" and setting.bf16:
            ways.append("--precision bf16, which this processor has in hardware (labels may differ "
                        "at ties)")  # fmt: skip
        if setting.offered:
            ways.append(f"{setting.offered}, which measures first how many labels differ")
        if setting.precision == "fp64":
            ways.append("--precision fp32")
        elif half and setting.bf16 is False:
            ways.append("--precision fp32, as this processor has no bf16 in hardware")
    if setting.tissue:
        ways.append("--tissue auto if much of the image is empty")
    return f"what would help: {_listed(ways)}"


def _listed(ways: list[str]) -> str:
    return ways[0] if len(ways) == 1 else ", ".join(ways[:-1]) + "; or " + ways[-1]
