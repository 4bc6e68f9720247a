"""The device: pixels of one window in, the products of its kept outputs out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilepipe._torch import Tensor, torch
from tilepipe.engine.work.allocator import steady_allocator
from tilepipe.engine.work.gpu import (
    GpuPipeline,
    Hardware,
    Slot,
    TorchCuda,
    graphs_allowed,
    make_deterministic,
)
from tilepipe.errors import InputError, NonFiniteError
from tilepipe.images.validity import Validity, in_any_band
from tilepipe.models.precision import Precision
from tilepipe.models.ready import ReadyModel
from tilepipe.models.specs import Model
from tilepipe.products.product import Product, main_product


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network predicts for one tile."""

    arrays: tuple[NDArray[Any], ...]
    """One for each product asked for, in its stored form: (height, width) or (C, height, width)."""
    seconds: float = 0.0
    """Time for which the device worked on it."""

    @property
    def mask(self) -> NDArray[Any]:
        """The first product."""
        return self.arrays[0]


class Request(NamedTuple):
    """One window to be computed."""

    pixels: NDArray[Any]
    valid: Validity | None
    keep: tuple[int, int]
    products: tuple[Product, ...]

    @property
    def holes(self) -> Tensor | None:
        """Where there is no data."""
        return None if self.valid is None else torch.from_numpy(~self.valid)


class Device:
    """A model on a CPU or GPU, with one thread of its own on which every pass runs.

    The single thread is the lock on the device, keeps one pool of OpenMP threads instead of one per
    caller, and fixes how many threads take part in a pass, on which float results depend. On a GPU
    it only queues windows, and a second thread waits for their results.
    """

    def __init__(
        self, model: Model, device: str, precision: str, threads: int, runtime: str | None = None
    ) -> None:
        # Not the model itself: its weights are free once the runtime has its own.
        self.geometry, self.output = model.geometry, model.output
        self.device = torch.device(device)
        self.precision = Precision(precision)
        self.submit_lock = threading.Lock()
        """Held while a block's tiles are submitted, so that they are computed one after another."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tilepipe-device")
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="tilepipe-finish")
        self._pipeline: tuple[Any, GpuPipeline] | None = None
        self._finished = 0.0
        try:
            runtime = runtime or model.predictor.runtimes[0]
            self._ready = self._thread.submit(self._prepare, model, threads, runtime).result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the device's threads and release the network."""
        self._thread.shutdown(wait=True)
        self._finisher.shutdown(wait=True)
        self._pipeline = None

    def answer(
        self,
        pixels: NDArray[Any],
        valid: Validity | None,
        keep: tuple[int, int],
        products: tuple[Product, ...] | None = None,
    ) -> Future[Prediction]:
        """Submit one window.

        Parameters
        ----------
        pixels
            (height, width, bands), in the image's own dtype.
        valid
            False where there is no data, (height, width, bands), or (height, width, 1) where all
            bands agree; None where all of it is data.
        keep
            (rows, columns) of outputs kept, from the model's margin on.
        products
            What to make of them; by default the model's mask.

        Raises
        ------
        NonFiniteError
            On the future, when the network's logits are not finite.
        """
        request = Request(pixels, valid, keep, products or (main_product(self.output),))
        if not self._pipelined:
            return self._thread.submit(self._compute, request)
        future: Future[Prediction] = Future()
        self._thread.submit(self._begin, future, request)
        return future

    def logits(
        self, pixels: NDArray[Any], valid: Validity | None, keep: tuple[int, int]
    ) -> NDArray[np.float64]:
        """The logits of one window, (outputs, rows, columns), for `verify`."""

        def work() -> NDArray[np.float64]:
            with torch.inference_mode():
                # On the CPU: not every device has float64.
                logits = self._pass(Request(pixels, valid, keep, ())).cpu().double()[0]
            return np.asarray(logits.numpy())

        return self._thread.submit(work).result()

    @property
    def _pipelined(self) -> bool:
        return self.device.type == "cuda" and self._ready.runtime.on_stream

    def _prepare(self, model: Model, threads: int, runtime: str) -> ReadyModel:
        torch.set_num_threads(threads)
        steady_allocator()
        if self.device.type == "cuda":
            make_deterministic(self.device)
        return ReadyModel(model, self.device, self.precision, threads, runtime)

    def _pass(self, request: Request) -> Tensor:
        """The logits of a window, on the device; all of them are finite."""
        pixels = torch.from_numpy(np.ascontiguousarray(request.pixels)).to(self.device)
        holes = request.holes
        holes = None if holes is None else holes.to(self.device)
        logits = self._ready.predict(pixels, holes, request.keep)
        # A sum is finite only if all of it is, and costs one number instead of a plane of them;
        # it may overflow by itself, hence the second look.
        if not bool(logits.float().sum().isfinite()) and not bool(logits.isfinite().all()):
            raise self._not_finite()
        return logits

    def _not_finite(self) -> NonFiniteError:
        advice = (
            "half precision overflows here: use --precision bf16 or fp32"
            if self.precision is Precision.FP16
            else "check the image's values and the model's normalisation"
        )
        return NonFiniteError(f"the network's logits are not finite in {self.precision}; {advice}")

    def _compute(self, request: Request) -> Prediction:
        begin = time.perf_counter()
        with torch.inference_mode():
            logits = self._pass(request)
            encoded = [array.cpu().numpy()[0] for array in self._encoded(request, logits)]
        seconds = time.perf_counter() - begin
        return self._prediction(request, encoded, seconds)

    def _encoded(self, request: Request, logits: Tensor) -> Iterator[Tensor]:
        """Each product of the logits, in memory of its own."""
        used = {logits.untyped_storage().data_ptr()} if len(request.products) > 1 else set()
        for product in request.products:
            encoded = product.encode(logits, self.output)
            memory = encoded.untyped_storage().data_ptr()
            yield encoded.clone() if memory in used else encoded
            used.add(memory)

    def _prediction(
        self, request: Request, encoded: Sequence[NDArray[Any]], seconds: float
    ) -> Prediction:
        """What came from the device, in its stored form, and no answer where no band has data."""
        invalid = None
        if request.valid is not None:
            margin, (rows, columns) = self.geometry.margin, request.keep
            kept = request.valid[margin : margin + rows, margin : margin + columns]
            invalid = ~in_any_band(kept)
        arrays = []
        for product, array in zip(request.products, encoded, strict=True):
            stored = product.stored(array)
            planes = product.shape(len(self.output.classes), request.keep)
            if stored.dtype != product.dtype or stored.shape != planes:
                raise InputError(
                    f"product {product.name}: made {stored.dtype} of shape {stored.shape}, not "
                    f"{product.dtype} of shape {planes}"
                )
            if invalid is not None:
                stored[..., invalid] = product.fill
            arrays.append(stored)
        return Prediction(tuple(arrays), seconds)

    def _begin(self, future: Future[Prediction], request: Request) -> None:
        """Queue a window on the GPU, and leave it to the other thread to wait for it."""
        try:
            pixels = torch.from_numpy(np.ascontiguousarray(request.pixels))
            with torch.inference_mode():
                pipeline = self._pipeline_for(pixels, request.keep, request.products)
                slot = pipeline.begin(pixels, request.holes)
            self._finisher.submit(
                self._finish, future, request, pipeline, slot, time.perf_counter()
            )
        except BaseException as error:  # raised where the future is awaited
            future.set_exception(error)

    def _finish(
        self,
        future: Future[Prediction],
        request: Request,
        pipeline: GpuPipeline,
        slot: Slot,
        begun: float,
    ) -> None:
        try:
            with torch.inference_mode():
                finite, *encoded = (tensor.numpy() for tensor in pipeline.finish(slot))
            now = time.perf_counter()
            seconds, self._finished = now - max(begun, self._finished), now
            if not finite:
                raise self._not_finite()
            planes = [array[0] for array in encoded]
            future.set_result(self._prediction(request, planes, seconds))
        except BaseException as error:  # raised where the future is awaited
            future.set_exception(error)

    def _pipeline_for(
        self, pixels: Tensor, keep: tuple[int, int], products: tuple[Product, ...]
    ) -> GpuPipeline:
        """The pipeline of windows of this shape; all windows of a run have the same."""
        key = (tuple(pixels.shape), pixels.dtype, keep, products)
        if self._pipeline is None or self._pipeline[0] != key:

            def work(x: Tensor, holes: Tensor) -> tuple[Tensor, ...]:
                logits = self._ready.predict(x, holes, keep)
                encoded = (product.encode(logits, self.output) for product in products)
                return (logits.isfinite().all(), *encoded)

            # Windows under way keep the pipeline that they are in.
            self._pipeline = None
            height, width, bands = pixels.shape
            graphs = self._ready.runtime.capturable and graphs_allowed()
            shape = (height, width, bands)
            pipeline = GpuPipeline(work, shape, pixels.dtype, self._hardware(), graphs)
            self._pipeline = (key, pipeline)
        return self._pipeline[1]

    def _hardware(self) -> Hardware:
        return TorchCuda(self.device)
