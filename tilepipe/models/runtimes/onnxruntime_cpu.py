"""tilepipe's U-Nets in ONNX Runtime, on CPUs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilepipe.models.onnx_session import open_session
from tilepipe.models.runtimes import Runtime


class OnnxRuntime(Runtime):
    """A session without an arena, so that its memory is that of the tensors that are alive."""

    def __init__(self, graph: bytes, threads: int) -> None:
        self._session = open_session(graph, "runtime onnxruntime", "cpu", threads)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of pixels."""
        logits: NDArray[np.float32]
        (logits,) = self._session.run(None, {"x": x})
        return logits
