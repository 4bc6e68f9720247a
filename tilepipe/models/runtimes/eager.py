"""Torch itself: layer by layer, or compiled."""

from __future__ import annotations

from typing import Any

from tilepipe._torch import Tensor, nn, torch
from tilepipe.errors import InputError
from tilepipe.models.fold import fold_batch_normalisation
from tilepipe.models.onnx_graph import first_line
from tilepipe.models.onnx_network import OnnxNetwork
from tilepipe.models.unet import UNet


class Eager:
    """The network, layer by layer, channels last.

    That is twice as fast on a CPU, and what half precision wants on a GPU. It is also how pixels
    lie in memory, so nothing is transposed on the way in.

    Each ReLU stays a step of its own: in one with its convolution, oneDNN saves a tenth, but makes
    0 of NaN, and what overflowed would no longer be found out.
    """

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = dtype
        if isinstance(network, UNet) and network.arguments.normalisation == "batch":
            # Folding rounds to float32, which is not for proofs.
            network = network if dtype == torch.float64 else fold_batch_normalisation(network)
        network = network.to(device=device, dtype=dtype)
        self.network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels."""
        logits: Tensor = self.network(x)
        return logits


class Compiled(Eager):
    """The network through torch.compile, built anew for each shape of window."""

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(network, device, dtype)
        import torch._inductor.config

        # No pool of processes beside this one, of which no plan would know.
        torch._inductor.config.compile_threads = 1
        self._compiled: Any = torch.compile(self.network, dynamic=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels.

        Raises
        ------
        InputError
            Where torch cannot compile here.
        """
        try:
            logits: Tensor = self._compiled(x)
        except (torch._dynamo.exc.TorchDynamoException, ImportError) as error:
            raise InputError(
                f"runtime compile: torch cannot compile here ({first_line(error)}); it needs a C++ "
                "compiler, or use --runtime torch"
            ) from error
        return logits


class OnnxFile:
    """A network that came as ONNX: it computes, and casts, by itself."""

    dtype = torch.float32

    def __init__(self, network: OnnxNetwork) -> None:
        self._network = network

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels."""
        logits: Tensor = self._network(x)
        return logits
