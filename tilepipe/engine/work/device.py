"""The device: pixels of one window in, the products of its kept outputs out."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.work.allocator import steady_allocator
from tilepipe.engine.work.backend import Backend, Request
from tilepipe.errors import InputError
from tilepipe.images.validity import Validity, in_any_band
from tilepipe.models.float32 import require_float32
from tilepipe.models.onednn import reduced_float32
from tilepipe.models.precision import Precision
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
        self.submit_lock = threading.Lock()
        """Held while a block's tiles are submitted, so that they are computed one after another."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tilepipe-device")
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="tilepipe-finish")
        self._finished = 0.0
        self._opened: Backend | None = None
        self.device, self.precision = device, Precision(precision)
        how = device, self.precision, threads, runtime or model.predictor.runtimes[0]
        try:
            self._opened = self._thread.submit(self._open, model, *how).result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the device's threads and release the network."""
        self._thread.shutdown(wait=True)
        self._finisher.shutdown(wait=True)
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    @property
    def backend(self) -> Backend:
        """What computes."""
        assert self._opened is not None, "closed"
        return self._opened

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
        if not self.backend.pipelined:
            return self._thread.submit(self._compute, request)
        future: Future[Prediction] = Future()
        self._thread.submit(self._begin, future, request)
        return future

    def logits(
        self, pixels: NDArray[Any], valid: Validity | None, keep: tuple[int, int]
    ) -> NDArray[np.float64]:
        """The logits of one window, (outputs, rows, columns), for `verify`."""
        request = Request(pixels, valid, keep, ())
        return self._thread.submit(self.backend.logits, request).result()

    def _open(
        self, model: Model, device: str, precision: Precision, threads: int, runtime: str
    ) -> Backend:
        """What computes; torch is loaded only if it is torch."""
        if device == "cpu":
            require_float32(precision, runtime, reduced_float32())
        steady_allocator()
        if model.predictor.takes_arrays(runtime):
            from tilepipe.engine.work.array_backend import ArrayBackend

            return ArrayBackend(model, device, precision, threads, runtime)
        from tilepipe.engine.work.torch_backend import TorchBackend

        return TorchBackend(model, device, precision, threads, runtime)

    def _compute(self, request: Request) -> Prediction:
        begin = time.perf_counter()
        encoded = self.backend.encoded(request)
        seconds = time.perf_counter() - begin
        return self._prediction(request, encoded, seconds)

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
            begun = self.backend.begin(request)
            self._finisher.submit(self._finish, future, request, begun, time.perf_counter())
        except BaseException as error:  # raised where the future is awaited
            future.set_exception(error)

    def _finish(
        self, future: Future[Prediction], request: Request, queued: Any, begun: float
    ) -> None:
        try:
            encoded = self.backend.finish(queued)
            now = time.perf_counter()
            seconds, self._finished = now - max(begun, self._finished), now
            future.set_result(self._prediction(request, encoded, seconds))
        except BaseException as error:  # raised where the future is awaited
            future.set_exception(error)
