"""What computes a network's forward pass: torch, or another runtime on the same weights."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Protocol

from tilepipe._torch import Tensor, nn, torch
from tilepipe.errors import InputError
from tilepipe.models.onnx_network import OnnxNetwork
from tilepipe.models.unet import UNet

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}


class Runtime(Protocol):
    """A network, ready to compute; used from one thread."""

    dtype: torch.dtype
    """Of the pixels it takes."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, outputs, h, w) for pixels (N, bands, H, W), channels last."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a runtime before it is opened."""

    packages: tuple[str, ...]
    """What it needs besides torch."""
    precisions: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    live: float = 1.05
    """Measured peak of a pass over its live tensors (see benchmarks/README.md)."""
    live_half: float = 1.05
    """The same in half precision."""
    weights: float = 0.0
    """Copies of the weights that it holds besides torch's, as it is opened at most."""
    constant: int = 0
    """Bytes of its libraries, and of the compiler that it calls."""


RUNTIMES: dict[str, Kind] = {
    "torch": Kind((), ("fp32", "bf16", "fp16", "fp64"), ("cpu", "cuda")),
    "compile": Kind((), ("fp32", "bf16", "fp16"), ("cpu", "cuda"), constant=500 * 10**6),
    "onnxruntime": Kind(
        ("onnx", "onnxruntime"), ("fp32",), live=1.3, weights=5, constant=100 * 10**6
    ),
    "openvino": Kind(
        ("onnx", "openvino"),
        ("fp32", "bf16"),
        live=1.15,
        live_half=1.5,
        weights=5,
        constant=100 * 10**6,
    ),
}

MEASURED = ("openvino", "onnxruntime")
"""Those of which `auto` measures the first that is installed beside torch: wherever both were
measured, OpenVINO was the faster one. Not torch.compile: it needs a C++ compiler, and half a
minute for each shape of window in each process, which no short run earns back."""


def installed(name: str) -> bool:
    """Whether a runtime's packages are there."""
    return all(importlib.util.find_spec(package) for package in RUNTIMES[name].packages)


def check_runtime(name: str, network: nn.Module, device: str, precision: str) -> None:
    """Refuse a runtime that cannot compute this network here.

    Raises
    ------
    InputError
        Says what would.
    """
    kind = RUNTIMES[name]
    if isinstance(network, OnnxNetwork):
        if name != "onnxruntime":
            raise InputError(
                f"runtime {name}: a network in ONNX is computed by onnxruntime; leave --runtime out"
            )
        return
    if device.split(":")[0] not in kind.devices:
        raise InputError(f"runtime {name}: computes on CPUs only here; use --device cpu, or torch")
    if precision not in kind.precisions:
        raise InputError(
            f"runtime {name}: computes in {' or '.join(kind.precisions)}, not {precision}; use "
            "--runtime torch"
        )
    for package in kind.packages:
        if importlib.util.find_spec(package) is None:
            extra = "openvino" if name == "openvino" else "onnx"
            raise InputError(
                f"runtime {name}: needs {package}, which is not installed: "
                f'pip install "tilepipe[{extra}]"'
            )


def versions(name: str, network: nn.Module) -> dict[str, str]:
    """What float results depend on besides torch: the version of the runtime."""
    if isinstance(network, OnnxNetwork):
        name = "onnxruntime"
    found = {name: _version(name)} if name in MEASURED else {}
    if isinstance(network, UNet) and network.arguments.normalisation == "batch":
        found["normalisation"] = "folded"
    return found


def _version(package: str) -> str:
    try:
        return str(importlib.import_module(package).__version__)
    except ImportError:
        return "not installed"


def weight_copies(name: str, network: nn.Module) -> float:
    """Copies of a network's weights that are made besides those of torch."""
    if isinstance(network, OnnxNetwork):
        return 0.0  # counted with its graph
    folded = isinstance(network, UNet) and network.arguments.normalisation == "batch"
    return RUNTIMES[name].weights + folded


def open_runtime(
    name: str, network: nn.Module, device: torch.device, precision: str, threads: int
) -> Runtime:
    """A network behind a runtime, on a device.

    Torch's own kinds take the network's weights as they are, and turn them into ``precision`` in
    place; others copy them.

    Raises
    ------
    InputError
        Where the runtime is not installed, or does not compute this network here.
    """
    if isinstance(network, OnnxNetwork):
        from tilepipe.models.runtimes.eager import OnnxFile

        return OnnxFile(network)
    check_runtime(name, network, str(device), precision)
    arguments: tuple[Any, ...] = (network, precision, threads)
    if name == "openvino":
        from tilepipe.models.runtimes.openvino_cpu import OpenVino

        return OpenVino(*arguments)
    if name == "onnxruntime":
        from tilepipe.models.runtimes.onnxruntime_cpu import OnnxRuntime

        return OnnxRuntime(*arguments)
    from tilepipe.models.runtimes.eager import Compiled, Eager

    return (Compiled if name == "compile" else Eager)(network, device, DTYPES[precision])
