"""float32 means float32: what programs, and the environment, may have asked libraries for instead.

Both may let a library compute float32 in bfloat16 or TF32, which is faster, and changes labels by
more than ties. A run says in which precision it computes, so in fp32 neither may decide that.
"""

from __future__ import annotations

import os
from typing import Any

from tilepipe.errors import InputError
from tilepipe.models.precision import Precision

MODES = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
"""The variables by which oneDNN, in torch and in OpenVINO, may take less for float32; the first
that is set counts."""
LESS = ("bf16", "f16", "tf32", "any")


def lowering_variable() -> str | None:
    """The variable of the environment that asks oneDNN for less than float32; None if none does."""
    name = next((name for name in MODES if name in os.environ), None)
    return name if name is not None and os.environ[name].lower() in LESS else None


def require_float32(precision: Precision) -> None:
    """Refuse a precision in whose place a CPU would compute another.

    Raises
    ------
    InputError
        Where the environment asks oneDNN for less than float32. Libraries read it once, so it is
        too late to change it here.
    """
    name = lowering_variable()
    # int8 has layers that are not quantised.
    if name is not None and precision in (Precision.FP32, Precision.INT8):
        raise InputError(
            f"precision {precision}: the environment variable {name}={os.environ[name]} makes "
            "CPUs compute float32 in less; unset it (bf16 has a --precision of its own)"
        )


def keep_float32() -> None:
    """Make torch compute float32 in float32 from now on, on CPUs and GPUs, in the whole process."""
    from tilepipe._torch import torch

    backends: Any = torch.backends
    torch.set_float32_matmul_precision("highest")
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = False
    if hasattr(backends.mkldnn, "conv"):  # torch 2.9 and later
        # Those leave each operation open, which then follows ``torch.backends.fp32_precision``.
        for operation in (
            backends.mkldnn.conv, backends.mkldnn.matmul, backends.mkldnn.rnn,
            backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul,
        ):  # fmt: skip
            operation.fp32_precision = "ieee"
