"""The device: pixels of one window in, labels (and probabilities) of its kept outputs back."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# Before torch is loaded, as it reads them once (figures in benchmarks/README.md). Activations on
# huge pages: faults of fresh 4 KiB pages otherwise take half of a forward pass. And OpenMP threads
# that sleep while they wait for each other: spinning, they take the cores that readers need.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilepipe.errors import InputError, NonFiniteError
from tilepipe.masks.base import NO_ANSWER
from tilepipe.models.onnx_network import OnnxNetwork

if TYPE_CHECKING:
    from tilepipe.models.file import Model

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the network says of one tile."""

    mask: NDArray[Any]
    """uint8 labels (height, width), uint8 planes (C, height, width), or float32 values (C, ...)."""
    probabilities: NDArray[np.float32] | None
    """(C, height, width), NaN where there is no answer; None unless asked for."""


class Device:
    """A model on a CPU or GPU, with one thread of its own on which every pass runs.

    The single thread is the lock on the device, keeps one pool of OpenMP threads instead of one a
    caller, and fixes the number of threads a pass takes part with, on which float results depend.
    """

    def __init__(self, model: Model, device: str, precision: str, threads: int) -> None:
        self.model = model
        self.device = torch.device(device)
        self.precision = precision
        self.turn = threading.Lock()
        """Held over a block's tiles, so that one block ends before the next one begins."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tilepipe-device")
        # An ONNX network casts by itself, where its file says so.
        onnx = isinstance(model.network, OnnxNetwork)
        self._dtype = torch.float32 if onnx else DTYPES[precision]
        self._thread.submit(self._prepare, threads).result()

    def close(self) -> None:
        """End the device's thread and let go of the network."""
        self._thread.shutdown(wait=True)

    def answer(
        self,
        pixels: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        keep: tuple[int, int],
        probabilities: bool = False,
    ) -> Future[Answer]:
        """Submit one window.

        Parameters
        ----------
        pixels
            (height, width, bands), in the image's own dtype.
        valid
            (height, width), False where there is no data; None where all of it is.
        keep
            (rows, columns) of outputs kept, from the model's margin on.

        Raises
        ------
        NonFiniteError
            On the future, when the network's logits are not finite.
        """
        return self._thread.submit(self._answer, pixels, valid, keep, probabilities)

    def logits(
        self, pixels: NDArray[Any], valid: NDArray[np.bool_] | None, keep: tuple[int, int]
    ) -> NDArray[np.float64]:
        """The logits of one window, (outputs, rows, columns), for `verify`."""

        def work() -> NDArray[np.float64]:
            with torch.inference_mode():
                logits = self._pass(pixels, valid, keep).double().cpu()[0]
            return np.asarray(logits.numpy())

        return self._thread.submit(work).result()

    def _prepare(self, threads: int) -> None:
        torch.set_num_threads(threads)
        steady_allocator()
        if self.device.type == "cuda":
            # fp32 means fp32, and the same algorithm every time.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
        # Channels last: twice as fast on a CPU, and what half precision wants on a GPU. It is also
        # how pixels lie in memory, so nothing is transposed on the way in.
        network = self.model.network.to(device=self.device, dtype=self._dtype)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        spec = self.model.input

        def per_band(values: tuple[float, ...]) -> Tensor:
            kind = torch.float64 if self._dtype == torch.float64 else torch.float32
            return torch.tensor(values, dtype=kind, device=self.device)

        self._mean, self._std = per_band(spec.mean), per_band(spec.std)

    def _pass(
        self, pixels: NDArray[Any], valid: NDArray[np.bool_] | None, keep: tuple[int, int]
    ) -> Tensor:
        height, width, bands = pixels.shape
        x = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).to(self._mean.dtype)
        # By rows of interleaved bands: three times as fast as by bands, and bit for bit the same.
        x = x.reshape(height, width * bands).mul_(self.model.input.scale)
        x = x.sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
        x = x.reshape(1, height, width, bands).permute(0, 3, 1, 2)
        if valid is not None:
            # Nodata enters as the model's mean, which is 0 here (and a NaN must not get in).
            x.masked_fill_(torch.from_numpy(~valid).to(self.device)[None, None], 0.0)
        x = x.to(dtype=self._dtype, memory_format=torch.channels_last)
        logits: Tensor = self._network(x)
        del x
        logits = logits[(..., *self.model.geometry.crop(keep))]
        # A sum is finite only if all of it is, and costs one number instead of a plane of them;
        # it may overflow by itself, hence the second look.
        if not bool(logits.float().sum().isfinite()) and not bool(logits.isfinite().all()):
            raise NonFiniteError(
                f"the network's logits are not finite in {self.precision}"
                + (
                    "; half precision overflows here: use --precision bf16 or fp32"
                    if self.precision == "fp16"
                    else "; look at the image's values and the model's normalisation"
                )
            )
        return logits

    def _answer(
        self,
        pixels: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        keep: tuple[int, int],
        probabilities: bool,
    ) -> Answer:
        with torch.inference_mode():
            logits = self._pass(pixels, valid, keep)
            mask = labels_of(logits, self.model).cpu().numpy()[0]
            shares = None
            if probabilities:
                shares = probabilities_of(logits, self.model).cpu().numpy()[0]
        if valid is not None:
            margin = self.model.geometry.margin
            invalid = ~valid[margin : margin + keep[0], margin : margin + keep[1]]
            mask[..., invalid] = np.nan if mask.dtype.kind == "f" else NO_ANSWER
            if shares is not None:
                shares[..., invalid] = np.nan
        return Answer(mask, shares)


def labels_of(logits: Tensor, model: Model) -> Tensor:
    """Labels (N, H, W) or planes (N, C, H, W) as uint8, or values (N, C, H, W) as float32.

    Ties go to the lower label.
    """
    output = model.output
    if output.activation == "linear":
        return logits.float()
    if output.activation == "sigmoid":
        # Thresholds on the logits: the sigmoid is monotone, and nothing is rounded.
        levels = [float(np.log(t / (1 - t))) for t in output.thresholds]
        planes = torch.stack([logits[:, i] > levels[i] for i in range(logits.shape[1])], dim=1).to(
            torch.uint8
        )
        return planes[:, 0] if logits.shape[1] == 1 else planes
    if logits.shape[1] == 2:
        return (logits[:, 1] > logits[:, 0]).view(torch.uint8)
    best = logits[:, 0]
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for label in range(1, logits.shape[1]):
        higher = logits[:, label] > best
        labels.masked_fill_(higher, label)
        if label + 1 < logits.shape[1]:
            best = torch.where(higher, logits[:, label], best)
    return labels


def probabilities_of(logits: Tensor, model: Model) -> Tensor:
    """Class probabilities as float32, (N, classes, H, W)."""
    if model.output.activation == "sigmoid":
        shares = torch.sigmoid(logits.float())
        # A single sigmoid tells two classes apart.
        return torch.cat((1 - shares, shares), 1) if shares.shape[1] == 1 else shares
    return torch.softmax(logits.float(), dim=1)


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
    """What float results depend on, besides the plan: device, instruction set, versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "instruction_set": (
            "" if device.startswith("cuda") else torch.backends.cpu.get_cpu_capability()
        ),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": threads,
    }


def runtime(model: Model) -> dict[str, str]:
    """What the float results of a model depend on besides `environment`."""
    if not isinstance(model.network, OnnxNetwork):
        return {}
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__}


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
