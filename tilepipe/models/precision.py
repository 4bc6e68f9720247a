"""Precisions of a pass: which there are, and how far results in each may be trusted."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilepipe._torch import torch

ROUNDING = 1e-5
"""Share of the logits' range below which float32 cannot tell two of them apart."""


class Precision(StrEnum):
    """Number type of a forward pass; equal to its name, as plans and options hold it."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP64 = "fp64"
    INT8 = "int8"
    """Of a quantised network (`tilepipe.models.quantise`), which takes and gives float32."""

    @property
    def dtype(self) -> torch.dtype:
        """Torch's name of the type of pixels and logits."""
        from tilepipe._torch import torch

        found: torch.dtype = getattr(
            torch,
            {"bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}.get(self, "float32"),
        )
        return found

    @property
    def itemsize(self) -> int:
        """Bytes of a pixel or a logit."""
        return 2 if self.is_half else 8 if self is Precision.FP64 else 4

    @property
    def is_half(self) -> bool:
        """Whether a value has 16 bits; labels then differ from those of float32 at more ties."""
        return self in (Precision.BF16, Precision.FP16)

    @property
    def tie_bound(self) -> float:
        """Gap of the two best logits, over their range, below which a label may go either way.

        In half precision the least there is: `verify` measures it on the image.
        """
        return 1e-12 if self is Precision.FP64 else ROUNDING

    @property
    def agreement(self) -> float | None:
        """How far a runtime's logits may lie from the reference's, over their range.

        In fp32 half of a tie, as both logits of a tie may be off: `verify`, which computes with the
        reference, then finds no more than ties. In bf16 about what rounding comes to. None: only
        the reference computes in this precision.
        """
        return {Precision.FP32: ROUNDING / 2, Precision.BF16: 0.02}.get(self)


FLOATING = tuple(precision for precision in Precision if precision is not Precision.INT8)
"""The precisions in which a network computes as it is, without being quantised."""
