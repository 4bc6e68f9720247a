"""A U-Net as an ONNX graph, for runtimes that take one."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.models.unet_arguments import UNetArguments
from tilepipe.models.weights import Weights
from tilepipe.storage.cache import kept

OPSET, IR_VERSION = 17, 8
FORM = 1
"""To be raised when other nodes are made of the same network: graphs are kept between runs."""


def as_onnx(arguments: UNetArguments, weights: Weights) -> bytes:
    """The graph of an ONNX model: ``x`` (1, bands, H, W) to ``y`` (1, outputs, h, w), float32.

    It is kept in the user's cache: loading the package ``onnx`` takes longer than all the rest.

    Parameters
    ----------
    arguments, weights
        Of a U-Net without batch normalisation (see `tilepipe.models.fold.folded`).
    """
    name = f"unet-{_identity(arguments, weights)}.onnx"
    return kept(name, lambda: _made(arguments, weights))


def _identity(arguments: UNetArguments, weights: Weights) -> str:
    """A hash of all that the graph depends on."""
    digest = hashlib.sha256(f"{FORM} {OPSET} {IR_VERSION} {arguments}".encode())
    for name, array in sorted(weights.items()):
        digest.update(f"\n{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array, np.float32).data)
    return digest.hexdigest()[:32]


def _made(arguments: UNetArguments, weights: Weights) -> bytes:
    import onnx

    assert arguments.normalisation == "none", "folded before"
    graph = _Graph(onnx.helper, weights, pad=1 if arguments.padding == "same" else 0)
    x, skips = "x", []
    for level in range(arguments.depth + 1):
        if level:
            x = graph.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
        x = graph.double(f"down.{level}", x)
        skips.append(x)
    skips.pop()
    lost = 4  # of a skip, at each edge, by the time that the way up reaches it
    for number in range(arguments.depth):
        skip = skips.pop()
        x = graph.upsample(f"up.{number}.convolution", x, arguments.upsampling == "transposed")
        if arguments.padding == "valid":
            skip = graph.crop(skip, lost)
            lost = 2 * lost + 8
        x = graph.double(f"merge.{number}", graph.add("Concat", [skip, x], axis=1))
    graph.convolve("head", x, output="y")
    return graph.content(arguments.bands, arguments.outputs)


class _Graph:
    """Collects the nodes and weights of a graph.

    Parameters
    ----------
    helper
        ``onnx.helper``.
    weights
        Of the network, by name.
    pad
        Zeros around what is convolved with 3x3.
    """

    def __init__(self, helper: Any, weights: Weights, pad: int) -> None:
        self._helper, self._given, self._pad = helper, weights, pad
        self._nodes: list[Any] = []
        self._weights: dict[str, NDArray[Any]] = {}

    def add(self, kind: str, inputs: list[str], output: str | None = None, **settings: Any) -> str:
        name = output or f"t{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(kind, inputs, [name], name=name, **settings))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        name = f"w{len(self._weights)}"
        self._weights[name] = value
        return name

    def given(self, layer: str) -> list[str]:
        """The weight and the bias of a layer."""
        return [self.constant(self._given[f"{layer}.{kind}"]) for kind in ("weight", "bias")]

    def convolve(self, layer: str, x: str, output: str | None = None, pad: int = 0) -> str:
        return self.add("Conv", [x, *self.given(layer)], output, pads=[pad] * 4)

    def double(self, block: str, x: str) -> str:
        for place in (0, 2):
            x = self.add("Relu", [self.convolve(f"{block}.{place}", x, pad=self._pad)])
        return x

    def upsample(self, layer: str, x: str, transposed: bool) -> str:
        if transposed:
            return self.add("ConvTranspose", [x, *self.given(layer)], strides=[2, 2])
        x = self.convolve(layer, x)
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        return self.add(
            "Resize", [x, "", scales], mode="linear",
            coordinate_transformation_mode="half_pixel",
        )  # fmt: skip

    def crop(self, x: str, lost: int) -> str:
        bounds = [np.array([edge, edge], np.int64) for edge in (lost, -lost)]
        axes = np.array([2, 3], np.int64)
        return self.add("Slice", [x, *(self.constant(b) for b in (*bounds, axes))])

    def content(self, bands: int, outputs: int) -> bytes:
        from onnx import numpy_helper

        helper = self._helper
        float32 = 1
        graph = helper.make_graph(
            self._nodes,
            "unet",
            [helper.make_tensor_value_info("x", float32, [1, bands, "H", "W"])],
            [helper.make_tensor_value_info("y", float32, [1, outputs, "h", "w"])],
            [numpy_helper.from_array(value, name) for name, value in self._weights.items()],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        content: bytes = model.SerializeToString()
        return content
