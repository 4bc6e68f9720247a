"""The sizes of an ONNX network's tensors, worked out before any of them is allocated.

A few bytes can ask for a stride of 65536 or a constant of a terabyte, which ONNX Runtime would
allocate as soon as it opens the file.
"""

from __future__ import annotations

import math
from typing import Any

from tilepipe.errors import InputError
from tilepipe.models.onnx_graph import Graph

VALUES_A_PIXEL = 2048
"""More channels than any real network has at the resolution of its input."""

LEAST_PIXELS = 64 * 64
"""Least size of a window for the limit: constants do not shrink with the window."""

_SMALL = 1024
"""Tensors of fewer values may hold shapes, so their values are kept."""


def check_sizes(graph: Graph, shape: tuple[int, ...], pixels: int) -> None:
    """Refuse a network with a tensor far larger than its window explains.

    Parameters
    ----------
    graph
        A graph that was read and checked.
    shape
        The shape of its input.
    pixels
        Height times width of that input.

    Raises
    ------
    InputError
        Names the tensor. Sizes that depend on values are not known here, and pass.
    """
    limit = VALUES_A_PIXEL * max(pixels, LEAST_PIXELS)
    for name, sides in _sides(graph, shape):
        if any(side > 2**40 for side in sides) or math.prod(sides) > limit:
            raise InputError(
                f"{graph.source}: its tensor {name} would hold {' x '.join(map(str, sides))} "
                f"values for a window of {pixels:,} pixels; this is not a network for images"
            )


def _sides(graph: Graph, shape: tuple[int, ...]) -> list[tuple[str, list[int]]]:
    """Names and sides of all tensors whose sides follow from the input's."""
    import onnx

    weights = {tensor.name for tensor in graph.proto.graph.initializer}
    proto: Any = onnx.ModelProto(
        ir_version=graph.proto.ir_version, opset_import=graph.proto.opset_import
    )
    proto.graph.name = "sizes"
    proto.graph.node.extend(graph.proto.graph.node)
    for tensor in graph.proto.graph.initializer:
        if 0 <= math.prod(tensor.dims) < _SMALL:
            proto.graph.initializer.append(tensor)
        else:
            proto.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    given = graph.input
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info(given.name, given.element, list(shape))
    )
    for value in graph.proto.graph.output:
        # Without its sides: what the file says of them cannot be trusted here.
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, None)
        )
    try:
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # of no fixed kind; ONNX Runtime will report what is wrong
        return []
    return [
        (value.name, [dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in (*proto.graph.value_info, *proto.graph.output)
        if value.name not in weights
    ]
