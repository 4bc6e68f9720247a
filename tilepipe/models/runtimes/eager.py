"""Torch itself: layer by layer, or compiled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tilepipe.errors import InputError
from tilepipe.models.fold import fold_batch_normalisation
from tilepipe.models.onnx_graph import first_line
from tilepipe.models.onnx_network import OnnxNetwork
from tilepipe.models.unet import DoubleConvolution, UNet


class Eager:
    """The network, layer by layer, channels last: twice as fast on a CPU, and what half precision
    wants on a GPU. It is also how pixels lie in memory, so nothing is transposed on the way in.
    """

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = dtype
        if isinstance(network, UNet) and network.arguments.normalisation == "batch":
            network = fold_batch_normalisation(network)
        network = network.to(device=device, dtype=dtype)
        self.network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if isinstance(network, UNet) and device.type == "cpu" and _can_fuse(dtype):
            self.network = fuse(network)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels."""
        logits: Tensor = self.network(x)
        return logits


class Compiled(Eager):
    """The network through torch.compile, built anew for each shape of window."""

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(network, device, dtype)
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


def fuse(network: UNet) -> UNet:
    """The same network on the same weights, with each ReLU in the convolution before it.

    Bit for bit the same in oneDNN, with a pass less over what each convolution gives. (torch does
    it only in what it compiles.)
    """
    with torch.device("meta"):
        twin = UNet(network.arguments)
    twin.load_state_dict(network.state_dict(), assign=True)
    for block in (*twin.down, *twin.merge):
        assert isinstance(block, DoubleConvolution)
        convolutions = [module for module in block if isinstance(module, nn.Conv2d)]
        for i, convolution in enumerate(convolutions):
            block[2 * i], block[2 * i + 1] = ConvolutionReLU(convolution), nn.Identity()
    return twin.eval().requires_grad_(False)


class ConvolutionReLU(nn.Module):
    """A convolution and its ReLU in one step of oneDNN; inference on CPUs only."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """What the two would give, one after the other."""
        c = self.convolution
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, c.weight, c.bias, c.padding, c.stride, c.dilation, c.groups, "relu", [], ""
        )
        return result


def _can_fuse(dtype: torch.dtype) -> bool:
    # Of torch's own making for what it compiles, and no part of its public interface.
    return (
        dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )
