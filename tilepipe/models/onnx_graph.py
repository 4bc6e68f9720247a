"""Reading and checking ONNX files; nothing in them runs here, and no other file is opened."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from tilepipe.errors import InputError
from tilepipe.models.precision import Precision
from tilepipe.storage import local_file
from tilepipe.text import sentence, shortened

LARGEST_FILE = 2**31 - 1
"""Bytes that protobuf can hold; larger networks keep weights in other files, which are refused."""

_FLOAT32, FLOAT16, _BFLOAT16 = 1, 10, 16
"""ONNX's numbers of element types."""
_PRECISIONS = {
    _BFLOAT16: Precision.BF16, FLOAT16: Precision.FP16, _FLOAT32: Precision.FP32,
}  # fmt: skip
"""The least precise first."""
_GIVEN = (_FLOAT32, FLOAT16)

_SMALL = 1024
"""Tensors of fewer values may hold shapes."""

_KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft")
"""Operators that come with ONNX Runtime itself."""

_RANDOM = {"Bernoulli", "Multinomial"} | {
    f"Random{kind}{like}" for kind in ("Normal", "Uniform") for like in ("", "Like")
}

_WHOLE_TILE = {
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GroupNormalization",
    "InstanceNormalization",
}
"""Operators that make every output depend on the whole tile, whatever their arguments."""

_PERHAPS_WHOLE_TILE = _WHOLE_TILE | {
    "Attention",
    "Gemm",
    "LayerNormalization",
    "LpNormalization",
    "MatMul",
    "MeanVarianceNormalization",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
}


@dataclass(frozen=True, slots=True)
class Side:
    """The input or the output of a graph: its name, type and shape."""

    name: str
    element: int
    """ONNX's number of its element type."""
    shape: tuple[int | None, ...]
    """None for sides that the file leaves open."""


class Graph:
    """A checked network of one input and one output, as ONNX describes it."""

    def __init__(self, proto: Any, source: str) -> None:
        self.proto = _inlined(proto, source)
        self.source = source
        _check(self.proto, source)
        self.input = self._side("input", _inputs(self.proto))
        self.output = self._side("output", list(self.proto.graph.output))

    @property
    def opset(self) -> int:
        """Version of ONNX's operators that it uses."""
        return max((o.version for o in self.proto.opset_import if o.domain == ""), default=0)

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(math.prod(tensor.dims) for tensor in self.proto.graph.initializer)

    @property
    def precision(self) -> Precision:
        """The least precise floating-point type that the graph holds or casts to."""
        found = {t.data_type for t in self.proto.graph.initializer} | {self.input.element}
        for node in self.proto.graph.node:
            found |= {a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"}
        held = (precision for number, precision in _PRECISIONS.items() if number in found)
        return next(held, Precision.FP32)

    def whole_tile(self, perhaps: bool = False) -> str | None:
        """The operators that make every output depend on the whole tile; None if none is known to.

        Parameters
        ----------
        perhaps
            Include those that may do so, for a network that was measured to be so.
        """
        kinds = _PERHAPS_WHOLE_TILE if perhaps else _WHOLE_TILE
        nodes = [n for n in self.proto.graph.node if n.op_type in kinds]
        if not nodes:
            return None
        first = nodes[0]
        same = sum(n.op_type == first.op_type for n in nodes)
        name = _plain(first.name or first.output[0])
        return f"{first.op_type} ({name}{f' and {same - 1} more' if same > 1 else ''})"

    def fixed_sides(self, axes: tuple[int, int]) -> tuple[int, int] | None:
        """The only (height, width) that the file states; None where it leaves them open."""
        height, width = (self.input.shape[axis] for axis in axes)
        return (height, width) if height is not None and width is not None else None

    def opened(self, axes: tuple[int, int]) -> Graph:
        """A copy that leaves height and width open."""
        proto = _onnx().ModelProto()
        proto.CopyFrom(self.proto)
        del proto.graph.value_info[:]
        for what, value in (("in", _inputs(proto)[0]), ("out", proto.graph.output[0])):
            dims = value.type.tensor_type.shape.dim
            for axis in (0, *axes) if len(dims) == 4 else ():
                dims[axis].Clear()
                dims[axis].dim_param = f"{what}_{'batch' if axis == 0 else axis}"
        return Graph(proto, self.source)

    def document(self, key: str) -> str | None:
        """The text kept with the graph under a key of its metadata."""
        return next((e.value for e in self.proto.metadata_props if e.key == key), None)

    def content(self, key: str, document: str | None = None) -> bytes:
        """The bytes of the file, with the text under ``key`` replaced or left out."""
        proto = _onnx().ModelProto()
        proto.CopyFrom(self.proto)
        others = [(e.key, e.value) for e in proto.metadata_props if e.key != key]
        del proto.metadata_props[:]
        for name, value in (*others, *([(key, document)] if document is not None else [])):
            proto.metadata_props.add(key=name, value=value)
        return bytes(proto.SerializeToString(deterministic=True))

    def with_shapes(self) -> tuple[bytes, list[str]]:
        """A graph whose outputs are the shapes of all tensors; and the names of the tensors.

        Its larger weights are zeros, made when they are needed: shapes do not depend on them.
        """
        onnx = _onnx()
        given = self.proto.graph
        names = [name for node in given.node for name in node.output if name]
        proto = onnx.ModelProto(
            ir_version=self.proto.ir_version,
            opset_import=self.proto.opset_import,
            graph=onnx.GraphProto(name="shapes", input=_inputs(self.proto)),
        )
        for tensor in given.initializer:
            if tensor.data_type not in _PRECISIONS or math.prod(tensor.dims) < _SMALL:
                proto.graph.initializer.append(tensor)
                continue
            dims = np.array(tensor.dims, np.int64)
            sides = onnx.numpy_helper.from_array(dims, f"tilepipe_sides_{tensor.name}")
            width = 4 if tensor.data_type == _FLOAT32 else 2
            zero = onnx.TensorProto(data_type=tensor.data_type, dims=[1], raw_data=bytes(width))
            proto.graph.initializer.append(sides)
            proto.graph.node.append(
                onnx.helper.make_node("ConstantOfShape", [sides.name], [tensor.name], value=zero)
            )
        proto.graph.node.extend(given.node)
        for number, name in enumerate(names):
            shape = f"tilepipe_shape_{number}"
            proto.graph.node.append(onnx.helper.make_node("Shape", [name], [shape]))
            proto.graph.output.append(
                onnx.helper.make_tensor_value_info(shape, onnx.TensorProto.INT64, [None])
            )
        return bytes(proto.SerializeToString()), names

    def _side(self, what: str, values: list[Any]) -> Side:
        if len(values) != 1:
            names = ", ".join(_plain(v.name) for v in values) or "none"
            raise InputError(
                f"{self.source}: must have one {what}, and has {len(values)} ({names}); export "
                "the network again with only the one you need"
            )
        (value,) = values
        tensor = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
        if tensor.elem_type not in _GIVEN:
            raise InputError(
                f"{self.source}: {what} {_plain(value.name)} must be float32 or float16; export "
                "the network again without the steps that prepare pixels or decide on labels"
            )
        if tensor.HasField("shape") and len(shape) != 4:
            raise InputError(
                f"{self.source}: {what} {_plain(value.name)} must have four axes (batch, channels, "
                f"height, width), and has {len(shape)}; export the network again with all four"
            )
        return Side(value.name, tensor.elem_type, shape or (None,) * 4)


def read_graph(path: str | os.PathLike[str]) -> Graph:
    """Read an ONNX file and check that it is safe to run and complete in itself.

    Raises
    ------
    InputError
        Where it is not an ONNX file, needs other files or operators, or has more than one input or
        output.
    """
    path = local_file(os.fspath(path), "an ONNX file")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise InputError(
                f"{path.name}: is {size / 1e9:.1f} GB large, and an ONNX file is at most 2.1 GB"
            )
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read: {error.strerror or error}") from error
    proto = _onnx().ModelProto()
    try:
        proto.ParseFromString(content)
    except Exception as error:  # of no fixed kind
        raise InputError(f"{path.name}: is damaged or not an ONNX file") from error
    if not proto.graph.node:
        raise InputError(f"{path.name}: is damaged or not an ONNX file: it holds no network")
    return Graph(proto, path.name)


def _check(proto: Any, source: str) -> None:
    onnx = _onnx()
    tensors = list(proto.graph.initializer)
    for node in proto.graph.node:
        name = _plain(node.op_type)
        if node.domain not in _KNOWN_DOMAINS:
            raise InputError(
                f"{source}: needs the operator {name} of {_plain(node.domain)}, which is foreign "
                "code; export the network with ONNX's own operators"
            )
        if node.op_type in _RANDOM:
            raise InputError(
                f"{source}: holds {name}, which gives other values each time; export the network "
                "in evaluation mode"
            )
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise InputError(
                    f"{source}: holds {name}, whose steps are decided as it runs; export the "
                    "network without branches and loops"
                )
            tensors += [attribute.t, *attribute.tensors]
    if any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in tensors):
        raise InputError(
            f"{source}: keeps weights in other files; save it as one file "
            "(onnx.save(onnx.load(path), path))"
        )
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # of no fixed kind
        raise InputError(f"{source}: is not valid ONNX: {first_line(error)}") from error


def _inputs(proto: Any) -> list[Any]:
    # Older files list the weights among the inputs.
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def _inlined(proto: Any, source: str) -> Any:
    if not proto.functions:
        return proto
    try:
        from onnx.inliner import inline_local_functions

        return inline_local_functions(proto)
    except Exception as error:  # of no fixed kind
        raise InputError(f"{source}: is not valid ONNX: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error, as plain text."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _plain(re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0]), 200)


def _plain(text: str | bytes, longest: int = 80) -> str:
    # Protobuf returns bytes for text that is not UTF-8.
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    return shortened(sentence(text), longest)


def _onnx() -> ModuleType:
    try:
        import onnx
    except ImportError:
        raise missing("onnx") from None
    return onnx


def missing(package: str) -> InputError:
    """The error that says how to install an optional package."""
    return InputError(
        f"ONNX networks need {package}, which is not installed: "
        'pip install "tilepipe[onnx]" (or "tilepipe[clouds]")'
    )
