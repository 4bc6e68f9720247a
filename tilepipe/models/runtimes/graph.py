"""A U-Net as an ONNX graph, for runtimes that take one."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe._torch import Tensor, nn
from tilepipe.models.unet import UNet, Upsample
from tilepipe.storage.cache import kept

OPSET, IR_VERSION = 17, 8
FORM = 1
"""To be raised when other nodes are made of the same network: graphs are kept between runs."""


def as_onnx(network: UNet) -> bytes:
    """The graph of an ONNX model: ``x`` (1, bands, H, W) to ``y`` (1, outputs, h, w), float32.

    It is kept in the user's cache: loading the package ``onnx`` takes longer than all the rest.

    Parameters
    ----------
    network
        Without batch normalisation (see `fold_batch_normalisation`).
    """
    return kept(f"unet-{_identity(network)}.onnx", lambda: _made(network))


def _identity(network: UNet) -> str:
    """A hash of all that the graph depends on."""
    digest = hashlib.sha256(f"{FORM} {OPSET} {IR_VERSION} {network.arguments}".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"\n{name} {tuple(tensor.shape)}\n".encode())
        digest.update(_array(tensor).data)
    return digest.hexdigest()[:32]


def _made(network: UNet) -> bytes:
    import onnx

    arguments = network.arguments
    assert arguments.normalisation == "none", "folded before"
    graph = _Graph(onnx.helper)
    x, skips = "x", []
    for level, double in enumerate(network.down):
        if level:
            x = graph.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
        x = graph.double(double, x)
        skips.append(x)
    skips.pop()
    lost = 4  # of a skip, at each edge, by the time that the way up reaches it
    for up, merge in zip(network.up, network.merge, strict=True):
        assert isinstance(up, Upsample)
        x, skip = graph.upsample(up, x), skips.pop()
        if arguments.padding == "valid":
            skip = graph.crop(skip, lost)
            lost = 2 * lost + 8
        x = graph.double(merge, graph.add("Concat", [skip, x], axis=1))
    graph.convolve(network.head, x, output="y")
    return graph.content(arguments.bands, arguments.outputs)


class _Graph:
    """Collects the nodes and weights of a graph."""

    def __init__(self, helper: Any) -> None:
        self._helper = helper
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

    def convolve(self, module: nn.Module, x: str, output: str | None = None) -> str:
        assert isinstance(module, nn.Conv2d)
        weights = [self.constant(_array(module.weight))]
        if module.bias is not None:
            weights.append(self.constant(_array(module.bias)))
        pad = int(module.padding[0])
        return self.add("Conv", [x, *weights], output, pads=[pad] * 4)

    def double(self, block: nn.Module, x: str) -> str:
        for module in block.children():
            if isinstance(module, nn.Conv2d):
                x = self.add("Relu", [self.convolve(module, x)])
        return x

    def upsample(self, up: Upsample, x: str) -> str:
        module = up.convolution
        if not up.transposed:
            x = self.convolve(module, x)
            scales = self.constant(np.array([1, 1, 2, 2], np.float32))
            return self.add(
                "Resize", [x, "", scales], mode="linear",
                coordinate_transformation_mode="half_pixel",
            )  # fmt: skip
        assert isinstance(module, nn.ConvTranspose2d)
        assert module.bias is not None
        weights = [self.constant(_array(t)) for t in (module.weight, module.bias)]
        return self.add("ConvTranspose", [x, *weights], strides=[2, 2])

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


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().cpu().float().numpy())
