"""The lane of a GPU: windows copied in, computed and copied out at the same time.

Three streams, and two windows under way: while one is computed, the next comes in and the last
goes out. Every buffer is of one fixed shape, so that what is computed can be captured once as a
CUDA graph and replayed, which spares the launch of each of its hundred kernels.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tilepipe._torch import Tensor, torch

BUFFERS = 2
"""Windows under way at once; a third would only wait."""

Work = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""From pixels (height, width, bands) and where they are no data, of the same shape, to tensors of
fixed shapes, without looking at a value on the host."""


class Hardware(Protocol):
    """What the lane asks of torch.cuda; tests put a machine of their own in its place."""

    def stream(self) -> Any:
        """A new queue of work, in order within itself alone."""
        ...

    def pinned(self, like: Tensor) -> Tensor:
        """Memory of the host that copies need not wait for."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of the GPU."""
        ...

    def copy(self, target: Tensor, source: Tensor, stream: Any) -> None:
        """Queue a copy."""
        ...

    def launch(self, work: Callable[[], None], stream: Any) -> None:
        """Queue what computes."""
        ...

    def record(self, stream: Any) -> Any:
        """An event: all that was queued on a stream until now."""
        ...

    def wait(self, stream: Any, event: Any) -> None:
        """Let what is queued from now on begin after an event."""
        ...

    def synchronise(self, event: Any) -> None:
        """Block the caller until an event."""
        ...

    def capture(self, work: Callable[[], None], stream: Any) -> Callable[[], None]:
        """The replay of what ``work`` launches; RuntimeError where it cannot be captured."""
        ...


class TorchCuda:
    """The real one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def stream(self) -> Any:
        """A new queue of work, in order within itself alone."""
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def pinned(self, like: Tensor) -> Tensor:
        """Memory of the host that copies need not wait for."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of the GPU."""
        return torch.empty(shape, dtype=dtype, device=self._device)

    def copy(self, target: Tensor, source: Tensor, stream: Any) -> None:
        """Queue a copy."""
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)

    def launch(self, work: Callable[[], None], stream: Any) -> None:
        """Queue what computes."""
        with torch.cuda.stream(stream):
            work()

    def record(self, stream: Any) -> Any:
        """An event: all that was queued on a stream until now."""
        return stream.record_event()

    def wait(self, stream: Any, event: Any) -> None:
        """Let what is queued from now on begin after an event."""
        stream.wait_event(event)

    def synchronise(self, event: Any) -> None:
        """Block the caller until an event."""
        event.synchronize()

    def capture(self, work: Callable[[], None], stream: Any) -> Callable[[], None]:
        """The replay of what ``work`` launches.

        The graphs of a lane run one after the other, and so share the memory of what they compute.
        """
        torch.cuda.synchronize(self._device)
        # What warming up took is no use to a graph, which has memory of its own.
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        # Of this thread's doing alone: others may wait for events meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
        ):
            work()
        self._pool = graph.pool()
        return graph.replay


@dataclass(slots=True)
class Slot:
    """The buffers of one window under way."""

    given: tuple[Tensor, Tensor]
    """Pinned: pixels, and where there is no data."""
    inside: tuple[Tensor, Tensor]
    """The same on the GPU."""
    made: tuple[Tensor, ...] = ()
    """On the GPU: what was computed."""
    taken: tuple[Tensor, ...] = ()
    """Pinned: the same, copied out."""
    run: Callable[[], None] | None = None
    """What computes, from `inside` into `made`."""
    holes: bool = True
    """Whether `inside` may say of some pixels that there is no data."""
    done: Any = None
    """Event: `taken` is there."""


class GpuPipeline:
    """Windows of one shape through a GPU, in the order in which they are begun.

    `begin` is called from one thread, and `finish` from another, once for each ticket and in
    order. `begin` waits while as many windows as there are buffers are not finished.
    """

    def __init__(
        self, work: Work, shape: tuple[int, int, int], dtype: torch.dtype, hardware: Hardware,
        graphs: bool = True,
    ) -> None:  # fmt: skip
        self._work, self._hardware = work, hardware
        self._in, self._compute, self._out = (hardware.stream() for _ in range(3))
        self.graphs = graphs
        """Whether windows are computed by replaying a graph; false where none could be captured."""
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(self._make(shape, dtype))

    def begin(self, pixels: Tensor, holes: Tensor | None) -> Slot:
        """Send a window on its way.

        Parameters
        ----------
        pixels
            (height, width, bands).
        holes
            True where there is no data, (height, width, bands), or (height, width, 1) where all
            bands agree; None where there is all of it.
        """
        slot = self._free.get()  # finished: nothing on the GPU uses its buffers any more
        try:
            self._send(slot, pixels, holes)
        except BaseException:
            for stream in (self._in, self._compute, self._out):
                self._hardware.synchronise(self._hardware.record(stream))
            self._free.put(slot)
            raise
        return slot

    def finish(self, slot: Slot) -> tuple[Tensor, ...]:
        """Wait for a window and take what was computed, in memory of its own."""
        try:
            self._hardware.synchronise(slot.done)
            return tuple(tensor.clone() for tensor in slot.taken)
        finally:
            self._free.put(slot)

    def _send(self, slot: Slot, pixels: Tensor, holes: Tensor | None) -> None:
        hardware = self._hardware
        slot.given[0].copy_(pixels)
        hardware.copy(slot.inside[0], slot.given[0], self._in)
        if holes is not None or slot.holes:
            slot.given[1].copy_(holes if holes is not None else torch.zeros(()))
            hardware.copy(slot.inside[1], slot.given[1], self._in)
            slot.holes = holes is not None
        hardware.wait(self._compute, hardware.record(self._in))
        assert slot.run is not None
        hardware.launch(slot.run, self._compute)
        hardware.wait(self._out, hardware.record(self._compute))
        for target, source in zip(slot.taken, slot.made, strict=True):
            hardware.copy(target, source, self._out)
        slot.done = hardware.record(self._out)

    def _make(self, shape: tuple[int, int, int], dtype: torch.dtype) -> Slot:
        hardware = self._hardware
        inside = hardware.empty(shape, dtype), hardware.empty(shape, torch.bool)
        slot = Slot((hardware.pinned(inside[0]), hardware.pinned(inside[1])), inside)
        for given, target in zip(slot.given, inside, strict=True):
            hardware.copy(target, given.zero_(), self._compute)

        def first() -> None:
            # Once outside of a graph: libraries set themselves up, and the shapes are known.
            slot.made = tuple(torch.empty_like(tensor) for tensor in self._work(*inside))

        def compute() -> None:
            for target, source in zip(slot.made, self._work(*inside), strict=True):
                target.copy_(source)

        hardware.launch(first, self._compute)
        hardware.synchronise(hardware.record(self._compute))
        slot.taken = tuple(hardware.pinned(tensor) for tensor in slot.made)
        slot.run = compute
        if self.graphs:
            try:
                slot.run = hardware.capture(compute, self._compute)
            except RuntimeError:
                # Slower, and the same: every kernel is launched by itself.
                self.graphs = False
        return slot


def graphs_allowed() -> bool:
    """Whether CUDA graphs may be used: unless ``TILEPIPE_CUDA_GRAPHS`` is 0."""
    return os.environ.get("TILEPIPE_CUDA_GRAPHS", "1") != "0"


def make_deterministic(device: torch.device) -> None:
    """Make a GPU compute alike every time, and fp32 in float32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device.index is not None:
        torch.cuda.set_device(device)  # of this thread
