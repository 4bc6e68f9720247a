"""The resources of a run (workers, slots, memory), and the cost of its plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tilepipe.errors import InputError
from tilepipe.text import gigabytes

PROCESS = 450 * 10**6
"""Memory of a worker process with torch and a small model, before its first block, in bytes."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The workers of a run and what they have, as far as planning depends on it."""

    workers: int
    """Processes that hold a model; 1 for the worker inside this process."""
    in_process: bool
    """Whether the only worker is this process."""
    slots: int
    """Blocks that one worker handles at once: reading, computing, writing."""
    most_slots: int = 0
    """Blocks that it may handle at once where there is memory for them; 0: no more than `slots`."""
    local: bool = True
    """Whether the workers share this machine's memory."""
    gpu_memory: int | None = None
    """Free memory on the GPU of each worker in bytes, if known."""
    threads: int = 0
    """CPU threads of one pass; 0 while unknown."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``mps``."""
    memory: int = 0
    """The default memory limit in bytes: for this machine, or for the smallest worker."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Device, instruction set and versions that float results depend on."""


class Offer(NamedTuple):
    """An option that may make the run faster, for the user."""

    option: str
    """As on the command line: ``--precision int8``."""
    what: str
    """What follows it in a sentence: what it needs, and what it does."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a plan on this machine, for the user; not frozen with the plan."""

    memory: int
    """Bytes that all processes together will not exceed."""
    memory_limit: int
    seconds: float | None
    """Time of the forward passes, extrapolated from one tile; None if it was not measured."""
    warnings: tuple[str, ...] = ()
    speeds: tuple[tuple[str, float], ...] = ()
    """Input pixels per second of each runtime that was measured; with `--precision fastest`, of
    each precision, by the faster of its runtimes."""
    slots: int = 0
    """Blocks that a worker may handle at once."""
    offer: Offer | None = None
    """A faster precision that the user may ask for; None if there is none."""


def check_workers(workers: int, limit: int) -> None:
    """Raise InputError if the memory limit has no room for so many worker processes."""
    if workers > 1 and workers * PROCESS > limit:
        raise InputError(
            f"workers {workers}: each needs at least {gigabytes(PROCESS)}, and the memory limit is "
            f"{gigabytes(limit)}, enough for {limit // PROCESS}; use fewer, or allow more --memory"
        )
