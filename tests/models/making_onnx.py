"""Small ONNX files, made here and now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tilepipe.models import ClassSpec, InputSpec, OutputSpec, UNet, UNetArguments

onnx = __import__("pytest").importorskip("onnx", reason="needs the extra onnx")

TINY = UNetArguments(bands=3, outputs=3, width=4, depth=2)


def network(arguments: UNetArguments = TINY, seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(arguments).eval()


def input_spec(bands: int = 3) -> InputSpec:
    return InputSpec(bands, "uint8", 1 / 255, (0.5,) * bands, (0.25,) * bands)


def output_spec(classes: int = 3, activation: str = "softmax") -> OutputSpec:
    colours = ("#000000", "#ff0000", "#00ff00", "#0000ff")
    specs = tuple(ClassSpec(f"class {i}", colours[i]) for i in range(classes))
    background = None if activation == "linear" else 0
    return OutputSpec(activation, specs, background=background)  # type: ignore[arg-type]


def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(
        kind, list(inputs), [output], name=f"{kind}_{output}", **attributes
    )


def write(
    path: Path,
    nodes: Sequence[Any],
    weights: dict[str, np.ndarray] | None = None,
    *,
    given: Sequence[Any] = ("N", 3, "H", "W"),
    taken: Sequence[Any] = ("N", 3, "h", "w"),
    element: int = 1,
    domains: Sequence[tuple[str, int]] = (("", 17),),
    outputs: Sequence[str] = ("y",),
) -> Path:
    """An ONNX file whose input is called x."""
    h = onnx.helper
    graph = h.make_graph(
        list(nodes),
        "network",
        [h.make_tensor_value_info("x", element, list(given))],
        [h.make_tensor_value_info(name, 1, list(taken)) for name in outputs],
        [onnx.numpy_helper.from_array(v, k) for k, v in (weights or {}).items()],
    )
    opsets = [h.make_opsetid(*domain) for domain in domains]
    onnx.save(h.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def write_unet(
    path: Path, net: UNet, *, last: str = "", side: int | None = None, nhwc: bool = False
) -> Path:
    """A U-Net of ours as ONNX; ``last``: Softmax or Sigmoid; ``side``: the only one it says."""
    a = net.arguments
    nodes: list[Any] = []
    weights: dict[str, np.ndarray] = {}

    def add(kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        nodes.append(node(kind, inputs, f"t{len(nodes)}", **attributes))
        return f"t{len(nodes) - 1}"

    def weigh(module: nn.Module, x: str) -> list[str]:
        names = [x]
        for tensor in (module.weight, module.bias):
            names.append(f"w{len(weights)}")
            weights[names[-1]] = tensor.detach().numpy()
        return names

    def double(module: nn.Sequential, x: str) -> str:
        for layer in module:
            if isinstance(layer, nn.Conv2d):
                x = add("Conv", weigh(layer, x), pads=[layer.padding[0]] * 4)
            else:
                x = add("Relu", [x])
        return x

    x = add("Transpose", ["x"], perm=[0, 3, 1, 2]) if nhwc else "x"
    skips: list[str] = []
    for level, module in enumerate(net.down):
        if level:
            x = add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
        x = double(module, x)  # type: ignore[arg-type]
        skips.append(x)
    skips.pop()
    lost = 4  # of a skip, at each edge, when the way up reaches it
    for up, merge in zip(net.up, net.merge, strict=True):
        x = add("ConvTranspose", weigh(up.convolution, x), strides=[2, 2])
        skip = skips.pop()
        if a.padding == "valid":
            for name, value in (("from", lost), ("to", -lost)):
                weights[f"{name}{lost}"] = np.array([value, value], np.int64)
            weights["axes"] = np.array([2, 3], np.int64)
            skip = add("Slice", [skip, f"from{lost}", f"to{lost}", "axes"])
            lost = 2 * lost + 8
        x = double(merge, add("Concat", [skip, x], axis=1))  # type: ignore[arg-type]
    x = add("Conv", weigh(net.head, x))
    if last:
        x = add(last, [x], **({"axis": 1} if last == "Softmax" else {}))
    if nhwc:
        x = add("Transpose", [x], perm=[0, 2, 3, 1])
    nodes[-1].output[0] = "y"
    sides = (side, side) if side else ("H", "W")
    out = ("h", "w")
    given = (1 if side else "N", *sides, a.bands) if nhwc else ("N", a.bands, *sides)
    taken = ("N", *out, a.outputs) if nhwc else ("N", a.outputs, *out)
    return write(path, nodes, weights, given=given, taken=taken)
