"""The pipeline of a GPU, on a machine of our own that puts everything off as long as it may.

Nothing queued on a stream of the stand-in happens before somebody waits for it, and then streams
advance in random order, as far as their events allow. An order that was left to chance shows.
"""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.making import make_image, make_model
from tilepipe.engine.work.device import Device
from tilepipe.engine.work.gpu import BUFFERS, GpuPipeline, Slot, TorchCuda
from tilepipe.engine.work.torch_backend import TorchBackend
from tilepipe.errors import NonFiniteError
from tilepipe.models.unet import UNetArguments
from tilepipe.products.product import product_named


@dataclass(eq=False)
class Stream:
    """Work in order; an item is an event to wait for, one to record, or something to do."""

    todo: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Event:
    happened: bool = False


@dataclass(eq=False)
class Wait:
    event: Event


BOTH = (product_named("labels"), product_named("probabilities:float32"))


class LazyHardware:
    """Streams and events without a GPU."""

    def __init__(self, seed: int = 0, captures: bool = True) -> None:
        self._streams: list[Stream] = []
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._captures = captures
        self.captured = 0
        self.log: list[str] = []

    def stream(self) -> Stream:
        self._streams.append(Stream())
        return self._streams[-1]

    def pinned(self, like: Tensor) -> Tensor:
        return torch.empty_like(like)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    def _queue(self, stream: Stream, item: Any) -> None:
        with self._lock:
            stream.todo.append(item)

    def copy(self, target: Tensor, source: Tensor, stream: Stream) -> None:
        self._queue(stream, lambda: target.copy_(source))

    def launch(self, work: Callable[[], None], stream: Stream) -> None:
        self._queue(stream, work)

    def record(self, stream: Stream) -> Event:
        event = Event()
        self._queue(stream, event)
        return event

    def wait(self, stream: Stream, event: Event) -> None:
        self._queue(stream, Wait(event))

    def synchronise(self, event: Event) -> None:
        with self._lock, torch.inference_mode():
            while not event.happened:
                ready = [
                    stream
                    for stream in self._streams
                    if stream.todo
                    and (not isinstance(stream.todo[0], Wait) or stream.todo[0].event.happened)
                ]
                assert ready, "streams wait for each other for ever"
                item = self._random.choice(ready).todo.pop(0)
                if isinstance(item, Event):
                    item.happened = True
                elif not isinstance(item, Wait):
                    item()

    def capture(self, work: Callable[[], None], stream: Stream) -> Callable[[], None]:
        if not self._captures:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captured += 1
        return work


SHAPE = (6, 5, 2)


def summed(pixels: Tensor, holes: Tensor) -> tuple[Tensor, ...]:
    return pixels.int().masked_fill(holes, -1).sum(2), pixels.sum()


def windows(count: int) -> list[tuple[Tensor, Tensor | None]]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)
    holes = torch.rand((count, *SHAPE), generator=generator) < 0.3
    # In single bands, in whole pixels, nowhere.
    kinds = [lambda one: one, lambda one: one[..., :1], lambda one: None]
    return [(pixels[i], kinds[i % 3](holes[i])) for i in range(count)]


def through(
    pipeline: GpuPipeline, given: list[tuple[Tensor, Tensor | None]]
) -> list[tuple[Tensor, ...]]:
    """What comes of windows that are begun on one thread and finished on another."""
    with ThreadPoolExecutor(1) as other:
        futures = [other.submit(pipeline.finish, pipeline.begin(*window)) for window in given]
        return [future.result() for future in futures]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("captures", [True, False])
def test_every_window_gets_its_own_answer_in_whatever_order_streams_advance(
    seed: int, captures: bool
) -> None:
    hardware = LazyHardware(seed, captures)
    pipeline = GpuPipeline(summed, SHAPE, torch.uint8, hardware)
    assert pipeline.graphs is captures
    assert hardware.captured == (BUFFERS if captures else 0)
    given = windows(12)
    for (pixels, holes), made in zip(given, through(pipeline, given), strict=True):
        nowhere = torch.zeros(SHAPE, dtype=torch.bool)
        expected = summed(pixels, nowhere if holes is None else holes)
        assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))


class Forgetful(LazyHardware):
    """Forgets to let one stream wait for another."""

    def __init__(self, seed: int, forgotten: int) -> None:
        super().__init__(seed)
        self._forgotten, self._asked = forgotten, 0

    def wait(self, stream: Stream, event: Event) -> None:
        self._asked += 1
        if self._asked % 2 != self._forgotten:
            super().wait(stream, event)


@pytest.mark.parametrize("forgotten", [0, 1])
def test_the_stand_in_would_show_a_missing_event(forgotten: int) -> None:
    wrong = 0
    for seed in range(10):
        given = windows(12)
        made = through(GpuPipeline(summed, SHAPE, torch.uint8, Forgetful(seed, forgotten)), given)
        wrong += any(int(m[1]) != int(g[0].sum()) for m, g in zip(made, given, strict=True))
    assert wrong


def test_no_more_windows_are_under_way_than_there_are_buffers() -> None:
    pipeline = GpuPipeline(summed, SHAPE, torch.uint8, LazyHardware())
    given = windows(BUFFERS + 1)
    slots = [pipeline.begin(*window) for window in given[:-1]]
    assert len({id(slot) for slot in slots}) == BUFFERS
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(pipeline.begin, *given[-1])
        assert not waiting.done()
        pipeline.finish(slots[0])
        assert waiting.result() is slots[0]


def test_a_window_that_cannot_be_sent_gives_its_buffers_back() -> None:
    pipeline = GpuPipeline(summed, SHAPE, torch.uint8, LazyHardware())
    for _ in range(BUFFERS + 1):
        with pytest.raises(RuntimeError):
            pipeline.begin(torch.zeros((1, 2, 3, 4)), None)
    given = windows(3)
    assert len(through(pipeline, given)) == 3


class PipelinedBackend(TorchBackend):
    """Torch on the CPU, in the pipeline of a GPU."""

    hardware: LazyHardware | None = None

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        self.pipelined = True

    def _hardware(self) -> LazyHardware:
        self.hardware = LazyHardware()
        return self.hardware


class Pipelined(Device):
    """A device whose windows take the pipeline of a GPU, on the CPU."""

    def _open(self, *how: Any) -> PipelinedBackend:
        return PipelinedBackend(*how)

    @property
    def hardware(self) -> LazyHardware | None:
        assert isinstance(self.backend, PipelinedBackend)
        return self.backend.hardware


def test_a_device_answers_through_its_lane_as_without_one() -> None:
    model = make_model(UNetArguments(width=2, depth=2, outputs=3))
    geometry = model.geometry
    side = geometry.input_for(64)
    plain, pipelined = Device(model, "cpu", "fp32", 1), Pipelined(model, "cpu", "fp32", 1)
    image = make_image(4 * side, side)
    valid = np.ones((side, side), np.bool_)
    valid[side // 2 :, : side // 2] = False
    try:
        submitted = []
        for i in range(4):
            pixels = image[i * side : (i + 1) * side]
            seen = valid[..., None] if i % 2 else None
            submitted.append((pixels, seen, pipelined.answer(pixels, seen, (64, 64), BOTH)))
        for pixels, seen, future in submitted:
            found, expected = future.result(), plain.answer(pixels, seen, (64, 64), BOTH).result()
            assert found.mask.dtype == np.uint8
            np.testing.assert_array_equal(found.mask, expected.mask)
            np.testing.assert_array_equal(found.arrays[1], expected.arrays[1])
            assert found.seconds > 0
        first = pipelined.hardware
        smaller = pipelined.answer(image[: side - 16, :side], None, (48, 64)).result()
        assert smaller.mask.shape == (48, 64)
        assert pipelined.hardware is not first, "another shape has a pipeline of its own"
    finally:
        plain.close()
        pipelined.close()


def test_a_lane_makes_no_labels_of_what_is_not_finite() -> None:
    model = make_model(UNetArguments(width=2, depth=1), dtype="float32")
    side = model.geometry.input_for(32)
    pixels = make_image(side, side).astype(np.float32)
    pipelined = Pipelined(model, "cpu", "fp32", 1)
    try:
        assert pipelined.answer(pixels, None, (32, 32)).result().mask.shape == (32, 32)
        with pytest.raises(NonFiniteError, match="not finite in fp32"):
            pipelined.answer(np.full_like(pixels, np.inf), None, (32, 32)).result()
        assert pipelined.answer(pixels, None, (32, 32)).result().mask.shape == (32, 32)
    finally:
        pipelined.close()


def test_graphs_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(UNetArguments(width=1, depth=1))
    side = model.geometry.input_for(32)
    for setting, captured in (("0", 0), ("1", BUFFERS)):
        monkeypatch.setenv("TILEPIPE_CUDA_GRAPHS", setting)
        pipelined = Pipelined(model, "cpu", "fp32", 1)
        pipelined.answer(make_image(side, side), None, (32, 32)).result()
        assert pipelined.hardware is not None
        assert pipelined.hardware.captured == captured
        pipelined.close()


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@needs_cuda
@pytest.mark.parametrize("graphs", [True, False])
def test_a_real_gpu_gives_each_window_its_own_answer(graphs: bool) -> None:
    pipeline = GpuPipeline(summed, SHAPE, torch.uint8, TorchCuda(torch.device("cuda")), graphs)
    assert pipeline.graphs is graphs
    given = windows(12)
    for (pixels, holes), made in zip(given, through(pipeline, given), strict=True):
        nowhere = torch.zeros(SHAPE, dtype=torch.bool)
        expected = summed(pixels, nowhere if holes is None else holes)
        assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_gives_the_labels_of_the_launches_it_replays(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = make_image(572, 572)
    masks = []
    for setting in ("0", "1"):
        monkeypatch.setenv("TILEPIPE_CUDA_GRAPHS", setting)
        runner = Device(make_model(UNetArguments(width=4)), "cuda", precision, threads=1)
        masks.append([runner.answer(pixels, None, (384, 384)).result().mask for _ in range(3)])
        assert isinstance(runner.backend, TorchBackend)
        assert runner.backend.pipeline is not None
        assert runner.backend.pipeline[1].graphs is (setting == "1")
        runner.close()
    assert all(np.array_equal(mask, masks[0][0]) for mask in masks[0] + masks[1])


def test_slots_hold_what_the_host_and_the_gpu_share() -> None:
    pipeline = GpuPipeline(summed, SHAPE, torch.uint8, LazyHardware())
    slot: Slot = pipeline.begin(*windows(1)[0])
    assert [t.dtype for t in slot.host_in] == [torch.uint8, torch.bool]
    assert [tuple(t.shape) for t in slot.host_out] == [(6, 5), ()]
    pipeline.finish(slot)


def test_a_device_that_is_closed_leaves_no_buffers_behind() -> None:
    model = make_model(UNetArguments(width=1, depth=1))
    side = model.geometry.input_for(32)
    gc.collect()
    gc.disable()  # what refers to itself would be found only some time later
    try:
        pipelined = Pipelined(model, "cpu", "fp32", 1)
        pipelined.answer(make_image(side, side), None, (32, 32)).result()
        assert isinstance(pipelined.backend, TorchBackend)
        assert pipelined.backend.pipeline is not None
        held = weakref.ref(pipelined.backend.pipeline[1])
        pipelined.close()
        assert held() is None
    finally:
        gc.enable()
