"""What a training decides before its first step: network, input, classes, metric."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import cast

from tilepipe.engine.hardware import cores
from tilepipe.engine.work.environment import choose_device
from tilepipe.errors import InputError
from tilepipe.models.document import Document, checked
from tilepipe.models.file import load_model
from tilepipe.models.geometry import geometry_of
from tilepipe.models.specs import Activation, ClassSpec, InputSpec, Model, OutputSpec
from tilepipe.models.unet import UNet, UNetArguments
from tilepipe.training.options import TrainOptions
from tilepipe.training.pairs import Pair, find_pairs, split_pairs
from tilepipe.training.survey import Survey, check_validation, survey
from tilepipe.training.tiles import Shelf

COLOURS = ("#000000", "#00a0ff", "#ffb000", "#e6194b", "#3cb44b", "#911eb4", "#f58231", "#46f0f0")
"""Of classes for which none are given."""


@dataclass(frozen=True)
class Recipe:
    """What a training decided before its first step."""

    options: TrainOptions
    arguments: UNetArguments
    input: InputSpec
    output: OutputSpec
    survey: Survey
    training: list[Pair]
    validation: list[Pair]
    side: int
    loss: str
    metric: str
    device: str
    threads: int
    start: Model | None = None
    resumed: int = 0
    """The step that it goes on from."""


def prepare(options: TrainOptions) -> tuple[Recipe, Shelf, Shelf]:
    """Everything that is decided before the first step; nothing is written."""
    start = load_model(options.start_from) if options.start_from else None
    training, validation = split_pairs(
        find_pairs(options.data, options.masks), options.validation, options.exclude, options.seed
    )
    shelf, judged = Shelf(training), Shelf(validation)
    labelled = start is not None and start.output.activation == "softmax"
    found = survey(shelf, options, len(start.output.classes) if start and labelled else 0)
    check_validation(shelf, judged, found)
    activation = _activation(options, found)
    arguments = _arguments(options, found, start, activation)
    classes = _classes(options, found, start, activation)
    keeps_input = start is not None and (start.input.bands, start.input.dtype) == (
        found.bands, found.dtype,
    )  # fmt: skip
    spec = InputSpec(
        bands=found.bands,
        dtype=found.dtype,
        scale=start.input.scale if start and keeps_input else found.scale,
        mean=start.input.mean if start and keeps_input else found.mean,
        std=start.input.std if start and keeps_input else found.std,
        pixel_size=found.pixel_size or (start.input.pixel_size if start else None),
        band_names=found.band_names or (start.input.band_names if start and keeps_input else ()),
    )
    if options.hed and (found.bands != 3 or found.dtype != "uint8"):
        raise InputError(
            f"hed: stain jitter is for RGB pictures of 8 bits, not {found.bands} bands of "
            f"{found.dtype}; leave it 0"
        )
    geometry = geometry_of(arguments)
    side = options.tile or geometry.input
    if not geometry.is_valid(side):
        nearest = geometry.input_for(max(geometry.stride_factor, geometry.kept(side)))
        raise InputError(
            f"tile {side}: this network takes {geometry.smallest_input} and every "
            f"{geometry.stride_factor} pixels more; the nearest is {nearest}"
        )
    device = choose_device(options.device)
    metric = options.metric or ("rmse" if activation == "linear" else "dice")
    _check_metric(metric, activation, found, options)
    output = OutputSpec(activation, classes, background=_background(activation))
    # What the model file would refuse, it refuses now.
    checked(Document(arguments, geometry, spec, output, dict(options.about)), options.output)
    return (
        Recipe(
            options, arguments, spec, output, found, training, validation, side,
            _loss(options, activation), metric, device, options.threads or cores(), start,
        ),
        shelf,
        judged,
    )  # fmt: skip


def _activation(options: TrainOptions, found: Survey) -> Activation:
    regresses = any(part in ("mse", "mae") for part in options.loss.split("+"))
    if found.scheme.kind == "values":
        return "linear"
    if regresses:
        raise InputError(
            f"loss {options.loss}: is for values, and the masks hold labels; use --labels values "
            "to regress them as numbers"
        )
    if "bce" in options.loss:
        if found.outputs != 2:
            raise InputError(
                f"loss {options.loss}: tells two classes apart, and there are {found.outputs}; use "
                "cross-entropy"
            )
        return "sigmoid"
    return "softmax"


def _loss(options: TrainOptions, activation: Activation) -> str:
    parts = options.loss.split("+")
    if activation != "linear" or all(part in ("mse", "mae") for part in parts):
        if activation == "sigmoid" and "cross-entropy" in parts:
            raise InputError("loss: bce and cross-entropy do not combine; take one of them")
        return options.loss
    if options.loss != TrainOptions.__dataclass_fields__["loss"].default:
        raise InputError(f"loss {options.loss}: the masks hold values; use mse or mae")
    return "mse"


def _arguments(
    options: TrainOptions, found: Survey, start: Model | None, activation: Activation
) -> UNetArguments:
    outputs = 1 if activation == "sigmoid" else found.outputs
    if start is None:
        return options.arguments(found.bands, outputs)
    if not isinstance(start.network, UNet):
        raise InputError(
            f"{start.path or start.name}: only a U-Net of tilepipe can be gone on from"
        )
    has_arguments = cast(UNetArguments, start.arguments)
    fixed = ("width", "depth", "padding", "normalisation", "upsampling")
    for name in fixed:
        asked, has = getattr(options, name), getattr(has_arguments, name)
        if asked is not None and asked != has:
            raise InputError(f"{name} {asked}: model {start.name} has {has}; leave it out")
    dropout = has_arguments.dropout if options.dropout is None else options.dropout
    return replace(has_arguments, bands=found.bands, outputs=outputs, dropout=dropout)


def _classes(
    options: TrainOptions, found: Survey, start: Model | None, activation: Activation
) -> tuple[ClassSpec, ...]:
    count = found.outputs
    if options.classes:
        if len(options.classes) != count:
            raise InputError(
                f"{len(options.classes)} classes are named, and the masks hold {count}"
            )
        return tuple(_class(text, i) for i, text in enumerate(options.classes))
    if start is not None and len(start.output.classes) == count:
        return start.output.classes
    if activation == "linear":
        names = [f"value {i + 1}" if count > 1 else "value" for i in range(count)]
        return tuple(ClassSpec(name) for name in names)
    names = ["background", "object", "border"]
    if found.scheme.kind == "classes" and count > 2:
        names = ["background", *(f"class {i}" for i in range(1, count))]
    return tuple(ClassSpec(name, _colour(i)) for i, name in enumerate(names[:count]))


def _class(text: str, index: int) -> ClassSpec:
    name, _, colour = text.partition("=")
    colour = colour or _colour(index)
    if not name or not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        raise InputError(f"class {text}: must be a name, or a name and a colour: nucleus=#00a0ff")
    return ClassSpec(name, colour)


def _colour(index: int) -> str:
    return COLOURS[index] if index < len(COLOURS) else f"#{(index * 0x3D4F1B) % 0xFFFFFF:06x}"


def _background(activation: Activation) -> int | None:
    return None if activation == "linear" else 0


def _check_metric(
    metric: str, activation: Activation, found: Survey, options: TrainOptions
) -> None:
    values = metric in ("rmse", "mae")
    if metric != "loss" and values != (activation == "linear"):
        what = "values" if activation == "linear" else "labels"
        raise InputError(f"metric {metric}: is not for masks of {what}")
    if metric == "object-f1" and found.scheme.kind != "instances":
        raise InputError("metric object-f1: needs masks that number their objects (--instances)")
    found.class_weights(options.class_weights)
