"""What a run may use: workers, slots, memory; and what its plan will cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tilepipe.errors import InputError
from tilepipe.text import gigabytes

PROCESS = 450 * 10**6
"""Bytes of a worker process with torch and a small model loaded, before its first block."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Who computes a run, and with what, as far as its plan must know."""

    workers: int
    """Processes that hold a model; 1 for the worker inside this process."""
    in_process: bool
    slots: int
    """Blocks that one worker has in hand at once: read, computed, written."""
    local: bool = True
    """Whether the workers share this machine's memory."""
    gpu_memory: int | None = None
    """Bytes free on the GPU of each worker, where that is known."""
    threads: int = 0
    """CPU threads of one pass; 0 as long as they are not known."""
    device: str = "cpu"
    """``cpu`` or ``cuda``."""
    memory: int = 0
    """Bytes that a run takes by default: on this machine, or of the worker that has least."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Device, instruction set and versions that float results depend on."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan will cost on this machine; told to the user, not frozen."""

    memory: int
    """Bytes that all processes together will not exceed."""
    memory_limit: int
    seconds: float | None
    """Time of the forward passes, from a measured tile; None where it was not measured."""
    warnings: tuple[str, ...] = ()
    speeds: tuple[tuple[str, float], ...] = ()
    """Input pixels per second of each runtime, where they were measured."""


def check_workers(workers: int, limit: int) -> None:
    """Refuse more worker processes than the memory has room for, before any is started.

    Raises
    ------
    InputError
        Says how many there is room for.
    """
    if workers > 1 and workers * PROCESS > limit:
        raise InputError(
            f"workers {workers}: each takes at least {gigabytes(PROCESS)}, and the run "
            f"may take {gigabytes(limit)}, which is room for {limit // PROCESS}; use "
            "fewer, or allow more --memory"
        )
