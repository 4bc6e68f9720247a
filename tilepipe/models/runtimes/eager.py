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
    lie in memory, so nothing is transposed on the way in. In float32 and float64, GPUs compute
    channel by channel; there channels last would take up to a quarter longer.

    Each ReLU stays a step of its own: fused with its convolution, oneDNN saves a tenth, but turns
    NaN into 0, and an overflow would no longer be noticed.
    """

    on_stream = True
    capturable = True

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._layout = layout_on(device, dtype)
        self.network = converted(network, device, dtype, self._layout)
        self._prepared: set[torch.Size] = set()

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels."""
        x = x.contiguous(memory_format=self._layout)
        if x.shape not in self._prepared:
            self.prepare(x)
            self._prepared.add(x.shape)
        logits: Tensor = self.network(x)
        return logits

    def prepare(self, x: Tensor) -> None:
        """Do what is to be done before the first window of a shape."""


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
            logits: Tensor = self._compiled(x.contiguous(memory_format=self._layout))
        except (torch._dynamo.exc.TorchDynamoException, ImportError) as error:
            raise InputError(
                f"runtime compile: torch cannot compile here ({first_line(error)}); it needs a C++ "
                "compiler, or use --runtime torch"
            ) from error
        return logits


def layout_on(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """How activations lie in memory where they are computed fastest."""
    by_channels = device.type == "cuda" and dtype.itemsize > 2
    return torch.contiguous_format if by_channels else torch.channels_last


def converted(
    network: nn.Module, device: torch.device, dtype: torch.dtype, layout: torch.memory_format
) -> nn.Module:
    """A copy of a network on a device, in a layout; tensors that need no change are shared."""
    memo: dict[int, Any] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        form = layout if tensor.ndim == 4 else torch.preserve_format
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        moved = tensor.detach().to(device, kind, memory_format=form)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(moved, requires_grad=False) if is_parameter else moved
    return deepcopy(network, memo)
