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
    the time. What it chose for a shape is kept. So the first pass of each shape gets no more room
    than it needs, at most twice that, and another window of that shape, or a GPU that is fuller,
    gives the same bits.
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
        Raises ``cuda.OutOfMemoryError`` where the memory is not enough, and may be done again.
    cuda
        ``torch.cuda``.
    """
    cuda.empty_cache()  # or what is kept of earlier passes would be room too
    total, room = cuda.mem_get_info()[1], ROOM
    try:
        while True:
            share = (cuda.memory_reserved() + room) / total
            cuda.set_per_process_memory_fraction(min(1.0, share))
            try:
                work()
                cuda.synchronize()
            except cuda.OutOfMemoryError:
                if share >= 1:
                    raise
                cuda.empty_cache()
                room *= 2
            else:
                return
    finally:
        cuda.set_per_process_memory_fraction(1.0)
