"""What is decided before the first step of a training: network, input, classes, metric."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import cast

from tilepipe.engine.hardware import cores
from tilepipe.engine.work.environment import choose_device
from tilepipe.errors import InputError
from tilepipe.grid import Geometry
from tilepipe.models.document import Document, checked
from tilepipe.models.file import load_model
from tilepipe.models.geometry import geometry_of
from tilepipe.models.specs import Activation, ClassSpec, InputSpec, Model, OutputSpec
from tilepipe.models.unet import UNet, UNetArguments
from tilepipe.products.class_table import default_colour
from tilepipe.text import count
from tilepipe.training.options import TrainOptions
from tilepipe.training.pairs import TrainingPair, find_pairs, split_pairs
from tilepipe.training.survey import Survey, check_validation, survey
from tilepipe.training.tiles import PairCache


@dataclass(frozen=True)
class Recipe:
    """What was decided before the first step of a training."""

    options: TrainOptions
    arguments: UNetArguments
    input: InputSpec
    output: OutputSpec
    survey: Survey
    training: list[TrainingPair]
    validation: list[TrainingPair]
    side: int
    """Side of the tiles that go in, in pixels."""
    loss: str
    metric: str
    device: str
    threads: int
    start: Model | None = None
    """The model to start from."""
    resumed: int = 0
    """The step from which the training was resumed."""


def prepare(options: TrainOptions) -> tuple[Recipe, PairCache, PairCache]:
    """Decide everything about a training; nothing is written.

    Returns
    -------
    recipe, training, validation
        What was decided, and the pairs of images and masks.

    Raises
    ------
    InputError
        Images, masks or options are at fault.
    """
    start = load_model(options.start_from) if options.start_from else None
    training, validation = split_pairs(
        find_pairs(options.data, options.masks), options.validation, options.exclude, options.seed
    )
    cache, validation_cache = PairCache(training), PairCache(validation)
    labelled = start is not None and start.output.activation == "softmax"
    found = survey(cache, options, len(start.output.classes) if start and labelled else 0)
    check_validation(cache, validation_cache, found)
    activation = _activation(options, found)
    arguments = _arguments(options, found, start, activation)
    spec = _input(options, found, start)
    metric = options.metric or ("rmse" if activation == "linear" else "dice")
    _check_metric(metric, activation, found, options)
    background = None if activation == "linear" else 0
    output = OutputSpec(
        activation, _classes(options, found, start, activation), background=background
    )
    # What a model file cannot hold is refused now, not when it is written.
    document = Document(arguments, geometry_of(arguments), spec, output, dict(options.about))
    recipe = Recipe(
        options, arguments, spec, output, found, training, validation,
        _tile_side(options, geometry_of(arguments)), _loss(options, activation), metric,
        choose_device(options.device), options.threads or cores(), start,
    )  # fmt: skip
    checked(document, options.output)
    return recipe, cache, validation_cache


def _input(options: TrainOptions, found: Survey, start: Model | None) -> InputSpec:
    """The input of the model; one to start from keeps its normalisation if the bands are alike."""
    old = start.input if start is not None else None
    kept = old if old and (old.bands, old.dtype) == (found.bands, found.dtype) else None
    if options.hed and (found.bands != 3 or found.dtype != "uint8"):
        raise InputError(
            f"hed: stain jitter needs RGB images of 8 bits, not {count(found.bands, 'band')} of "
            f"{found.dtype}; leave it 0"
        )
    return InputSpec(
        bands=found.bands,
        dtype=found.dtype,
        scale=kept.scale if kept else found.scale,
        mean=kept.mean if kept else found.mean,
        std=kept.std if kept else found.std,
        pixel_size=found.pixel_size or (old.pixel_size if old else None),
        band_names=found.band_names or (kept.band_names if kept else ()),
    )


def _tile_side(options: TrainOptions, geometry: Geometry) -> int:
    side = options.tile or geometry.input
    if not geometry.is_valid(side):
        nearest = geometry.input_for(max(geometry.stride_factor, geometry.kept(side)))
        raise InputError(
            f"tile {side}: this network takes {geometry.smallest_input} and every "
            f"{geometry.stride_factor} pixels more; the nearest is {nearest}"
        )
    return side


def _activation(options: TrainOptions, found: Survey) -> Activation:
    regresses = any(part in ("mse", "mae") for part in options.loss.split("+"))
    if found.scheme.kind == "values":
        return "linear"
    if regresses:
        raise InputError(
            f"loss {options.loss}: is for values, but the masks hold labels; use --labels values "
            "to regress them as numbers"
        )
    if "bce" in options.loss:
        if found.outputs != 2:
            raise InputError(
                f"loss {options.loss}: is for two classes, but there are {found.outputs}; use "
                "cross-entropy"
            )
        return "sigmoid"
    return "softmax"


def _loss(options: TrainOptions, activation: Activation) -> str:
    parts = options.loss.split("+")
    if activation != "linear" or all(part in ("mse", "mae") for part in parts):
        if activation == "sigmoid" and "cross-entropy" in parts:
            raise InputError("loss: bce and cross-entropy do not combine; use one of them")
        return options.loss
    if options.loss != TrainOptions.__dataclass_fields__["loss"].default:
        raise InputError(
            f"loss {options.loss}: is for labels, but the masks hold values; use mse or mae"
        )
    return "mse"


def _arguments(
    options: TrainOptions, found: Survey, start: Model | None, activation: Activation
) -> UNetArguments:
    outputs = 1 if activation == "sigmoid" else found.outputs
    if start is None:
        return options.arguments(found.bands, outputs)
    if not isinstance(start.network, UNet):
        raise InputError(
            f"{start.path or start.name}: training can only start from a U-Net of tilepipe"
        )
    has_arguments = cast(UNetArguments, start.arguments)
    fixed = ("width", "depth", "padding", "normalisation", "upsampling")
    for name in fixed:
        wanted, has = getattr(options, name), getattr(has_arguments, name)
        if wanted is not None and wanted != has:
            raise InputError(f"{name} {wanted}: model {start.name} has {has}; leave it out")
    dropout = has_arguments.dropout if options.dropout is None else options.dropout
    return replace(has_arguments, bands=found.bands, outputs=outputs, dropout=dropout)


def _classes(
    options: TrainOptions, found: Survey, start: Model | None, activation: Activation
) -> tuple[ClassSpec, ...]:
    outputs = found.outputs
    if options.classes:
        if len(options.classes) != outputs:
            raise InputError(
                f"{len(options.classes)} classes are named, but the masks hold {outputs}"
            )
        return tuple(_class(text, i) for i, text in enumerate(options.classes))
    if start is not None and len(start.output.classes) == outputs:
        return start.output.classes
    if activation == "linear":
        names = [f"value {i + 1}" if outputs > 1 else "value" for i in range(outputs)]
        return tuple(ClassSpec(name) for name in names)
    names = ["background", "object", "border"]
    if found.scheme.kind == "classes" and outputs > 2:
        names = ["background", *(f"class {i}" for i in range(1, outputs))]
    return tuple(ClassSpec(name, default_colour(i)) for i, name in enumerate(names[:outputs]))


def _class(text: str, index: int) -> ClassSpec:
    name, _, colour = text.partition("=")
    colour = colour or default_colour(index)
    if not name or not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        raise InputError(f"class {text}: must be a name, or a name and a colour: nucleus=#00a0ff")
    return ClassSpec(name, colour)


def _check_metric(
    metric: str, activation: Activation, found: Survey, options: TrainOptions
) -> None:
    values = metric in ("rmse", "mae")
    if metric != "loss" and values != (activation == "linear"):
        held = "values" if activation == "linear" else "labels"
        raise InputError(f"metric {metric}: is not for masks of {held}")
    if metric == "object-f1" and found.scheme.kind != "instances":
        raise InputError("metric object-f1: requires masks that number their objects (--instances)")
    found.class_weights(options.class_weights)
