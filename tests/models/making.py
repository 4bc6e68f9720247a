"""What the tests of runtimes share: which are installed here, and what they can do."""

from __future__ import annotations

import pytest
import torch

from tilepipe.models.runtimes import Runtime, installed

OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(not installed(name), reason=f"no {name} here"))
    for name in ("onnxruntime", "openvino")
]


def has_bf16() -> bool:
    """Whether OpenVINO computes bf16 on this processor."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OnTensors(Runtime):
    """A runtime on arrays, as one on tensors."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of pixels."""
        return torch.from_numpy(self._runtime(x.contiguous().numpy()))
