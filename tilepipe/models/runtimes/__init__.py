"""What computes a network's forward pass: torch, or another library on the same weights."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tilepipe._openvino import load_openvino
from tilepipe.errors import InputError
from tilepipe.models.precision import FLOATING, Precision

if TYPE_CHECKING:
    from tilepipe._torch import torch


class Runtime(ABC):
    """A network ready to compute on a device; used from one thread.

    It never changes the network it was made from: what it converts, it copies.
    """

    dtype: torch.dtype | None = None
    """Type of the tensors it takes; None: float32."""
    on_stream = False
    """Whether it queues its work on torch's current CUDA stream and returns at once."""
    capturable = False
    """Whether its work on a GPU can be captured as a CUDA graph."""

    @abstractmethod
    def __call__(self, x: Any) -> Any:
        """Logits (N, outputs, h, w) of normalised pixels (N, bands, H, W).

        Both are torch's tensors, the pixels channels last, or numpy's arrays of float32, in C
        order: see `Predictor.takes_arrays`. The next call may take the memory of an array of
        logits.
        """


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """What is known of a runtime before it is opened."""

    precisions: tuple[Precision, ...]
    devices: tuple[str, ...] = ("cpu",)
    packages: tuple[str, ...] = ()
    """What it needs besides torch."""
    extra: str = ""
    """The optional dependency of tilepipe that installs them."""
    live: float = 1.05
    """Measured peak of a pass over its live tensors (see benchmarks/README.md)."""
    live_half: float = 1.05
    """The same in half precision."""
    weights: float = 0.0
    """Copies of the weights that it holds besides torch's, at most, while it is opened."""
    constant: int = 0
    """Bytes of its libraries, and of the compiler that it calls."""


_FP32, _BF16, _FP16 = Precision.FP32, Precision.BF16, Precision.FP16

RUNTIMES: dict[str, RuntimeSpec] = {
    # It holds the weights a second time, channels last.
    "torch": RuntimeSpec(FLOATING, ("cpu", "cuda", "mps"), weights=1),
    "compile": RuntimeSpec((_FP32, _BF16, _FP16), ("cpu", "cuda"), constant=500 * 10**6),
    "onnxruntime": RuntimeSpec(
        (_FP32,), packages=("onnx", "onnxruntime"), extra="onnx", live=1.3, weights=5,
        constant=100 * 10**6,
    ),
    "openvino": RuntimeSpec(
        (_FP32, _BF16), packages=("onnx", "openvino"), extra="openvino", live=1.7, live_half=1.7,
        weights=5, constant=200 * 10**6,
    ),
}  # fmt: skip

MEASURABLE = ("openvino", "onnxruntime")
"""Runtimes for a U-Net that `auto` may time against torch, the first one that is installed: where
both were timed, OpenVINO was the faster. Not torch.compile: it needs a C++ compiler, and half a
minute for each shape of window in each process, which no short run earns back."""


def missing_package(name: str) -> str | None:
    """The first package that a runtime needs and that is not installed."""
    packages = RUNTIMES[name].packages
    return next((p for p in packages if importlib.util.find_spec(p) is None), None)


def installed(name: str) -> bool:
    """Whether a runtime's packages are installed."""
    return missing_package(name) is None


def check_runtime(name: str, device: str, precision: str) -> None:
    """Refuse a runtime that cannot compute in this precision on this device.

    Raises
    ------
    InputError
        Names what would work.
    """
    spec = RUNTIMES[name]
    if device.split(":")[0] not in spec.devices:
        raise InputError(f"runtime {name}: computes on CPUs only here; use --device cpu, or torch")
    if precision not in spec.precisions:
        raise InputError(
            f"runtime {name}: computes in {' or '.join(spec.precisions)}, not {precision}; use "
            "--runtime torch"
        )
    if device == "mps" and precision == Precision.FP64:
        raise InputError("precision fp64: the GPU of a Mac has none; use --device cpu")
    if package := missing_package(name):
        raise InputError(
            f"runtime {name}: needs {package}, which is not installed: "
            f'pip install "tilepipe[{spec.extra}]"'
        )


def version(package: str) -> str:
    """The version of a package, for the record of what results depend on."""
    try:
        module = load_openvino() if package == "openvino" else importlib.import_module(package)
        return str(module.__version__)
    except ImportError:
        return "not installed"
