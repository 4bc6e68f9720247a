"""Finding a network's tile geometry by running it: how far a window's surroundings reach in."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from tilepipe._torch import Tensor, nn, torch
from tilepipe.errors import InputError
from tilepipe.grid import Geometry, round_up
from tilepipe.models.geometry import PAPER_INPUT, choose_tile, margin_for

NOISE = 1e-6
"""Sums in another order differ by 1e-15 of their range in float64; a misplaced pixel by far more.
"""

_LOCAL = (
    nn.modules.conv._ConvNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.Upsample,
)
_TRAINED = nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd
"""Layers that behave differently in training."""
_GROWTHS = 3


def probe_geometry(
    network: nn.Module,
    bands: int,
    stride_factor: int,
    tile_input: int | None = None,
    *,
    noise: float = NOISE,
    loses_nan: bool = False,
) -> Geometry:
    """Find the tile geometry of any image-to-image network, by running it.

    Everything outside an inner window is NaN, and NaN spoils whatever it touches: where the output
    is clean, it does not depend on where the window was cut. Then the inner window alone must give
    the same there as the whole.

    Parameters
    ----------
    network
        Takes (N, bands, H, W), gives (N, outputs, h, w) at the same resolution. In evaluation mode.
    bands
        Input channels.
    stride_factor
        Its total downsampling.
    tile_input
        Side of the tile; by default a valid one near the paper's 572.
    noise
        How far two passes over the same pixels may differ, over the range of the logits.
    loses_nan
        Whether the network may turn NaN into a number, so that other pixels must be tried too.

    Raises
    ------
    InputError
        Where the network cannot be tiled exactly, because an output depends on the whole tile;
        the layer at fault is named.
    """
    _refuse_training(network)
    network = _in_double(network)
    with torch.inference_mode():
        residue = _residue(network, bands, stride_factor, tile_input)
        # Of a U-Net this is just enough to leave something clean.
        side = max(128, 16 * stride_factor)
        for attempt in range(_GROWTHS + 1):
            inner = round_up(side, stride_factor) + residue
            probe = _Probe(network, bands, stride_factor, inner, noise, loses_nan)
            spoiled = probe.spoiled()
            if spoiled is not None:
                probe.check_windows_agree()
                return _geometry(probe, spoiled, residue, tile_input)
            culprit = probe.first_without_clean_output()
            # A local layer, or a block of several, may only have needed a larger window.
            growing = culprit is None or isinstance(culprit.module, _LOCAL) or culprit.is_block
            if attempt == _GROWTHS or not growing:
                where = culprit.title if culprit else "its forward method"
                raise InputError(
                    f"the network cannot be tiled exactly: {where} makes every output depend on "
                    "the whole tile"
                )
            side *= 2
    raise AssertionError("the last attempt either returns or raises")


def _geometry(probe: _Probe, spoiled: int, residue: int, tile_input: int | None) -> Geometry:
    shrink, factor = probe.shrink, probe.stride_factor
    try:
        if tile_input is None:
            return choose_tile(shrink, shrink + spoiled, factor, residue)
        margin = margin_for(shrink, shrink + spoiled, factor)
        return Geometry(tile_input, tile_input - 2 * shrink, margin, factor)
    except ValueError as error:
        raise InputError(f"the network cannot be tiled: {error}") from error


@dataclass(frozen=True, slots=True)
class _Call:
    """One module's call in a forward pass."""

    name: str
    module: nn.Module
    clean_in: bool
    output: Tensor | None

    @property
    def title(self) -> str:
        return f"{self.name or 'the network'} ({type(self.module).__name__})"

    @property
    def is_block(self) -> bool:
        return next(self.module.children(), None) is not None


class _Probe:
    """An inner window and a ring around it, and the network's outputs for both."""

    def __init__(
        self, network: nn.Module, bands: int, stride_factor: int, inner: int, noise: float,
        loses_nan: bool,
    ) -> None:  # fmt: skip
        self.network = network
        self.stride_factor = stride_factor
        self.noise = noise
        # An odd number of stride factors, so that a stride factor given too small shows.
        self.ring = stride_factor * (-(-64 // stride_factor) | 1)
        self.inner = inner
        generator = torch.Generator().manual_seed(0)
        side = inner + 2 * self.ring
        self.whole = torch.randn((1, bands, side, side), generator=generator, dtype=torch.float64)
        self.cut = _centre(self.whole, inner).clone()
        self.ringed = torch.full_like(self.whole, torch.nan)
        _centre(self.ringed, inner).copy_(self.cut)
        self.clean = ~self._run(self.ringed).isnan().any(dim=1)[0]
        if loses_nan:
            # A maximum may lose a NaN, which a ring of other pixels shows; such a ring alone may be
            # lost to a ReLU. What neither changes is clean.
            other = 4 * self.whole
            _centre(other, inner).copy_(self.cut)
            self.clean &= (self._run(self.whole) == self._run(other)).all(dim=1)[0]
        self.alone = self._run(self.cut)

    @property
    def shrink(self) -> int:
        """Pixels that the network takes off each edge."""
        lost = self.whole.shape[-1] - self.clean.shape[-1]
        if lost < 0 or lost % 2 or lost != self.inner - self.alone.shape[-1]:
            raise InputError(
                f"the network's output is {self.clean.shape[-1]} for an input of "
                f"{self.whole.shape[-1]}: it must have the resolution of its input, with as much "
                "lost at each edge"
            )
        return lost // 2

    def spoiled(self) -> int | None:
        """Width of the band along the edge of the inner window's output that the ring reaches."""
        kept = self.inner - 2 * self.shrink
        if kept < 1:
            return None
        row, column = (~_centre(self.clean, kept)).nonzero(as_tuple=True)
        if not len(row):
            return 0
        # Of the four distances to an edge, the least; dilation may leave clean pixels before it.
        distances = torch.stack((row, kept - 1 - row, column, kept - 1 - column))
        spoiled = int(distances.amin(dim=0).max()) + 1
        return spoiled if 2 * spoiled < kept else None

    def first_without_clean_output(self) -> _Call | None:
        """The first module that takes clean pixels and returns none."""
        for call in _trace(self.network, self.ringed):
            if call.clean_in and call.output is not None and call.output.isnan().all():
                return call
        return None

    def check_windows_agree(self) -> None:
        """Refuse a network whose clean outputs differ between the whole and the window cut out."""
        if not _differ(self._run(self.whole), self.alone, self.clean, self.noise):
            return
        calls = zip(
            _trace(self.network, self.whole),
            _trace(self.network, self.cut),
            _trace(self.network, self.ringed),
            strict=False,
        )
        where = "it"
        for whole, cut, ringed in calls:
            outputs = [call.output for call in (whole, cut, ringed)]
            if any(output is None or output.ndim != 4 for output in outputs):
                continue
            a, b, nan = (output for output in outputs if output is not None)
            if a.shape[-1] > b.shape[-1] and _differ(a, b, ~nan.isnan().any(dim=1)[0], self.noise):
                where = whole.title
                break
        raise InputError(
            f"the network cannot be tiled exactly: {where} gives different results in windows that "
            f"differ by a whole stride factor ({self.stride_factor})"
        )

    def _run(self, x: Tensor) -> Tensor:
        try:
            output = self.network(x)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"the network does not take an input of {tuple(x.shape)}: {reason}"
            ) from error
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise InputError("the network must return one tensor of shape (N, outputs, h, w)")
        return output


def _differ(whole: Tensor, cut: Tensor, clean: Tensor, noise: float) -> bool:
    side = cut.shape[-1]
    clean = _centre(clean, side)
    if not clean.any():
        return False
    difference = (_centre(whole, side) - cut)[..., clean].abs().max()
    return bool(difference > noise * whole.abs().max())


def _trace(network: nn.Module, x: Tensor) -> list[_Call]:
    """The calls of all modules in a pass, in the order in which they finish."""
    names = {module: name for name, module in network.named_modules()}
    clean_in: list[bool] = []
    calls: list[_Call] = []

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        clean_in.append(any(not tensor.isnan().all() for tensor in tensors))

    def after(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        # A copy, because a layer that works in place will overwrite it.
        kept = output.clone() if isinstance(output, Tensor) else None
        calls.append(_Call(names[module], module, clean_in.pop(), kept))

    handles = [m.register_forward_pre_hook(before) for m in names]
    handles += [m.register_forward_hook(after) for m in names]
    try:
        network(x)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _residue(network: nn.Module, bands: int, stride_factor: int, tile_input: int | None) -> int:
    """What a valid input leaves when divided by the stride factor.

    Every input on the right phase loses the least: off it, pooling drops a last row or column.
    """
    sides = range(round_up(PAPER_INPUT, stride_factor), round_up(PAPER_INPUT, stride_factor) * 4)
    lost: dict[int, int] = {}
    for start in sides[:: 2 * stride_factor][:2]:
        for side in range(start, start + stride_factor):
            output = _output_side(network, bands, side)
            if output is not None:
                lost[side % stride_factor] = side - output
            if lost.get(side % stride_factor) == 0:
                break
        if lost:
            break
    best = min(lost, key=lambda residue: lost[residue], default=None)
    if tile_input is None:
        return best or 0
    if best is not None and tile_input % stride_factor != best:
        nearest = tile_input - (tile_input - best) % stride_factor
        raise InputError(
            f"a tile of {tile_input} does not fit this network, whose poolings would drop pixels; "
            f"use {nearest} or {nearest + stride_factor}"
        )
    return tile_input % stride_factor


def _output_side(network: nn.Module, bands: int, side: int) -> int | None:
    """Side of the output, without computing it; None where the network does not take the input."""
    state = {n: t.to("meta") for n, t in (*network.named_parameters(), *network.named_buffers())}
    x = torch.empty((1, bands, side, side), dtype=torch.float64, device="meta")
    try:
        output = torch.func.functional_call(network, state, (x,))
    except (RuntimeError, ValueError, NotImplementedError):
        return None
    return int(output.shape[-1]) if isinstance(output, Tensor) and output.ndim == 4 else None


def _refuse_training(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if module.training and isinstance(module, _TRAINED):
            raise InputError(
                f"the network cannot be tiled exactly: {name or 'it'} ({type(module).__name__}) is "
                "in training mode; call network.eval() first"
            )


def _in_double(network: nn.Module) -> nn.Module:
    # Not for its digits: in float64 there are neither Winograd nor Fourier convolutions, which
    # spread NaN over the whole of their inner tiles, and so would overstate how far it reaches.
    return copy.deepcopy(network).to("cpu", torch.float64)


def _centre(x: Tensor, side: int) -> Tensor:
    start = (x.shape[-1] - side) // 2
    return x[..., start : start + side, start : start + side]
