"""Where the time of a run's blocks went, and which option would help: told from the receipts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tilepipe.models.precision import Precision

if TYPE_CHECKING:
    from tilepipe.engine.events import BlockReport

Part = Literal["computing", "reading", "writing", "waiting"]

ENOUGH_ROUNDS = 2
"""Blocks for each slot below which filling and emptying the slots is most of the run."""
ENOUGH_SECONDS = 2.0
_OTHERS = {"start": "starting", "pyramid": "the pyramid", "exports": "writing the exports"}


@dataclass
class Timings:
    """Sums over the receipts of one run; as small as the number of its workers."""

    blocks: int = 0
    read: float = 0.0
    wait: float = 0.0
    compute: float = 0.0
    write: float = 0.0
    workers: set[str] = field(default_factory=set)

    def add(self, receipt: BlockReport) -> None:
        """Add a block that this run computed."""
        self.blocks += 1
        self.read += receipt.read
        self.wait += receipt.wait
        self.compute += receipt.compute
        self.write += receipt.write
        self.workers.add(receipt.worker)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the blocks were computed, as far as advice depends on it."""

    workers: int
    slots: int
    """Blocks that a worker has in hand at once."""
    in_process: bool
    local: bool
    """Whether the workers are on this machine."""
    gpu: bool
    precision: str
    bf16: bool | None = None
    """Whether the processor computes bf16 in hardware; None where that is not known."""
    tissue: bool = False
    """Whether `--tissue auto` is open to the run: an RGB slide of which everything is computed."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The part that took most of the time, and what would help."""

    part: Part
    shares: dict[Part, float]
    """Of the time that the devices were there, by what it went into; together 1."""
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
        """JSON-ready values."""
        return {
            "part": self.part,
            "shares": {part: round(share, 4) for part, share in self.shares.items()},
            "sure": self.sure,
            "what": self.what,
            "help": self.help,
        }


def find_bottleneck(
    seconds: dict[str, float], timings: Timings, setting: Setting
) -> Bottleneck | None:
    """The part that kept the devices from being done sooner; None where no block was computed.

    A device that computes is not kept waiting by anything. For the time it stood idle the slots
    answer: each was reading, writing, or had no block, and it is shared out among the three as
    their seconds are.

    Parameters
    ----------
    seconds
        Wall time of the parts of the run; ``blocks`` must be there.
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
    part = max(shares, key=lambda p: shares[p])
    rounds = timings.blocks / (setting.workers * setting.slots)
    sure = rounds >= ENOUGH_ROUNDS and wall >= ENOUGH_SECONDS
    what = _what(part, shares, timings, setting, rounds)
    others = {name: seconds[name] for name in _OTHERS if name in seconds}
    other = max(others, key=lambda name: others[name], default=None)
    if not sure:
        few = "block" if timings.blocks == 1 else "blocks"
        what += f" (a short run, {timings.blocks} {few} in {wall:.1f} s, from which little follows)"
    if other is not None and seconds[other] > wall:
        what += f"; {_OTHERS[other]} took longer than the blocks, {seconds[other]:.1f} s"
    return Bottleneck(part, shares, sure, what, _help(part, setting, rounds))


def _what(
    part: Part, shares: dict[Part, float], timings: Timings, setting: Setting, rounds: float
) -> str:
    device = "the GPU" if setting.gpu else "the device"
    device = (
        f"{device} was" if setting.workers == 1 else f"the {setting.workers} workers' devices were"
    )
    busy = f"{device} busy {shares['computing']:.0%} of the time"
    if part == "computing":
        return busy
    took = f"a block took {_mean(timings.read, timings)} to read, {_mean(timings.compute, timings)}"
    took += f" to compute, {_mean(timings.write, timings)} to write"
    if part == "waiting":
        reason = (
            f"there were {timings.blocks} blocks for {setting.workers * setting.slots} places"
            if rounds < ENOUGH_ROUNDS
            else "workers had no block in hand"
        )
        return f"{busy}: {reason}"
    return f"{busy}: {took}"


def _mean(total: float, timings: Timings) -> str:
    return f"{total / timings.blocks:.2g} s"


def _help(part: Part, setting: Setting, rounds: float) -> str:
    if part == "computing":
        return _faster_passes(setting)
    if part == "reading":
        if setting.local and setting.in_process:
            crowd = "or --workers 2 or more, which read more blocks at once"
        elif setting.local:
            crowd = "or more --workers"
        else:
            crowd = "or workers with more --nthreads, which read more blocks at once"
        return (
            "put the image on a local disk, or `tilepipe convert` it once to OME-Zarr, which "
            f"decodes fast in any order; {crowd}"
        )
    if part == "writing":
        return "write to a faster disk: `tilepipe doctor -o FOLDER` measures them"
    if rounds < ENOUGH_ROUNDS and setting.workers > 1:
        return "fewer workers do as well; a smaller --window makes more blocks"
    if rounds < ENOUGH_ROUNDS:
        return "nothing to gain but on larger images; a smaller --window makes more blocks"
    if setting.local:
        return "something else kept this machine busy: see `tilepipe doctor`"
    return (
        "the scheduler or the network is slow, or workers came late: see `tilepipe doctor "
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
        if setting.precision == "fp64":
            ways.append("--precision fp32")
        elif half and setting.bf16 is False:
            ways.append("--precision fp32, as this processor has no bf16 in hardware")
    if setting.tissue:
        ways.append("--tissue auto where much of the image is empty")
    return f"what would help: {_listed(ways)}"


def _listed(ways: list[str]) -> str:
    return ways[0] if len(ways) == 1 else ", ".join(ways[:-1]) + "; or " + ways[-1]
