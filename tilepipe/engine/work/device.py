"""The device: pixels of one window in, labels (and probabilities) of its kept outputs back."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe._torch import Tensor, torch
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
from tilepipe.models.onnx_network import OnnxNetwork
from tilepipe.models.runtimes import check_runtime, open_runtime, versions
from tilepipe.products.product import Product, main_product

if TYPE_CHECKING:
    from tilepipe.models.file import Model


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network says of one tile."""

    arrays: tuple[NDArray[Any], ...]
    """One for each product asked for, in its stored form: (height, width) or (C, height, width)."""
    seconds: float = 0.0
    """For which the device was at work on it."""

    @property
    def mask(self) -> NDArray[Any]:
        """The first product."""
        return self.arrays[0]


class Device:
    """A model on a CPU or GPU, with one thread of its own on which every pass runs.

    The single thread is the lock on the device, keeps one pool of OpenMP threads instead of one a
    caller, and fixes the number of threads a pass takes part with, on which float results depend.
    On a GPU it only sets windows going, and a second thread waits for what comes of them.
    """

    def __init__(
        self, model: Model, device: str, precision: str, threads: int, runtime: str = "torch"
    ) -> None:
        self.model = model
        self.device = torch.device(device)
        self.precision = precision
        self.turn = threading.Lock()
        """Held while a block's tiles are submitted, so that they are computed one after another."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tilepipe-device")
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="tilepipe-finish")
        self._lane: tuple[Any, GpuPipeline] | None = None
        self._finished = 0.0
        try:
            self._thread.submit(self._prepare, threads, runtime).result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the device's threads and let go of the network."""
        self._thread.shutdown(wait=True)
        self._finisher.shutdown(wait=True)
        self._lane = None

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
            bands agree; None where all of it is.
        keep
            (rows, columns) of outputs kept, from the model's margin on.
        products
            What to make of them; by default the model's mask.

        Raises
        ------
        NonFiniteError
            On the future, when the network's logits are not finite.
        """
        products = products or (main_product(self.model.output),)
        if not self._in_lane:
            return self._thread.submit(self._answer, pixels, valid, keep, products)
        future: Future[Prediction] = Future()
        self._thread.submit(self._begin, future, pixels, valid, keep, products)
        return future

    def logits(
        self, pixels: NDArray[Any], valid: Validity | None, keep: tuple[int, int]
    ) -> NDArray[np.float64]:
        """The logits of one window, (outputs, rows, columns), for `verify`."""

        def work() -> NDArray[np.float64]:
            with torch.inference_mode():
                logits = self._pass(pixels, valid, keep).double().cpu()[0]
            return np.asarray(logits.numpy())

        return self._thread.submit(work).result()

    @property
    def _in_lane(self) -> bool:
        # An ONNX network goes through the memory of the machine; nothing of it overlaps.
        return self.device.type == "cuda" and not isinstance(self.model.network, OnnxNetwork)

    def _prepare(self, threads: int, runtime: str) -> None:
        torch.set_num_threads(threads)
        steady_allocator()
        if self.device.type == "cuda":
            make_deterministic(self.device)
        self._runtime = open_runtime(
            runtime, self.model.network, self.device, self.precision, threads
        )
        self._graphs = runtime == "torch" and graphs_allowed()
        spec = self.model.input

        def per_band(values: tuple[float, ...]) -> Tensor:
            kind = torch.float64 if self._runtime.dtype == torch.float64 else torch.float32
            return torch.tensor(values, dtype=kind, device=self.device)

        self._mean, self._std = per_band(spec.mean), per_band(spec.std)

    def _normalised(self, pixels: Tensor, holes: Tensor | None) -> Tensor:
        """The network's input, (1, bands, height, width), of pixels (height, width, bands)."""
        height, width, bands = pixels.shape
        # By rows of interleaved bands: three times as fast as by bands, and bit for bit the same.
        x = pixels.to(self._mean.dtype, copy=True).reshape(height, width * bands)
        x = x.mul_(self.model.input.scale)
        x = x.sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
        x = x.reshape(1, height, width, bands).permute(0, 3, 1, 2)
        if holes is not None:
            # Nodata enters as the model's mean, which is 0 here (and a NaN must not get in).
            x.masked_fill_(holes.permute(2, 0, 1)[None], 0.0)
        return x.to(dtype=self._runtime.dtype, memory_format=torch.channels_last)

    def _logits(self, pixels: Tensor, holes: Tensor | None, keep: tuple[int, int]) -> Tensor:
        logits = self._runtime(self._normalised(pixels, holes))
        return logits[(..., *self.model.geometry.crop(keep))]

    def _pass(self, pixels: NDArray[Any], valid: Validity | None, keep: tuple[int, int]) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        holes = None if valid is None else torch.from_numpy(~valid).to(self.device)
        logits = self._logits(x, holes, keep)
        # A sum is finite only if all of it is, and costs one number instead of a plane of them;
        # it may overflow by itself, hence the second look.
        if not bool(logits.float().sum().isfinite()) and not bool(logits.isfinite().all()):
            raise self._not_finite()
        return logits

    def _not_finite(self) -> NonFiniteError:
        return NonFiniteError(
            f"the network's logits are not finite in {self.precision}"
            + (
                "; half precision overflows here: use --precision bf16 or fp32"
                if self.precision == "fp16"
                else "; look at the image's values and the model's normalisation"
            )
        )

    def _answer(
        self,
        pixels: NDArray[Any],
        valid: Validity | None,
        keep: tuple[int, int],
        products: tuple[Product, ...],
    ) -> Prediction:
        begin = time.perf_counter()
        with torch.inference_mode():
            logits = self._pass(pixels, valid, keep)
            encoded = [p.encode(logits, self.model.output).cpu().numpy()[0] for p in products]
        seconds = time.perf_counter() - begin
        return self._prediction(encoded, products, valid, keep, seconds)

    def _prediction(
        self,
        encoded: Sequence[NDArray[Any]],
        products: tuple[Product, ...],
        valid: Validity | None,
        keep: tuple[int, int],
        seconds: float,
    ) -> Prediction:
        """What came from the device, in its stored form, and no answer where no band has data."""
        invalid = None
        if valid is not None:
            margin = self.model.geometry.margin
            invalid = ~in_any_band(valid[margin : margin + keep[0], margin : margin + keep[1]])
        arrays = []
        for product, array in zip(products, encoded, strict=True):
            stored = product.stored(array)
            if invalid is not None:
                stored[..., invalid] = product.fill
            arrays.append(stored)
        return Prediction(tuple(arrays), seconds)

    def _begin(
        self,
        future: Future[Prediction],
        pixels: NDArray[Any],
        valid: Validity | None,
        keep: tuple[int, int],
        products: tuple[Product, ...],
    ) -> None:
        """Set a window going on the GPU, and leave it to the other thread to wait for it."""
        try:
            given = torch.from_numpy(np.ascontiguousarray(pixels))
            holes = None if valid is None else torch.from_numpy(~valid)
            with torch.inference_mode():
                lane = self._lane_for(given, keep, products)
                slot = lane.begin(given, holes)
            self._finisher.submit(
                self._finish, future, lane, slot, products, valid, keep, time.perf_counter()
            )
        except BaseException as error:  # whoever waits is told
            future.set_exception(error)

    def _finish(
        self,
        future: Future[Prediction],
        lane: GpuPipeline,
        slot: Slot,
        products: tuple[Product, ...],
        valid: Validity | None,
        keep: tuple[int, int],
        begun: float,
    ) -> None:
        try:
            with torch.inference_mode():
                finite, *encoded = (tensor.numpy() for tensor in lane.finish(slot))
            now = time.perf_counter()
            seconds, self._finished = now - max(begun, self._finished), now
            if not finite:
                raise self._not_finite()
            planes = [array[0] for array in encoded]
            future.set_result(self._prediction(planes, products, valid, keep, seconds))
        except BaseException as error:  # whoever waits is told
            future.set_exception(error)

    def _lane_for(
        self, pixels: Tensor, keep: tuple[int, int], products: tuple[Product, ...]
    ) -> GpuPipeline:
        """The lane of windows of this kind; all windows of a run are of one."""
        key = (tuple(pixels.shape), pixels.dtype, keep, products)
        if self._lane is None or self._lane[0] != key:

            def work(x: Tensor, holes: Tensor) -> tuple[Tensor, ...]:
                logits = self._logits(x, holes, keep)
                encoded = (product.encode(logits, self.model.output) for product in products)
                return (logits.isfinite().all(), *encoded)

            # The windows under way keep the lane that they are in.
            self._lane = None
            height, width, bands = pixels.shape
            lane = GpuPipeline(
                work, (height, width, bands), pixels.dtype, self._hardware(), self._graphs
            )
            self._lane = (key, lane)
        return self._lane[1]

    def _hardware(self) -> Hardware:
        return TorchCuda(self.device)


@functools.cache
def steady_allocator() -> None:
    """Give freed activations back to the system at once (glibc).

    Left to itself, glibc keeps ever larger blocks on its heap, where they fragment: memory grew by
    up to 140 MB beyond the live tensors over a few passes, and no plan could tell by how much.
    """
    m_mmap_threshold = -3
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(m_mmap_threshold, 1 << 20)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed activations for the next step, for as long as this lasts (glibc).

    The opposite of `steady_allocator`, for trainings, whose memory no plan has to foresee: faults
    of fresh pages take up to half of a step. Afterwards all of it goes back to the system.
    """
    steady_allocator()  # once, so that no device undoes what follows
    m_trim_threshold, m_mmap_threshold = -1, -3
    library = None
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option in (m_mmap_threshold, m_trim_threshold):
            library.mallopt(option, (1 << 31) - 1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, AttributeError):
            if library is not None:
                library.mallopt(m_mmap_threshold, 1 << 20)
                library.mallopt(m_trim_threshold, 128 << 10)  # glibc's own
                library.malloc_trim(0)


def environment(device: str, threads: int) -> dict[str, Any]:
    """What float results depend on, besides the plan: device, instruction set, versions.

    ``half``, what the processor computes half precision with, counts in half precision alone: see
    `relevant_to`.
    """
    cuda = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "instruction_set": "" if cuda else torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": threads,
        "half": "" if cuda else half_precision_instructions(),
    }


def relevant_to(found: dict[str, Any], precision: str) -> dict[str, Any]:
    """Of an environment, what results in a precision depend on."""
    if precision in ("bf16", "fp16"):
        return found
    return {key: value for key, value in found.items() if key != "half"}


_HALF = (
    "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16", "avx_ne_convert", "bf16", "svebf16",
    "asimdhp", "sme",
)  # fmt: skip


@functools.cache
def half_precision_instructions() -> str:
    """Instructions of this processor that half precision may be computed with, as Linux names them.

    torch's own name of the instruction set (``AVX512``) does not tell them apart.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return " ".join(flag for flag in _HALF if flag in flags.split())


def runtime(model: Model, name: str = "torch") -> dict[str, str]:
    """What the float results of a model depend on besides `environment`."""
    return versions(name, model.network)


def choose_runtime(asked: str, model: Model) -> str | None:
    """The runtime asked for; None where it is to be measured. ONNX files have one only.

    Raises
    ------
    InputError
        When an ONNX network is asked for another.
    """
    if isinstance(model.network, OnnxNetwork):
        if asked != "auto":
            check_runtime(asked, model.network, "cpu", "fp32")
        return "onnxruntime"
    return None if asked == "auto" else asked


def choose_device(asked: str) -> str:
    """``cuda`` or ``cpu``, what was asked for or what there is.

    Raises
    ------
    InputError
        When CUDA was asked for and is not there.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device cuda: this machine's torch sees no CUDA device; use --device cpu, or install "
            "a CUDA build of torch"
        )
    return asked


def choose_precision(asked: str, device: str, model: Model) -> str:
    """The precision asked for, or fp16 on CUDA and fp32 elsewhere; of an ONNX network, its own.

    Raises
    ------
    InputError
        When an ONNX network is asked for another one than its own.
    """
    if isinstance(model.network, OnnxNetwork):
        own = model.network.precision
        if asked not in ("auto", own):
            raise InputError(
                f"precision {asked}: model {model.name} computes in {own}, as its ONNX file has "
                "it; leave --precision out"
            )
        return own
    if asked == "auto":
        return "fp16" if device == "cuda" else "fp32"
    return asked


def own_device(device: str, worker_name: Any, *, bound: bool = False) -> str:
    """The GPU of a worker: numbered workers of one machine share its GPUs out in turn.

    A worker that is ``bound`` to a GPU already, as dask-cuda does it, sees its own one first.
    """
    if device != "cuda":
        return device
    count = torch.cuda.device_count()
    number = worker_name if isinstance(worker_name, int) and not bound else 0
    return f"cuda:{number % max(1, count)}"
