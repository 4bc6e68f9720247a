"""Model files of ONNX networks: the network, with the JSON document in its metadata."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from tilepipe._torch import torch
from tilepipe.errors import InputError
from tilepipe.grid import Geometry
from tilepipe.models.document import Document, checked, document_of, parse_document
from tilepipe.models.onnx_graph import Graph, read_graph
from tilepipe.models.onnx_network import Gives, Layout, OnnxArguments, OnnxNetwork
from tilepipe.models.onnx_sizes import check_sizes
from tilepipe.models.predictors.onnx import OnnxPredictor
from tilepipe.models.probe import probe_geometry
from tilepipe.models.specs import InputSpec, Model, OutputSpec

METADATA_KEY = "tilepipe"
SUFFIX = ".onnx"

_FACTORS = (1, 2, 4, 8, 16, 32, 64)

_networks: WeakValueDictionary[str, OnnxNetwork] = WeakValueDictionary()
"""Networks in use, by fingerprint: they never change, so that a process holds each once."""


def load_onnx(path: Path) -> Model:
    """Load a model file that holds an ONNX network.

    Raises
    ------
    InputError
        Where something in the file is wrong, or ONNX Runtime does not take it.
    """
    graph = read_graph(path)
    text = graph.document(METADATA_KEY)
    if text is None:
        raise InputError(
            f"{path.name}: is an ONNX network without a description under the metadata key "
            f"{METADATA_KEY!r}; add one with tilepipe.models.import_onnx and save_model"
        )
    document = parse_document(text, path.name)
    if not isinstance(document.arguments, OnnxArguments):
        raise InputError(
            f"{path.name}: network.name must be onnx for an ONNX network, found "
            f"{document.arguments.kind}"
        )
    return _assemble(path.stem, document, graph, str(path))


def onnx_content(model: Model) -> bytes:
    """The bytes of the model file of an ONNX network."""
    graph: Graph = model.network.graph
    return graph.content(METADATA_KEY, document_of(model, model.name).dumps())


def import_onnx(
    path: str | os.PathLike[str],
    input: InputSpec,  # noqa: A002 - the word of the model file
    output: OutputSpec,
    *,
    layout: Layout = "NCHW",
    gives: Gives = "logits",
    tile: int | None = None,
    stride_factor: int | None = None,
    margin: int | None = None,
    exact: bool = True,
    about: Mapping[str, Any] | None = None,
) -> Model:
    """Make a model of an ONNX file, ready for inference or `save_model`.

    Where the file fixes height and width and the network runs on others too, they are left open.

    Parameters
    ----------
    path
        One file with one input and one output of four axes.
    input, output
        How pixels become its input, and its output a mask.
    layout
        Order of its axes.
    gives
        ``probabilities`` where its last layer is the softmax or sigmoid of `output.activation`.
    tile
        Side of its tile; by default what the file fixes, or a valid one near 572.
    stride_factor, margin
        Its geometry; measured where left out. A network that takes one size only cannot be
        measured, so that they must be given.
    exact
        False to use a network whose every output depends on the whole tile nevertheless: with its
        own tile only, its masks never called exact. Then `tile`, `stride_factor` and `margin` must
        be given.
    about
        Source, licence, data, metrics: JSON values.

    Raises
    ------
    InputError
        Where the network cannot be tiled exactly and `exact` is not False, or the parts do not
        agree.
    """
    graph = read_graph(path)
    arguments = OnnxArguments(input.bands, _outputs(output, graph, layout), layout, gives)
    _check_channels(graph, arguments)
    likely = (graph.fixed_sides(arguments.spatial_axes) or (tile or 256,))[0]
    check_sizes(graph, arguments.shape(likely, likely), likely * likely)
    graph, ran = _opened(graph, arguments, output)
    fixed = graph.fixed_sides(arguments.spatial_axes)
    side = tile or (fixed or ran or (None,))[0]
    named = {"tile": side, "stride_factor": stride_factor, "margin": margin}
    absent = [name for name, value in named.items() if value is None]
    if (not exact or fixed) and absent:
        raise InputError(
            f"{graph.source}: {'takes one size only' if exact else 'is not exact'}, so that its "
            f"geometry cannot be measured; give {' and '.join(absent)}"
        )
    if exact and (culprit := graph.whole_tile()):
        raise InputError(
            f"{graph.source}: cannot be tiled exactly: {culprit} makes every output depend on the "
            "whole tile; give exact=False to use it nevertheless"
        )
    network = OnnxNetwork(graph, arguments, output.activation == "softmax")
    if side is not None and stride_factor is not None and margin is not None:
        geometry = _geometry(network, side, stride_factor, margin)
    else:
        geometry = _measured(network, side, stride_factor, margin)
    document = checked(
        Document(arguments, geometry, input, output, dict(about or {}), exact), graph.source
    )
    return _assemble(Path(path).stem, document, graph, None)


def _outputs(output: OutputSpec, graph: Graph, layout: Layout) -> int:
    """The number of output channels: what the file says, or else the classes."""
    count = graph.output.shape[1 if layout == "NCHW" else 3]
    single = output.activation == "sigmoid" and len(output.classes) == 2 and output.background == 0
    return count or (1 if single else len(output.classes))


def _opened(
    graph: Graph, arguments: OnnxArguments, output: OutputSpec
) -> tuple[Graph, tuple[int, int] | None]:
    """The graph, its sides left open where it runs so; and the (height, width) that it fixed."""
    fixed = graph.fixed_sides(arguments.spatial_axes)
    if fixed is None:
        return graph, None
    try:
        opened = graph.opened(arguments.spatial_axes)
        network = OnnxNetwork(opened, arguments, output.activation == "softmax")
        # Twice the size is valid whatever its stride factor.
        given = torch.zeros(1, arguments.bands, 2 * fixed[0], 2 * fixed[1])
        with torch.inference_mode():
            large, small = network(given), network(given[..., : fixed[0], : fixed[1]])
        if any(large.shape[i] - small.shape[i] != fixed[i] for i in (-2, -1)):
            return graph, fixed
    except InputError:
        return graph, fixed
    return opened, fixed


def _geometry(network: OnnxNetwork, side: int, stride_factor: int, margin: int) -> Geometry:
    """The geometry that the caller gave, with its output measured."""
    with torch.inference_mode():
        output = network(torch.zeros(1, network.arguments.bands, side, side)).shape[-1]
    try:
        return Geometry(side, int(output), margin, stride_factor)
    except ValueError as error:
        raise InputError(f"{network.graph.source}: {error}") from error


def _measured(
    network: OnnxNetwork, side: int | None, stride_factor: int | None, margin: int | None
) -> Geometry:
    """The geometry found by probing, with the smallest stride factor that holds."""
    bands, source = network.arguments.bands, network.graph.source
    last: InputError | None = None
    for factor in (stride_factor,) if stride_factor else _FACTORS:
        try:
            found = probe_geometry(
                network, bands, factor, side, noise=network.noise, loses_nan=True
            )
        except InputError as error:
            last = error
            continue
        if margin is None:
            return found
        if margin < found.margin:
            raise InputError(f"{source}: the margin must be at least {found.margin}, not {margin}")
        return _geometry(network, found.input, factor, margin)
    assert last is not None
    suspect = network.graph.whole_tile(perhaps=True)
    reason = str(last).removeprefix(f"{source}: ")
    raise InputError(
        f"{source}: {reason}"
        + (f" (perhaps {suspect}); give exact=False to use it nevertheless" if suspect else "")
    ) from last


def _assemble(name: str, document: Document, graph: Graph, path: str | None) -> Model:
    arguments, geometry = document.arguments, document.geometry
    assert isinstance(arguments, OnnxArguments)
    if document.output.activation == "linear" and arguments.gives != "logits":
        raise InputError(
            f"{graph.source}: network.arguments.gives must be logits for the activation linear, "
            f"which takes the values as they are, found {arguments.gives}"
        )
    _check_channels(graph, arguments)
    side = (graph.fixed_sides(arguments.spatial_axes) or (geometry.smallest_input,))[0]
    check_sizes(graph, arguments.shape(side, side), side * side)
    content = document.canonical().encode() + b"\n" + graph.content(METADATA_KEY)
    fingerprint = hashlib.sha256(content).hexdigest()
    network = _networks.get(fingerprint)
    if network is None:
        softmax = document.output.activation == "softmax"
        network = OnnxNetwork(graph, arguments, softmax, geometry).eval()
    if network.fixed is not None and network.fixed != (geometry.input, geometry.input):
        height, width = network.fixed
        raise InputError(
            f"{graph.source}: takes windows of {width} x {height} only, and its description says "
            f"{geometry.input} (tile.input)"
        )
    culprit = graph.whole_tile()
    if document.exact and culprit:
        raise InputError(
            f"{graph.source}: cannot be tiled exactly: {culprit} makes every output depend on the "
            "whole tile; its description must say so (tile.exact: false)"
        )
    inexact = document.inexact
    if inexact and culprit:
        inexact = f"{culprit} makes every output depend on the whole tile"
    network.session(torch.device("cpu"))  # what ONNX Runtime refuses, it refuses now
    _networks[fingerprint] = network
    return Model(
        name=name,
        predictor=OnnxPredictor(
            arguments,
            network,
            inexact=inexact,
            fixed=inexact is not None or network.fixed is not None,
        ),
        geometry=geometry,
        input=document.input,
        output=document.output,
        about=document.about,
        fingerprint=fingerprint,
        path=path,
    )


def _check_channels(graph: Graph, arguments: OnnxArguments) -> None:
    for what, side, count in (
        ("input", graph.input, arguments.bands),
        ("output", graph.output, arguments.outputs),
    ):
        found = side.shape[arguments.channel_axis]
        if found not in (None, count):
            raise InputError(
                f"{graph.source}: its {what} has {found} channels in the layout "
                f"{arguments.layout}, and its description says {count}"
            )
