"""Windows as torch's tensors, on a CPU or GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe._torch import Tensor, torch
from tilepipe.engine.work.backend import Backend, Request
from tilepipe.engine.work.gpu import (
    GpuPipeline,
    Hardware,
    Slot,
    TorchCuda,
    graphs_allowed,
    make_deterministic,
)
from tilepipe.models.float32 import keep_float32
from tilepipe.models.precision import Precision
from tilepipe.models.specs import Model
from tilepipe.products.product import Product


class TorchBackend(Backend):
    """A model that torch computes, or that is given torch's tensors."""

    def __init__(
        self, model: Model, device: str, precision: Precision, threads: int, runtime: str
    ) -> None:
        self._device = torch.device(device)
        torch.set_num_threads(threads)
        keep_float32(device)
        if self._device.type == "cuda":
            make_deterministic(self._device)
        super().__init__(model, device, precision, threads, runtime)
        self.pipelined = self._device.type == "cuda" and self.ready.runtime.on_stream
        self.pipeline: tuple[Any, GpuPipeline] | None = None
        """The pipeline on a GPU, and the form of the windows that it is for."""

    def logits(self, request: Request) -> NDArray[np.float64]:
        """The logits of a window."""
        with torch.inference_mode():
            # On the CPU: not every device has float64.
            return np.asarray(self._pass(request).cpu().double()[0].numpy())

    def encoded(self, request: Request) -> list[NDArray[Any]]:
        """Each product of a window."""
        with torch.inference_mode():
            logits = self._pass(request)
            return [tensor.cpu().numpy()[0] for tensor in self._products(request, logits)]

    def begin(self, request: Request) -> tuple[GpuPipeline, Slot]:
        """Queue a window on the GPU."""
        pixels = torch.from_numpy(np.ascontiguousarray(request.pixels))
        with torch.inference_mode():
            pipeline = self._pipeline_for(pixels, request.keep, request.products)
            return pipeline, pipeline.begin(pixels, _tensor(request.holes))

    def finish(self, queued: tuple[GpuPipeline, Slot]) -> list[NDArray[Any]]:
        """Each product of a window that was queued, in another thread."""
        pipeline, slot = queued
        with torch.inference_mode():
            finite, *encoded = (tensor.numpy() for tensor in pipeline.finish(slot))
        if not finite:
            raise self.not_finite()
        return [array[0] for array in encoded]

    def close(self) -> None:
        """Release the memory of the device, which what is left of a window's work refers to."""
        self.pipeline = None

    def _pass(self, request: Request) -> Tensor:
        """The logits of a window, on the device; all of them are finite."""
        pixels = torch.from_numpy(np.ascontiguousarray(request.pixels)).to(self._device)
        holes = _tensor(request.holes)
        holes = None if holes is None else holes.to(self._device)
        logits: Tensor = self.ready.predict(pixels, holes, request.keep)
        # A sum is finite only if all of it is, and costs one number instead of a plane of them;
        # it may overflow by itself, hence the second look.
        if not bool(logits.float().sum().isfinite()) and not bool(logits.isfinite().all()):
            raise self.not_finite()
        return logits

    def _products(self, request: Request, logits: Tensor) -> Iterator[Tensor]:
        """Each product of the logits, in memory of its own."""
        used = {logits.untyped_storage().data_ptr()} if len(request.products) > 1 else set()
        for product in request.products:
            encoded = product.encode(logits, self.output)
            memory = encoded.untyped_storage().data_ptr()
            yield encoded.clone() if memory in used else encoded
            used.add(memory)

    def _pipeline_for(
        self, pixels: Tensor, keep: tuple[int, int], products: tuple[Product, ...]
    ) -> GpuPipeline:
        """The pipeline of windows of this shape; all windows of a run have the same."""
        key = (tuple(pixels.shape), pixels.dtype, keep, products)
        if self.pipeline is None or self.pipeline[0] != key:

            def work(x: Tensor, holes: Tensor) -> tuple[Tensor, ...]:
                logits = self.ready.predict(x, holes, keep)
                encoded = (product.encode(logits, self.output) for product in products)
                return (logits.isfinite().all(), *encoded)

            # Windows under way keep the pipeline that they are in.
            self.pipeline = None
            height, width, bands = pixels.shape
            graphs = self.ready.runtime.capturable and graphs_allowed()
            shape = (height, width, bands)
            pipeline = GpuPipeline(work, shape, pixels.dtype, self._hardware(), graphs)
            self.pipeline = (key, pipeline)
        return self.pipeline[1]

    def _hardware(self) -> Hardware:
        return TorchCuda(self._device)


def _tensor(array: NDArray[np.bool_] | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)
