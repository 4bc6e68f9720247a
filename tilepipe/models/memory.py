"""How much memory a forward pass needs, found without computing it."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from tilepipe.models.onnx_network import OnnxNetwork


def forward_bytes(
    network: nn.Module, bands: int, height: int, width: int, dtype: torch.dtype = torch.float32
) -> int:
    """Peak of the bytes that tensors hold during one forward pass of one window.

    Shapes alone are followed, on torch's meta device, from the input (which counts) to the output;
    weights do not count, nor does what a library sets aside for its own work. (Of an ONNX network,
    three passes of small windows give the shapes.)

    Parameters
    ----------
    network
        Takes (N, bands, H, W).
    bands, height, width
        Of the window.
    dtype
        In which the pass runs; the weights are taken to have been cast to it.
    """
    if isinstance(network, OnnxNetwork):
        return network.live_bytes(height, width)
    state = {
        name: torch.empty_like(
            tensor, dtype=dtype if tensor.is_floating_point() else None, device="meta"
        )
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    with torch.inference_mode(), _LiveBytes() as live:
        x = torch.empty(
            (1, bands, height, width),
            dtype=dtype,
            device="meta",
            memory_format=torch.channels_last,
        )
        functional_call(network, state, (x,))
    return int(live.peak)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive, each counted once however many tensors view it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            _storage_of(tensor)
            for tensor in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(tensor, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and _storage_of(tensor) not in given:
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = _storage_of(tensor), storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _storage_of(tensor: Tensor) -> int:
    """Identity of a tensor's storage."""
    return int(tensor.untyped_storage()._cdata)
