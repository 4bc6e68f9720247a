"""float32 means float32: what programs, and the environment, may have asked libraries for instead.

Both may let a library compute float32 in bfloat16 or TF32, which is faster, and changes labels by
more than ties. A run says in which precision it computes, so in fp32 neither may decide that.
"""

from __future__ import annotations

from typing import Any

from tilepipe.errors import InputError
from tilepipe.models.precision import Precision

OWN = "onnxruntime"
"""The runtime that computes on CPUs without oneDNN."""


def require_float32(precision: Precision, runtime: str, reduced: object, purpose: str = "") -> None:
    """Refuse a precision in whose place a CPU would compute another.

    Parameters
    ----------
    precision, runtime
        Of passes on a CPU.
    reduced
        The variable that asks for it there: see `tilepipe.models.onednn.reduced_float32`.
    purpose
        What needs the precision, if nobody asked for it.

    Raises
    ------
    InputError
        Where the variable asks for less than float32. Libraries read it once, so it is too late to
        change it here.
    """
    # int8 has layers that are not quantised.
    if reduced and runtime != OWN and precision in (Precision.FP32, Precision.INT8):
        beginning = f"{purpose} is in {precision}, and" if purpose else f"precision {precision}:"
        advice = "unset it" if purpose else "unset it, or ask for --precision bf16"
        raise InputError(
            f"{beginning} the environment variable {reduced} lets oneDNN compute float32 at "
            f"reduced precision; {advice}"
        )


def keep_float32(device: str) -> None:
    """Make torch compute float32 in float32 from now on, in the whole process.

    For a GPU (``cuda``, ``cuda:0``), both its and the CPU's settings are made.
    """
    from tilepipe._torch import torch

    backends: Any = torch.backends
    new = hasattr(backends.mkldnn, "conv")  # torch 2.9
    if device.startswith("cuda"):
        backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = False
        if new:
            # Those leave each operation open, which then follows ``torch.backends.fp32_precision``.
            _set_float32(backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    if new:
        _set_float32(backends.mkldnn.conv, backends.mkldnn.matmul, backends.mkldnn.rnn)
    else:
        torch.set_float32_matmul_precision("highest")


def _set_float32(*operations: Any) -> None:
    for operation in operations:
        operation.fp32_precision = "ieee"
