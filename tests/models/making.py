"""What the tests of runtimes share: which are installed here, and what they can do."""

from __future__ import annotations

import pytest

from tilepipe.models.runtimes import installed

OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(not installed(name), reason=f"no {name} here"))
    for name in ("onnxruntime", "openvino")
]


def has_bf16() -> bool:
    """Whether OpenVINO computes bf16 on this processor."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
