"""tilepipe's U-Nets in ONNX Runtime, on CPUs."""

from __future__ import annotations

from tilepipe._torch import Tensor, torch
from tilepipe.models.onnx_network import open_session
from tilepipe.models.runtimes import Runtime
from tilepipe.models.runtimes.graph import as_onnx
from tilepipe.models.unet import UNet


class OnnxRuntime(Runtime):
    """A session without an arena, so that its memory is that of the tensors that are alive."""

    def __init__(self, network: UNet, threads: int) -> None:
        self._session = open_session(
            as_onnx(network), "runtime onnxruntime", torch.device("cpu"), threads=threads
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels."""
        (logits,) = self._session.run(None, {"x": x.contiguous().numpy()})
        return torch.from_numpy(logits)
