"""The memory of a forward pass of a large window, found without computing one."""

from __future__ import annotations

import weakref
from typing import Any

from tilepipe._torch import Tensor, nn, torch


def forward_bytes(
    network: nn.Module, bands: int, height: int, width: int, dtype: torch.dtype = torch.float32
) -> int:
    """Peak bytes that tensors hold during one forward pass of a window.

    Shapes alone are followed, on torch's meta device, from the input (which counts) to the output;
    weights do not count, nor does what a library sets aside for its own work.

    Parameters
    ----------
    network
        Takes (N, bands, H, W).
    bands, height, width
        The window's input channels and sides.
    dtype
        Precision of the pass; the weights are taken to have been cast to it.
    """
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
        torch.func.functional_call(network, state, (x,))
    return int(live.peak)


class ForwardMemory:
    """Peak bytes that tensors hold during a forward pass, for windows of any size.

    The same as `forward_bytes`, from passes of four small windows: the sides of tensors grow
    linearly with those of the window, so that what is alive at any moment of the pass is bilinear
    in them, and four windows determine it. Shapes alone would do, but following them loads torch's
    compiler, which takes most of a second of every start.

    Parameters
    ----------
    network
        Takes (N, bands, H, W).
    bands
        Input channels.
    smallest, step
        Sides of windows that the network takes: ``smallest``, and every ``step`` more.
    dtype
        Precision of the passes.
    """

    def __init__(
        self, network: nn.Module, bands: int, smallest: int, step: int, dtype: torch.dtype
    ) -> None:
        self._network, self._bands, self._dtype = network, bands, dtype
        self._smallest, self._step = smallest, step
        sides = (smallest, smallest + step)
        (a, b), (c, d) = [[self._trace(height, width) for width in sides] for height in sides]
        self._fit = (
            list(zip(a, b, c, d, strict=True)) if len({*map(len, (a, b, c, d))}) == 1 else []
        )

    def peak(self, height: int, width: int) -> int:
        """Peak bytes of one pass of a window."""
        if not self._fit:  # windows of other sizes allocate at other moments
            return forward_bytes(self._network, self._bands, height, width, self._dtype)
        down, across = ((side - self._smallest) / self._step for side in (height, width))
        return int(
            max(
                a + (b - a) * across + (c - a) * down + (a - b - c + d) * down * across
                for a, b, c, d in self._fit
            )
        )

    def _trace(self, height: int, width: int) -> list[int]:
        """Bytes that are alive after each allocation of a pass."""
        # bf16 in place of fp16: every processor computes it, and both are as large.
        dtype = torch.bfloat16 if self._dtype == torch.float16 else self._dtype
        state = {
            name: tensor.detach().to("cpu", dtype) if tensor.is_floating_point() else tensor
            for name, tensor in (
                *self._network.named_parameters(), *self._network.named_buffers(),
            )
        }  # fmt: skip
        with torch.inference_mode(), _LiveBytes() as live:
            x = torch.zeros((1, self._bands, height, width), dtype=dtype)
            x = x.contiguous(memory_format=torch.channels_last)
            torch.func.functional_call(self._network, state, (x,))
        return list(live.moments)


class _LiveBytes(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive; each counts once, however many tensors view it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self.moments: list[int] = []
        self._seen: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and asking for it to be skipped loads the compiler

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
        self.moments.append(self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _storage_of(tensor: Tensor) -> int:
    """Identity of a tensor's storage."""
    return int(tensor.untyped_storage()._cdata)
