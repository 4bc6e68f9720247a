"""The JSON document in a model file; an error names the key at fault."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from msgspec import Meta

from tilepipe.errors import InputError
from tilepipe.grid import Geometry
from tilepipe.images.base import UNITS_IN_METRES, PixelSize
from tilepipe.models import specs
from tilepipe.models.object_rule import ObjectRule
from tilepipe.models.predictors import kind_named, kind_names, kind_of
from tilepipe.models.predictors.base import Arguments
from tilepipe.models.specs import (
    NO_ANSWER,
    Activation,
    ClassSpec,
    InputSpec,
    OutputSpec,
)
from tilepipe.schema import convert, decode, no_such_key, shown

FORMAT = 1
UNITS = (*UNITS_IN_METRES, "degree")

# Far beyond any real network, and small enough that no product of them overflows torch's sizes.
_LARGEST_ARGUMENT = 65536
_DEEPEST_ABOUT = 16
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Document:
    """Everything in a model file but the weights."""

    arguments: Arguments
    geometry: Geometry
    input: InputSpec
    output: OutputSpec
    about: dict[str, Any]
    exact: bool = True
    """False for a network that cannot be tiled exactly, and is to be used all the same."""

    @property
    def inexact(self) -> str | None:
        """Why the network cannot be tiled exactly, as far as the document tells."""
        return None if self.exact else "its description says that outputs depend on the whole tile"

    def as_json(self) -> dict[str, Any]:
        """The document as JSON values."""
        size = self.input.pixel_size
        output: dict[str, Any] = {
            "activation": self.output.activation,
            "classes": [{"name": c.name, "colour": c.colour} for c in self.output.classes],
            "background": self.output.background,
        }
        if self.output.activation == "sigmoid":
            output["thresholds"] = list(self.output.thresholds)
        if self.output.objects is not None:
            output["objects"] = self.output.objects.to_json()
        tile: dict[str, Any] = {f.name: getattr(self.geometry, f.name) for f in fields(Geometry)}
        if not self.exact:
            tile["exact"] = False
        return {
            "format": FORMAT,
            "network": {"name": self.arguments.kind, "arguments": asdict(self.arguments)},
            "tile": tile,
            "input": {
                "bands": self.input.bands,
                "dtype": self.input.dtype,
                "scale": self.input.scale,
                "mean": list(self.input.mean),
                "std": list(self.input.std),
                "pixel_size": None if size is None else {"value": size.x, "unit": size.unit},
                **({"band_names": list(names)} if (names := self.input.band_names) else {}),
            },
            "output": output,
            "about": self.about,
        }

    def dumps(self) -> str:
        """As JSON text, in the order a person would read it."""
        return json.dumps(self.as_json(), allow_nan=False)

    def canonical(self) -> str:
        """What decides on the mask, as JSON text that does not depend on the order of keys.

        How objects are made of a mask changes none of its pixels, so that is left out.
        """
        value = self.as_json()
        value["output"].pop("objects", None)
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def document_of(model: specs.Model, source: str) -> Document:
    """The checked document of a model; errors call it ``source``."""
    exact = model.predictor.inexact is None
    return checked(
        Document(model.arguments, model.geometry, model.input, model.output, model.about, exact),
        source,
    )


def parse_document(text: str, source: str) -> Document:
    """Read the JSON text of a model file.

    Parameters
    ----------
    text
        The value of the metadata key ``tilepipe``.
    source
        What errors call the file.

    Raises
    ------
    InputError
        Naming the key at fault, what it must be and what it is.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: its description is not valid JSON: {error}") from error
    return read_document(value, source)


def read_document(value: Any, source: str) -> Document:
    """Check the JSON values of a document; see `parse_document`."""
    try:
        if isinstance(value, dict) and "format" in value:
            # Before anything else: another format may have other keys.
            version = convert(value["format"], int, "format")
            if version != FORMAT:
                raise _fault(
                    "format", f"{FORMAT}, the only format this version of tilepipe reads", version
                )
        return _document(decode(_File, value), value)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error


def checked(document: Document, source: str) -> Document:
    """The document as reading it back would give it, or the error that reading would raise."""
    size = document.input.pixel_size
    if size is not None and size.y != size.x:
        raise InputError(
            f"{source}: input.pixel_size must be square, not {size.x} x {size.y} {size.unit}"
        )
    value = document.as_json()
    if not document.output.thresholds:
        value["output"].pop("thresholds", None)
    return read_document(value, source)


Side = Annotated[int, Meta(ge=0, le=2**20)]
Positive = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, slots=True)
class _Network:
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Tile:
    input: Side
    output: Side
    margin: Side
    stride_factor: Side
    exact: bool = True


@dataclass(frozen=True, slots=True)
class _PixelSize:
    value: Positive
    unit: str


@dataclass(frozen=True, slots=True)
class _Input:
    bands: int
    dtype: Literal[
        "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"
    ]
    scale: float
    mean: tuple[float, ...]
    std: tuple[Positive, ...]
    pixel_size: _PixelSize | None
    band_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Class:
    name: str
    colour: str | None = None


@dataclass(frozen=True, slots=True)
class _Output:
    activation: Activation
    classes: tuple[_Class, ...]
    background: int | None
    thresholds: tuple[float, ...] | None = None
    objects: ObjectRule | None = None


@dataclass(frozen=True, slots=True)
class _File:
    """The document as it stands in the file, before its parts are held against each other."""

    format: int
    network: _Network
    tile: _Tile
    input: _Input
    output: _Output
    about: dict[str, Any]


def _document(file: _File, value: dict[str, Any]) -> Document:
    arguments = _arguments(file.network)
    implied = kind_of(arguments).geometry(arguments)
    if implied is not None:
        if "exact" in value["tile"]:
            raise ValueError(no_such_key("tile.exact", [f.name for f in fields(Geometry)]))
        _check_tile(file.tile, implied)
    _check_about(file.about, "about", 0)
    return Document(
        arguments=arguments,
        geometry=_geometry(file.tile),
        input=_input(file.input, value["input"], arguments),
        output=_output(file.output, arguments),
        about=file.about,
        exact=file.tile.exact,
    )


def _fault(key: str, rule: str, value: Any) -> ValueError:
    return ValueError(f"{key} must be {rule}, not {shown(value)}")


def _check_count(values: Sequence[Any], count: int, key: str, rule: str) -> None:
    if len(values) != count:
        raise ValueError(f"{key} must have {count} entries ({rule}), not {len(values)}")


def _arguments(network: _Network) -> Arguments:
    key, kind = "network.arguments", kind_named(network.name)
    if kind is None:
        raise _fault("network.name", f"one of {', '.join(kind_names())}", network.name)
    arguments: Arguments = decode(kind.arguments_type, network.arguments, key, complete=True)
    for name, value in network.arguments.items():
        if isinstance(value, int) and value > _LARGEST_ARGUMENT:
            raise _fault(f"{key}.{name}", f"at most {_LARGEST_ARGUMENT}", value)
        if name in ("bands", "outputs") and value < 1:
            raise _fault(f"{key}.{name}", "at least 1", value)
    return arguments


def _check_tile(tile: _Tile, true: Geometry) -> None:
    """Hold the tile against the geometry that the network's arguments imply."""
    factor, output = true.stride_factor, tile.input - 2 * true.shrink
    if tile.stride_factor != factor:
        rule = f"{factor}, as network.arguments implies"
        raise _fault("tile.stride_factor", rule, tile.stride_factor)
    if (tile.input - true.input) % factor or output <= 0:
        rule = f"{true.input}, or differ from it by a multiple of {factor}"
        raise _fault("tile.input", rule, tile.input)
    if tile.output != output:
        rule = f"{output}, the output of this network for {tile.input}"
        raise _fault("tile.output", rule, tile.output)
    if tile.margin < true.margin or (tile.margin - true.margin) % factor:
        rule = f"{true.margin}, or more by a multiple of {factor}"
        raise _fault("tile.margin", rule, tile.margin)


def _geometry(tile: _Tile) -> Geometry:
    try:
        return Geometry(*(getattr(tile, f.name) for f in fields(Geometry)))
    except ValueError as error:
        raise ValueError(f"tile does not hold together: {error}") from error


def _input(given: _Input, value: dict[str, Any], arguments: Arguments) -> InputSpec:
    bands = arguments.bands
    if given.bands != bands:
        raise _fault("input.bands", f"{bands}, to match network.arguments.bands", given.bands)
    if given.scale == 0:
        raise _fault("input.scale", "a number other than 0", given.scale)
    _check_count(given.mean, bands, "input.mean", "one number for each band")
    _check_count(given.std, bands, "input.std", "one number for each band")
    if "band_names" in value:
        _check_count(given.band_names, bands, "input.band_names", "one name for each band")
    _check_names([name.casefold() for name in given.band_names], "input.band_names[{}]", "band")
    size = given.pixel_size
    if size is not None and size.unit not in UNITS:
        raise _fault("input.pixel_size.unit", f"one of {', '.join(UNITS)}", size.unit)
    return InputSpec(
        bands=bands,
        dtype=given.dtype,
        scale=float(given.scale),
        mean=given.mean,
        std=given.std,
        pixel_size=None if size is None else _square(size),
        band_names=given.band_names,
    )


def _square(size: _PixelSize) -> PixelSize:
    return PixelSize(float(size.value), float(size.value), size.unit)


def _check_names(names: Sequence[str], key: str, of: str) -> None:
    for number, name in enumerate(names):
        here = key.format(number)
        if not name.strip() or not name.isprintable():
            raise _fault(here, "a printable name", name)
        if len(name) > _LONGEST_NAME:
            raise _fault(here, f"a name of at most {_LONGEST_NAME} characters", name)
        if name in names[:number]:
            raise _fault(here, f"a name that no other {of} has", name)


def _output(given: _Output, arguments: Arguments) -> OutputSpec:
    activation, outputs = given.activation, arguments.outputs
    single = activation == "sigmoid" and outputs == 1
    count = 2 if single else outputs
    if activation == "softmax" and count < 2:
        rule = "sigmoid or linear for a network with one output"
        raise _fault("output.activation", rule, activation)
    if count > NO_ANSWER:
        rule = f"at most {NO_ANSWER}, because label {NO_ANSWER} means no answer"
        raise _fault("network.arguments.outputs", rule, count)
    rule = (
        "background and foreground, two classes, for one sigmoid output"
        if single
        else f"one class for each of the network's {count} outputs"
    )
    _check_count(given.classes, count, "output.classes", rule)
    _check_names([c.name for c in given.classes], "output.classes[{}].name", "class")
    return OutputSpec(
        activation=activation,
        classes=tuple(_class(c, i, activation) for i, c in enumerate(given.classes)),
        thresholds=_thresholds(given, outputs),
        background=_background(given, count, single=single),
        objects=_objects(given),
    )


def _objects(given: _Output) -> ObjectRule | None:
    rule, key = given.objects, "output.objects"
    if rule is None:
        return None
    if given.activation == "linear":
        raise _fault(key, "left out: a linear model has no classes", rule.to_json())
    names = [each.name for each in given.classes]
    for number, name in enumerate(rule.classes):
        if name not in names:
            raise _fault(f"{key}.classes[{number}]", f"one of {', '.join(names)}", name)
    if rule.border and rule.border not in names:
        raise _fault(f"{key}.border", f"one of {', '.join(names)}", rule.border)
    return rule


def _class(given: _Class, number: int, activation: Activation) -> ClassSpec:
    key = f"output.classes[{number}].colour"
    if given.colour is None:
        if activation != "linear":
            raise ValueError(f"{key} is missing")
        return ClassSpec(given.name)
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", given.colour):
        raise _fault(key, 'a colour such as "#1f77b4"', given.colour)
    return ClassSpec(given.name, given.colour.lower())


def _thresholds(given: _Output, outputs: int) -> tuple[float, ...]:
    key = "output.thresholds"
    if given.activation != "sigmoid":
        if given.thresholds:
            rule = f"left out: {given.activation} has no thresholds"
            raise _fault(key, rule, given.thresholds)
        return ()
    if given.thresholds is None:
        return (0.5,) * outputs
    _check_count(given.thresholds, outputs, key, "one number for each output of the network")
    for number, threshold in enumerate(given.thresholds):
        if not 0 < threshold < 1:
            raise _fault(f"{key}[{number}]", "between 0 and 1", threshold)
    return given.thresholds


def _background(given: _Output, count: int, *, single: bool) -> int | None:
    background, key = given.background, "output.background"
    if single and background != 0:
        raise _fault(key, "0: the first class of a single sigmoid is the background", background)
    if background is not None and not single and given.activation != "softmax":
        raise _fault(key, "null: planes have no background class", background)
    if background is not None and not 0 <= background < count:
        bound = "at least 0" if background < 0 else f"at most {count - 1}"
        raise _fault(key, bound, background)
    return background


def _check_about(value: Any, key: str, level: int) -> None:
    """Refuse what JSON cannot hold (numbers that are not finite, too), at any nesting."""
    if level > _DEEPEST_ABOUT:
        raise ValueError(f"about must not be nested deeper than {level - 1}")
    if isinstance(value, dict):
        for name, part in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{key} must have strings as its keys")
            _check_about(part, f"{key}.{name}", level + 1)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            _check_about(part, f"{key}[{number}]", level + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _fault(key, "a finite number", value)
    elif value is not None and not isinstance(value, str | bool | int):
        rule = "text, a number, a list, an object, true, false or null"
        raise _fault(key, rule, value)
