"""Torch itself: layer by layer, or compiled."""

from __future__ import annotations

from copy import deepcopy
from itertools import chain
from typing import Any

from tilepipe._torch import Tensor, nn, torch
from tilepipe.errors import InputError
from tilepipe.models.runtimes import Runtime
from tilepipe.text import first_line


class Eager(Runtime):
    """The network, layer by layer, channels last.

    That is twice as fast on a CPU, and what half precision wants on a GPU. It is also how pixels
    lie in memory, so nothing is transposed on the way in.

    Each ReLU stays a step of its own: fused with its convolution, oneDNN saves a tenth, but turns
    NaN into 0, and an overflow would no longer be noticed.
    """

    on_stream = True
    capturable = True

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.network = converted(network, device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels."""
        logits: Tensor = self.network(x)
        return logits


class Compiled(Eager):
    """The network through torch.compile, built anew for each shape of window."""

    capturable = False

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(network, device, dtype)
        import torch._inductor.config

        # No pool of processes beside this one, which no plan would know of.
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


def converted(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy of a network on a device, channels last; tensors that need no change are shared."""
    memo: dict[int, Any] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        moved = tensor.detach().to(device, kind, memory_format=layout)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(moved, requires_grad=False) if is_parameter else moved
    return deepcopy(network, memo)
