"""The devices of this machine, and the environment that float results depend on."""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

from tilepipe.engine.work.torch_facts import cpu_capability, cuda_is_available, torch_version
from tilepipe.errors import InputError
from tilepipe.models.float32 import require_float32
from tilepipe.models.onednn import (
    instruction_hints,
    instruction_limit,
    limit_leaves_bf16,
    limit_leaves_vnni,
    reduced_float32,
)
from tilepipe.models.precision import Precision
from tilepipe.models.specs import Model

_HALF = (
    "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16", "avx_ne_convert", "bf16", "svebf16",
    "asimdhp", "sme",
)  # fmt: skip
_INT8 = (
    "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "i8mm", "svei8mm", "asimddp",
)  # fmt: skip


def choose_device(asked: str) -> str:
    """``cuda``, ``mps`` or ``cpu``; ``auto`` is CUDA if available, else the CPU.

    ``mps``, the GPU of a Mac, is taken only where it is asked for: no mask has been checked there.

    Raises
    ------
    InputError
        When the device is not available.
    """
    if asked == "auto":
        return "cuda" if cuda_is_available() else "cpu"
    if asked == "mps":
        from tilepipe._torch import torch

        if not torch.backends.mps.is_available():
            raise InputError(
                "device mps: torch sees no GPU of a Mac with Apple silicon here; use --device cpu"
            )
    if asked == "cuda" and not cuda_is_available():
        raise InputError(
            "device cuda: torch sees no CUDA device on this machine; use --device cpu, or install "
            "a CUDA build of torch"
        )
    return asked


def gpu_of_worker(device: str, worker_name: Any, *, bound: bool = False) -> str:
    """The GPU of a worker: numbered workers of a machine use its GPUs in turn.

    A worker that is already ``bound`` to a GPU, by dask-cuda, uses the first one that it sees.
    """
    if device != "cuda":
        return device
    from tilepipe._torch import torch

    count = torch.cuda.device_count()
    number = worker_name if isinstance(worker_name, int) and not bound else 0
    return f"cuda:{number % max(1, count)}"


GPU_PASSES = 2
"""The way in which tilepipe lets an NVIDIA GPU compute. To be raised when results may differ in the
last digits from those of the version before: 2 fuses convolutions, and bounds their memory."""


def environment(device: str, threads: int) -> dict[str, Any]:
    """The device, instruction set and versions that float results depend on.

    ``half`` and ``int8``, the instructions for half precision and for int8, matter only there: see
    `relevant_to`. ``float32`` is the variable that lets oneDNN reduce it, which is refused where it
    matters.
    """
    cpu, name = device == "cpu", device
    ours: dict[str, Any] = {}
    if cpu:
        reduced, limit, hints = reduced_float32(), instruction_limit(), instruction_hints()
        # Only what is there: plans without are written as before these existed.
        ours |= {} if reduced is None else {"float32": str(reduced)}
        ours |= {} if limit is None else {"instruction_limit": limit.value.upper()}
        ours |= {} if hints is None else {"instruction_hints": hints.value.upper()}
    if device.startswith("cuda"):
        from tilepipe._torch import torch

        name = torch.cuda.get_device_name(device)
        ours = {"passes": GPU_PASSES}
    return {
        "device": name,
        "instruction_set": cpu_capability() if cpu else "",
        "machine": platform.machine(),
        "torch": torch_version(),
        "threads": threads,
        "half": half_precision_instructions() if cpu else "",
        "int8": int8_instructions() if cpu else "",
        **ours,
    }


def require_proof(model: Model, device: str, precision: Precision) -> None:
    """Refuse to prove a mask in this process, if the proof would be computed at less than it says.

    Fp32 and int8 are proved in the same precision, by the network's reference runtime; half
    precision is compared with fp32 where the network has it.

    Raises
    ------
    InputError
        Where the environment lets oneDNN reduce float32.
    """
    if device != "cpu":
        return
    predictor = model.predictor
    if precision.is_half:
        if predictor.inexact or Precision.FP32 not in predictor.precisions(device):
            return
        precision = Precision.FP32
    require_float32(precision, predictor.runtimes[0], reduced_float32(), "verification")


def relevant_to(found: dict[str, Any], precision: str) -> dict[str, Any]:
    """The part of an environment that results in this precision depend on."""
    irrelevant = {"half", "int8", "float32"}
    if precision == Precision.INT8:
        irrelevant = {"float32"}  # layers that are not quantised are in bf16 where there is some
    elif precision in [each for each in Precision if each.is_half]:
        irrelevant = {"int8", "float32"}
    return {key: value for key, value in found.items() if key not in irrelevant}


def half_precision_instructions() -> str:
    """The processor's instructions for half precision, by their Linux names.

    Torch's own name of the instruction set (``AVX512``) does not distinguish them.
    """
    if not limit_leaves_bf16():
        return ""
    return " ".join(flag for flag in _HALF if flag in _flags())


def int8_instructions() -> str:
    """The processor's instructions for sums of int8 products (VNNI, AMX), by their Linux names."""
    if not limit_leaves_vnni():
        return ""
    return " ".join(flag for flag in _INT8 if flag in _flags())


@functools.cache
def _flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(flags.split())
