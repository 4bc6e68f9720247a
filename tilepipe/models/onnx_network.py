"""An ONNX network as a torch module: ONNX Runtime computes, everything else is as ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tilepipe._torch import Tensor, nn, torch
from tilepipe.errors import InputError
from tilepipe.grid import Geometry
from tilepipe.models.onnx_graph import FLOAT16, Graph, first_line
from tilepipe.models.onnx_session import open_session

Layout = Literal["NCHW", "NHWC"]
Gives = Literal["logits", "probabilities"]

_OUTSIDE = 1e-3
"""How far rounding may take probabilities out of [0, 1]; other values lie further out."""


@dataclass(frozen=True, slots=True)
class OnnxArguments:
    """How an ONNX network is used: the `network.arguments` of its model file."""

    kind: ClassVar[str] = "onnx"
    """The `network.name` of its model file."""

    bands: int
    """Input channels."""
    outputs: int
    """Output channels."""
    layout: Layout = "NCHW"
    """Order of the axes of input and output: batch, channels, height, width."""
    gives: Gives = "logits"
    """``probabilities``: its last layer is the softmax or sigmoid of `output.activation`."""

    @property
    def spatial_axes(self) -> tuple[int, int]:
        """The axes of height and width."""
        return (2, 3) if self.layout == "NCHW" else (1, 2)

    @property
    def channel_axis(self) -> int:
        """The axis of bands and outputs."""
        return 1 if self.layout == "NCHW" else 3

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of one window, as the network takes it."""
        if self.layout == "NCHW":
            return 1, self.bands, height, width
        return 1, height, width, self.bands


class OnnxNetwork(nn.Module):
    """Takes (N, bands, H, W) and returns logits (N, outputs, h, w), as every network here does.

    Probabilities are turned back into logits, so that labels, thresholds and ties are decided in
    one way. It computes in the precision that its file holds, whatever the type of the tensor it
    is given, with as many threads as torch is set to.
    """

    def __init__(
        self,
        graph: Graph,
        arguments: OnnxArguments,
        softmax: bool,
        geometry: Geometry | None = None,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.arguments = arguments
        self.softmax = softmax
        self.geometry = geometry
        self.fixed = graph.fixed_sides(arguments.spatial_axes)
        """The only (height, width) that the file takes; None: it takes others too."""
        self._session: tuple[tuple[str, int], Any] | None = None
        self._memory: _Memory | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNetwork:
        return self  # nothing in it ever changes

    @property
    def input_type(self) -> type[np.floating[Any]]:
        """Numpy's name of the type of its input."""
        return np.float16 if self.graph.input.element == FLOAT16 else np.float32

    @property
    def noise(self) -> float:
        """How far two passes over the same pixels may differ, over the range of the logits."""
        return 2e-2 if self.graph.precision.is_half else 1e-4

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (N, outputs, h, w) for pixels of shape (N, bands, H, W)."""
        if x.is_meta:
            # Only the shape matters, but the network must run to give it.
            try:
                return self.forward(torch.zeros(x.shape)).to(device="meta", dtype=x.dtype)
            except InputError as error:
                raise RuntimeError(str(error)) from error
        # Through numpy, and so through the memory of the machine, also from a GPU.
        pixels = x.to("cpu", torch.float32)
        if self.arguments.layout == "NHWC":
            pixels = pixels.permute(0, 2, 3, 1)
        (values,) = self.run(self.session(x.device), pixels.numpy())
        output = torch.from_numpy(np.asarray(values, np.float32))
        if output.ndim != 4:
            raise InputError(
                f"{self.graph.source}: its output has the shape {tuple(output.shape)}, and must "
                "have four axes (batch, channels, height, width)"
            )
        if self.arguments.layout == "NHWC":
            output = output.permute(0, 3, 1, 2)
        if output.shape[1] != self.arguments.outputs:
            raise InputError(
                f"{self.graph.source}: its output has {output.shape[1]} channels, and its "
                f"description says {self.arguments.outputs} (network.arguments.outputs)"
            )
        if self.arguments.gives == "probabilities":
            output = self._logits(output)
        return output.to(device=x.device, dtype=x.dtype if x.dtype == torch.float64 else None)

    def _logits(self, probabilities: Tensor) -> Tensor:
        low, high = probabilities.nan_to_num(0.5).aminmax()
        if low < -_OUTSIDE or high > 1 + _OUTSIDE:
            raise InputError(
                f"{self.graph.source}: its output ranges from {low:.4g} to {high:.4g}, which are "
                'not probabilities; its description must say "logits" (network.arguments.gives)'
            )
        probabilities = probabilities.clamp(torch.finfo(torch.float32).tiny, 1.0)
        if self.softmax:
            # The same order, and the same softmax.
            return probabilities.log()
        return probabilities.log() - torch.log1p(-probabilities.clamp(max=1 - 2**-24))

    def run(self, session: Any, pixels: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Run a session of this graph on pixels in its layout; returns its outputs."""
        pixels = np.ascontiguousarray(pixels, self.input_type)
        try:
            outputs: list[NDArray[Any]] = session.run(None, {self.graph.input.name: pixels})
        except Exception as error:  # of no fixed kind
            raise InputError(
                f"{self.graph.source}: does not run on an input of {pixels.shape}: "
                f"{first_line(error)}"
            ) from error
        return outputs

    def session(self, device: torch.device) -> Any:
        """A session of ONNX Runtime on a device, with as many threads as torch is set to."""
        key = (str(device), torch.get_num_threads())
        if self._session is None or self._session[0] != key:
            content = self.graph.proto.SerializeToString()
            self._session = (key, open_session(content, self.graph.source, *key))
        return self._session[1]

    def live_bytes(self, height: int, width: int) -> int:
        """Peak of the bytes that tensors hold during one forward pass of a window."""
        if self.geometry is None:
            return _Memory(self, (height, width), 0).peak(height, width)
        if self._memory is None:
            side = self.geometry.smallest_input
            growing = self.fixed is None
            step = self.geometry.stride_factor if growing else 0
            self._memory = _Memory(self, self.fixed or (side, side), step)
        return self._memory.peak(height, width)


@dataclass(frozen=True, slots=True)
class _Plane:
    """A tensor of a graph: its sides in the smallest window, and how they grow with it."""

    sides: NDArray[np.int64]
    per_row: NDArray[np.float64]
    per_column: NDArray[np.float64]
    born: int
    """Number of the node that produces it."""
    dies: int
    """Number of the last node that reads it."""


class _Memory:
    """The tensors of a graph for a window of any size, found with three small windows."""

    _ITEM = 4
    """Bytes of a value; float16 counts the same, as CPUs compute it as float32."""

    def __init__(self, network: OnnxNetwork, base: tuple[int, int], step: int) -> None:
        nodes = network.graph.proto.graph.node
        content, names = network.graph.with_shapes()
        session = open_session(
            content, network.graph.source, "cpu", torch.get_num_threads(), optimise=False
        )

        def sides_of(height: int, width: int) -> list[NDArray[np.int64]]:
            shape = network.arguments.shape(height, width)
            return [np.array(shape), *network.run(session, np.zeros(shape, np.float32))]

        self._base, self._bands = base, network.arguments.bands
        first = taller = wider = sides_of(*base)
        if step:
            taller = sides_of(base[0] + step, base[1])
            wider = sides_of(base[0], base[1] + step)
        born = {name: i for i, node in enumerate(nodes) for name in node.output}
        dies = {name: i for i, node in enumerate(nodes) for name in node.input}
        dies[network.graph.input.name] = len(nodes)
        self._planes = []
        for i, name in enumerate([network.graph.input.name, *names]):
            per_row, per_column = (
                (sides[i] - first[i]) / max(1, step) for sides in (taller, wider)
            )
            life = born.get(name, 0), dies.get(name, len(nodes))
            self._planes.append(_Plane(first[i], per_row, per_column, *life))
        self._nodes = len(nodes)

    def peak(self, height: int, width: int) -> int:
        """Most bytes of tensors that are alive at once."""
        rows, columns = height - self._base[0], width - self._base[1]
        change = np.zeros(self._nodes + 2)
        for plane in self._planes:
            sides = plane.sides + rows * plane.per_row + columns * plane.per_column
            size = self._ITEM * float(np.prod(sides))
            change[plane.born] += size
            change[plane.dies + 1] -= size
        # The pixels are there twice: as torch has them, and as the network takes them.
        pixels = self._ITEM * height * width * self._bands
        return int(change.cumsum().max()) + pixels
