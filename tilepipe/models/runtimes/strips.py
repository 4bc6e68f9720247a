"""A U-Net computed by torch in strips of rows, in memory that every pass takes again."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tilepipe._torch import Tensor, functional, torch
from tilepipe.models.runtimes.eager import Eager
from tilepipe.models.unet import DoubleConvolution, UNet, Upsample
from tilepipe.models.unet_memory import Layout, Shape, loss, strip_rows


class Strips(Eager):
    """A U-Net on a CPU, level by level, each level in strips of rows.

    Layer by layer, the activations of a large window are hundreds of megabytes, fresh from the
    system in every pass, and clearing them takes a fifth to a third of the time. In strips, only
    what a level passes on is whole, in memory that is kept from pass to pass (`Layout`). The few
    rows that two strips need are computed twice.
    """

    network: UNet
    dtype: torch.dtype

    def __init__(self, network: UNet, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(network, device, dtype)
        self._memory = torch.empty(0, dtype=dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of pixels, of one window."""
        network = self.network
        height, width = x.shape[2:]
        layout = Layout.of(network.arguments, height, width, self.dtype.itemsize)
        skips, passed, joined = self._places(layout)
        further = iter(passed)
        for convolve, skip in zip(network.down, skips, strict=False):
            x = self._down(convolve, x, skip, next(further))
        x = self._down(network.down[-1], x, next(further))
        for up, merge in zip(network.up, network.merge, strict=True):
            assert isinstance(up, Upsample)
            x = self._up(up, merge, x, skips.pop(), joined, next(further, None))
        return x

    def _places(self, layout: Layout) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Where each skip goes, what each level passes on, and a strip of both together."""
        if self._memory.numel() < layout.size:
            self._memory = torch.empty(0, dtype=self.dtype)  # before the next is taken
            self._memory = torch.empty(layout.size, dtype=self.dtype)
        sizes = [*map(math.prod, layout.skips), *layout.turns, layout.joined]
        *skips, one, other, joined = torch.split(self._memory[: layout.size], sizes)
        return (
            [_laid(place, shape) for place, shape in zip(skips, layout.skips, strict=True)],
            [_laid((one, other)[i % 2], shape) for i, shape in enumerate(layout.passed)],
            joined,
        )

    def _down(
        self, convolve: torch.nn.Module, x: Tensor, to: Tensor, pooled: Tensor | None = None
    ) -> Tensor:
        """Two convolutions into ``to``, and its 2x2 maxima into ``pooled``; the last of them."""
        for strip in _strips(to.shape[1:], self.dtype.itemsize):
            read = self._read(strip, x.shape[2])
            rows = to[:, :, strip]
            self._convolve(convolve, x[:, :, read], strip.start - read.start, rows)
            if pooled is not None:
                half = slice(strip.start // 2, strip.stop // 2)
                pooled[:, :, half] = functional.max_pool2d(rows, 2)
        return to if pooled is None else pooled

    def _up(
        self, up: Upsample, merge: torch.nn.Module, x: Tensor, skip: Tensor, joined: Tensor,
        to: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """A level of the expanding path, into ``to``; None: the last, which gives logits."""
        channels, (height, width) = skip.shape[1], (2 * x.shape[2], 2 * x.shape[3])
        top, left = (skip.shape[2] - height) // 2, (skip.shape[3] - width) // 2
        shape = (channels, height - self._loss, width - self._loss)
        head, logits = self.network.head, None
        if to is None:  # in memory of their own: what is made of them is held longer
            logits = torch.empty(1, *shape[1:], head.out_channels, dtype=self.dtype)
            logits = logits.permute(0, 3, 1, 2)
        for strip in _strips(shape, self.dtype.itemsize):
            read = self._read(strip, height)
            both = _laid(joined, (2 * channels, read.stop - read.start, width))
            both[:, :channels] = skip[:, :, top + read.start : top + read.stop, left : left + width]
            both[:, channels:] = _upsampled(up, x, read)
            first = strip.start - read.start
            if logits is None:
                assert to is not None
                self._convolve(merge, both, first, to[:, :, strip])
            else:
                rows = merge(both)[:, :, 0 if self._loss else first :]
                logits[:, :, strip] = head(rows[:, :, : strip.stop - strip.start])
        return to if logits is None else logits  # type: ignore[return-value]

    @property
    def _loss(self) -> int:
        """Rows that two convolutions take off."""
        return loss(self.network.arguments)

    def _read(self, strip: slice, height: int) -> slice:
        """The rows that two convolutions read for a strip, of ``height`` rows."""
        if self._loss:
            return slice(strip.start, strip.stop + self._loss)
        return slice(max(0, strip.start - 2), min(height, strip.stop + 2))

    def _convolve(self, convolve: torch.nn.Module, x: Tensor, first: int, to: Tensor) -> None:
        """Two convolutions of rows, of which ``to`` is the ``first`` and those after it.

        Padded convolutions pad rows where a strip was cut, too; what that reaches is left out.
        """
        assert isinstance(convolve, DoubleConvolution)
        *layers, _ = convolve
        for layer in layers:
            x = layer(x)
        first = 0 if self._loss else first
        # The last ReLU writes to where the rows belong; like torch's own, it keeps NaN.
        torch.clamp_min(x[:, :, first : first + to.shape[2]], 0, out=to)


def _strips(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """The rows of each strip of an activation."""
    channels, height, width = shape
    rows = strip_rows((channels, height, width), itemsize)
    return (slice(first, min(height, first + rows)) for first in range(0, height, rows))


def _laid(memory: Tensor, shape: Shape) -> Tensor:
    """A tensor (1, channels, height, width) at the beginning of some memory, channels last."""
    channels, height, width = shape
    return memory[: math.prod(shape)].view(1, height, width, channels).permute(0, 3, 1, 2)


def _upsampled(up: Upsample, x: Tensor, rows: slice) -> Tensor:
    """Some rows of an upsampled activation; they begin and end with rows of ``x``."""
    first, stop = rows.start // 2, rows.stop // 2
    around = slice(first, stop)
    if not up.transposed:  # bilinear rows mix with those beside them
        around = slice(max(0, first - 1), min(x.shape[2], stop + 1))
    result: Tensor = up(x[:, :, around])
    start = rows.start - 2 * around.start
    return result[:, :, start : start + rows.stop - rows.start]
