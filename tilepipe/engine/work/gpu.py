"""The pipeline of a GPU: windows are copied in, computed and copied out at the same time.

Three streams, and two windows under way: while one is computed, the next comes in and the last
goes out. Every buffer has one fixed shape, so that the computation can be captured once as a CUDA
graph and replayed, which saves launching each of its hundred kernels.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tilepipe._torch import Tensor, torch

BUFFERS = 2
"""Windows in the pipeline at once; a third would only wait."""

Work = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""Turns pixels (height, width, bands) and where they hold no data, of the same shape, into tensors
of fixed shapes, without reading a value on the host."""


class Hardware(Protocol):
    """The part of torch.cuda that the pipeline uses; tests replace it by a machine of their own."""

    def stream(self) -> Any:
        """A new queue of work, in order within itself alone."""
        ...

    def pinned(self, like: Tensor) -> Tensor:
        """Allocate memory of the host that is copied from and to without waiting."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Allocate memory of the GPU."""
        ...

    def copy(self, target: Tensor, source: Tensor, stream: Any) -> None:
        """Queue a copy."""
        ...

    def launch(self, work: Callable[[], None], stream: Any) -> None:
        """Queue a computation."""
        ...

    def record(self, stream: Any) -> Any:
        """Return an event that occurs when all that was queued on a stream until now is done."""
        ...

    def wait(self, stream: Any, event: Any) -> None:
        """Let whatever is queued from now on begin after an event."""
        ...

    def synchronise(self, event: Any) -> None:
        """Block the caller until an event."""
        ...

    def capture(self, work: Callable[[], None], stream: Any) -> Callable[[], None]:
        """Capture what ``work`` launches; returns its replay, or raises RuntimeError."""
        ...


class TorchCuda:
    """The pipeline's hardware on a real GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def stream(self) -> Any:
        """A new queue of work, in order within itself alone."""
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def pinned(self, like: Tensor) -> Tensor:
        """Allocate memory of the host that is copied from and to without waiting."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Allocate memory of the GPU."""
        return torch.empty(shape, dtype=dtype, device=self._device)

    def copy(self, target: Tensor, source: Tensor, stream: Any) -> None:
        """Queue a copy."""
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)

    def launch(self, work: Callable[[], None], stream: Any) -> None:
        """Queue a computation."""
        with torch.cuda.stream(stream):
            work()

    def record(self, stream: Any) -> Any:
        """Return an event that occurs when all that was queued on a stream until now is done."""
        return stream.record_event()

    def wait(self, stream: Any, event: Any) -> None:
        """Let whatever is queued from now on begin after an event."""
        stream.wait_event(event)

    def synchronise(self, event: Any) -> None:
        """Block the caller until an event."""
        event.synchronize()

    def capture(self, work: Callable[[], None], stream: Any) -> Callable[[], None]:
        """Capture what ``work`` launches; returns its replay.

        The graphs of a pipeline run one after another, and so share memory.
        """
        torch.cuda.synchronize(self._device)
        # The memory of warming up is of no use to a graph, which has its own.
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        # Only this thread is captured: others may wait for events meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
        ):
            work()
        self._pool = graph.pool()
        return graph.replay


@dataclass(slots=True)
class Slot:
    """The buffers of one window under way."""

    host_in: tuple[Tensor, Tensor]
    """Pinned: pixels, and where there is no data."""
    device_in: tuple[Tensor, Tensor]
    """The same on the GPU."""
    device_out: tuple[Tensor, ...] = ()
    """The results on the GPU."""
    host_out: tuple[Tensor, ...] = ()
    """Pinned: the results, copied out."""
    run: Callable[[], None] | None = None
    """Computes `device_out` from `device_in`."""
    holes: bool = True
    """Whether `device_in` may mark some pixels as holding no data."""
    done: Any = None
    """The event after which `host_out` is complete."""


class GpuPipeline:
    """Windows of one shape through a GPU, in the order in which they are begun.

    `begin` is called from one thread, and `finish` from another, once for each slot and in order.
    `begin` waits while all buffers hold windows that are not finished.
    """

    def __init__(
        self, work: Work, shape: tuple[int, int, int], dtype: torch.dtype, hardware: Hardware,
        graphs: bool = True,
    ) -> None:  # fmt: skip
        self._work, self._hardware = work, hardware
        self._in, self._compute, self._out = (hardware.stream() for _ in range(3))
        self.graphs = graphs
        """Whether windows are computed by replaying a graph; False where none could be captured."""
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(self._make(shape, dtype))

    def begin(self, pixels: Tensor, holes: Tensor | None) -> Slot:
        """Queue a window.

        Parameters
        ----------
        pixels
            (height, width, bands).
        holes
            True where there is no data, (height, width, bands), or (height, width, 1) where all
            bands agree; None where all of it is data.
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
        """Wait for a window and return its results, in memory of their own."""
        try:
            self._hardware.synchronise(slot.done)
            return tuple(tensor.clone() for tensor in slot.host_out)
        finally:
            self._free.put(slot)

    def _send(self, slot: Slot, pixels: Tensor, holes: Tensor | None) -> None:
        hardware = self._hardware
        slot.host_in[0].copy_(pixels)
        hardware.copy(slot.device_in[0], slot.host_in[0], self._in)
        if holes is not None or slot.holes:
            slot.host_in[1].copy_(holes if holes is not None else torch.zeros(()))
            hardware.copy(slot.device_in[1], slot.host_in[1], self._in)
            slot.holes = holes is not None
        hardware.wait(self._compute, hardware.record(self._in))
        assert slot.run is not None
        hardware.launch(slot.run, self._compute)
        hardware.wait(self._out, hardware.record(self._compute))
        for target, source in zip(slot.host_out, slot.device_out, strict=True):
            hardware.copy(target, source, self._out)
        slot.done = hardware.record(self._out)

    def _make(self, shape: tuple[int, int, int], dtype: torch.dtype) -> Slot:
        # Neither this object nor the slot may be part of what is computed: memory of the GPU that
        # refers to itself would not be free for the next pipeline.
        hardware, work = self._hardware, self._work
        device_in = hardware.empty(shape, dtype), hardware.empty(shape, torch.bool)
        slot = Slot((hardware.pinned(device_in[0]), hardware.pinned(device_in[1])), device_in)
        for source, target in zip(slot.host_in, device_in, strict=True):
            hardware.copy(target, source.zero_(), self._compute)
        device_out: list[Tensor] = []

        def first() -> None:
            # Once outside a graph: libraries initialise, and shapes become known.
            device_out.extend(torch.empty_like(tensor) for tensor in work(*device_in))

        def compute() -> None:
            for target, source in zip(device_out, work(*device_in), strict=True):
                target.copy_(source)

        hardware.launch(first, self._compute)
        hardware.synchronise(hardware.record(self._compute))
        slot.device_out = tuple(device_out)
        slot.host_out = tuple(hardware.pinned(tensor) for tensor in device_out)
        slot.run = compute
        if self.graphs:
            try:
                slot.run = hardware.capture(compute, self._compute)
            except RuntimeError:
                # Slower, with the same results: every kernel is launched by itself.
                self.graphs = False
        return slot


def graphs_allowed() -> bool:
    """Whether CUDA graphs may be used: the variable ``TILEPIPE_CUDA_GRAPHS`` is not 0."""
    return os.environ.get("TILEPIPE_CUDA_GRAPHS", "1") != "0"


def make_deterministic(device: torch.device) -> None:
    """Make a GPU compute the same bits every time."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device.index is not None:
        torch.cuda.set_device(device)  # of this thread
