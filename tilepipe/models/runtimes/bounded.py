"""Torch on an NVIDIA GPU in float32 and float64, with little memory for what cuDNN works in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilepipe._torch import Tensor, torch
from tilepipe.models.runtimes.eager import Eager

ROOM = 1 << 30
"""Bytes that the first pass of a shape may take; doubled until they are enough."""


class Bounded(Eager):
    """The network, layer by layer, by algorithms that need little memory.

    cuDNN prefers algorithms by Fourier transforms for some shapes of float32 as long as there is
    room for them, of which it may take nearly all of a GPU: 69 GiB for a pass of 2 GiB, and twice
    the time. What it chose for a shape is kept, as long as the memory for it is there. So the first
    pass of each shape gets no more room than it needs, at most twice that: then all windows of that
    shape are computed alike, also by the second graph of a pipeline, for which less is free.
    """

    def prepare(self, x: Tensor) -> None:
        """Let cuDNN choose algorithms that fit."""
        with_little_memory(lambda: self.network(x), torch.cuda)


def with_little_memory(work: Callable[[], object], cuda: Any) -> None:
    """Do some work on this thread's GPU with as little memory as it can do with, about.

    Meanwhile the same limit holds for whatever else this process does on the GPU.

    Parameters
    ----------
    work
        Raises RuntimeError where the memory is not enough, and may be done again.
    cuda
        ``torch.cuda``.
    """
    cuda.empty_cache()  # or what is kept of earlier passes would be room too
    total, room = cuda.mem_get_info()[1], ROOM
    # Torch 2.8 and later tell what the caller's program had set.
    before = getattr(cuda, "get_per_process_memory_fraction", lambda: 1.0)() or 1.0
    try:
        while True:
            share = min(before, (cuda.memory_reserved() + room) / total)
            cuda.set_per_process_memory_fraction(share)
            try:
                work()
                cuda.synchronize()
            except RuntimeError:
                # Out of memory; or torch found no algorithm that fits, which it words otherwise.
                if share >= before:
                    raise
                cuda.empty_cache()
                room *= 2
            else:
                return
    finally:
        cuda.set_per_process_memory_fraction(before)
