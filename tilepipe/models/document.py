"""The JSON document in a model file: its keys, read strictly; the key at fault is named."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from tilepipe.errors import InputError
from tilepipe.grid import Geometry
from tilepipe.images.base import UNITS_IN_METRES, PixelSize
from tilepipe.models import specs
from tilepipe.models.predictors import kind_named, kind_names, kind_of
from tilepipe.models.predictors.base import Arguments
from tilepipe.models.specs import NO_ANSWER, Activation, ClassSpec, InputSpec, OutputSpec
from tilepipe.text import sentence, shortened

FORMAT = 1
DTYPES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "float16",
    "float32",
    "float64",
)
UNITS = (*UNITS_IN_METRES, "degree")

# Far beyond any real network, and small enough that no product of them overflows torch's sizes.
_LARGEST_ARGUMENT = 65536
_LARGEST_SIDE = 2**20
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
        """As JSON text that does not depend on the order in which keys were given."""
        return json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)


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
    root = _Value(source, "", value)
    if isinstance(value, dict) and "format" in value:
        # Before anything else: another format may have other keys.
        version = _Value(source, "format", value["format"])
        if version.integer() != FORMAT:
            raise version.fault(f"{FORMAT}, the only format this version of tilepipe reads")
    root.members("format", "network", "tile", "input", "output", "about")
    arguments = _arguments(root.at("network"))
    geometry, exact = _tile(root.at("tile"), kind_of(arguments).geometry(arguments))
    return Document(
        arguments=arguments,
        geometry=geometry,
        input=_input(root.at("input"), arguments),
        output=_output(root.at("output"), arguments),
        about=_about(root.at("about")),
        exact=exact,
    )


def checked(document: Document, source: str) -> Document:
    """The document as reading it back would give it, or the error that reading would raise."""
    size = document.input.pixel_size
    if size is not None and size.y != size.x:
        raise InputError(
            f"{source}: input.pixel_size must be square, found {size.y} x {size.x} {size.unit}"
        )
    value = document.as_json()
    if not document.output.thresholds:
        value["output"].pop("thresholds", None)
    return read_document(value, source)


def _arguments(network: _Value) -> Arguments:
    network.members("name", "arguments")
    name = network.at("name")
    kind = kind_named(name.text())
    if kind is None:
        raise name.fault("one of " + ", ".join(kind_names()))
    arguments, types = network.at("arguments"), get_type_hints(kind.arguments_type)
    arguments.members(*(f.name for f in fields(kind.arguments_type)))
    for key in arguments.value:
        value, expected = arguments.at(key), types[key]
        if expected is int:
            value.integer(1, _LARGEST_ARGUMENT)
        elif expected is float:
            value.number()
        else:
            value.text()
            if get_origin(expected) is Literal:
                value.choice(get_args(expected))
    try:
        return kind.arguments_type(**arguments.value)
    except ValueError as error:
        raise InputError(f"{arguments.source}: {arguments.key}.{error}") from error


def _tile(tile: _Value, implied: Geometry | None) -> tuple[Geometry, bool]:
    """The geometry, and whether it is exact; ``implied`` is what follows from the arguments."""
    names = [f.name for f in fields(Geometry)]
    tile.members(*names, optional=() if implied else ("exact",))
    exact = tile.at("exact").value if "exact" in tile.value else True
    if not isinstance(exact, bool):
        raise tile.at("exact").fault("true or false")
    values = {name: tile.at(name).integer(0, _LARGEST_SIDE) for name in names}
    if implied is not None:
        _check_tile(tile, values, implied)
    return _geometry(tile, values), exact


def _check_tile(tile: _Value, values: dict[str, int], true: Geometry) -> None:
    if values["stride_factor"] != true.stride_factor:
        raise tile.at("stride_factor").fault(f"{true.stride_factor}, as network.arguments implies")
    if (values["input"] - true.input) % true.stride_factor or values["input"] <= 2 * true.shrink:
        raise tile.at("input").fault(
            f"{true.input}, or differ from it by a multiple of {true.stride_factor}"
        )
    if values["output"] != values["input"] - 2 * true.shrink:
        raise tile.at("output").fault(
            f"{values['input'] - 2 * true.shrink}, what this network gives for {values['input']}"
        )
    if values["margin"] < true.margin or (values["margin"] - true.margin) % true.stride_factor:
        raise tile.at("margin").fault(
            f"{true.margin}, or more by a multiple of {true.stride_factor}"
        )


def _geometry(tile: _Value, values: dict[str, int]) -> Geometry:
    try:
        return Geometry(**values)
    except ValueError as error:
        raise InputError(f"{tile.source}: {tile.key} does not hold together: {error}") from error


def _input(given: _Value, arguments: Arguments) -> InputSpec:
    given.members("bands", "dtype", "scale", "mean", "std", "pixel_size", optional=("band_names",))
    bands = given.at("bands")
    if bands.integer() != arguments.bands:
        raise bands.fault(f"{arguments.bands}, as network.arguments.bands says")
    scale = given.at("scale")
    if scale.number() == 0:
        raise scale.fault("a number other than 0")
    mean = given.at("mean").items(arguments.bands, "one number for each band")
    std = given.at("std").items(arguments.bands, "one number for each band")
    for value in std:
        if value.number() <= 0:
            raise value.fault("greater than 0")
    return InputSpec(
        bands=arguments.bands,
        dtype=given.at("dtype").choice(DTYPES),
        scale=scale.number(),
        mean=tuple(value.number() for value in mean),
        std=tuple(value.number() for value in std),
        pixel_size=_pixel_size(given.at("pixel_size")),
        band_names=_band_names(given, arguments.bands),
    )


def _band_names(given: _Value, bands: int) -> tuple[str, ...]:
    if "band_names" not in given.value:
        return ()
    names: list[str] = []
    for item in given.at("band_names").items(bands, "one name for each band"):
        name = item.text()
        if not name.strip() or not name.isprintable():
            raise item.fault("a printable name")
        if name.casefold() in (other.casefold() for other in names):
            raise item.fault("a name that no other band has")
        names.append(name)
    return tuple(names)


def _pixel_size(given: _Value) -> PixelSize | None:
    if given.value is None:
        return None
    given.members("value", "unit")
    value = given.at("value")
    if value.number() <= 0:
        raise value.fault("greater than 0")
    return PixelSize(value.number(), value.number(), given.at("unit").choice(UNITS))


def _output(given: _Value, arguments: Arguments) -> OutputSpec:
    given.members("activation", "classes", "background", optional=("thresholds",))
    activation = cast(Activation, given.at("activation").choice(("softmax", "sigmoid", "linear")))
    single = activation == "sigmoid" and arguments.outputs == 1
    count = 2 if single else arguments.outputs
    if activation == "softmax" and count < 2:
        raise given.at("activation").fault("sigmoid or linear for a network with one output")
    if count > NO_ANSWER:
        raise InputError(
            f"{given.source}: network.arguments.outputs must be at most {NO_ANSWER}, because "
            f"label {NO_ANSWER} means no answer, found {count}"
        )
    rule = (
        "background and foreground, two classes, for one sigmoid output"
        if single
        else f"one class for each of the network's {count} outputs"
    )
    return OutputSpec(
        activation=activation,
        classes=_classes(given.at("classes").items(count, rule), activation),
        thresholds=_thresholds(given, activation, arguments.outputs),
        background=_background(given.at("background"), activation, count, single),
    )


def _classes(items: Sequence[_Value], activation: Activation) -> tuple[ClassSpec, ...]:
    classes: list[ClassSpec] = []
    for item in items:
        if activation == "linear":
            item.members("name", optional=("colour",))
        else:
            item.members("name", "colour")
        name = item.at("name")
        if not name.text().strip() or not name.text().isprintable():
            raise name.fault("a printable name")
        if len(name.text()) > _LONGEST_NAME:
            raise name.fault(f"a name of at most {_LONGEST_NAME} characters")
        if name.text() in {c.name for c in classes}:
            raise name.fault("a name that no other class has")
        if "colour" not in item.value:
            classes.append(ClassSpec(name.text()))
            continue
        colour = item.at("colour")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour.text()):
            raise colour.fault('a colour such as "#1f77b4"')
        classes.append(ClassSpec(name.text(), colour.text().lower()))
    return tuple(classes)


def _thresholds(given: _Value, activation: Activation, outputs: int) -> tuple[float, ...]:
    if activation != "sigmoid":
        if given.value.get("thresholds"):
            raise given.at("thresholds").fault(f"left out: {activation} has no thresholds")
        return ()
    if "thresholds" not in given.value:
        return (0.5,) * outputs
    items = given.at("thresholds").items(outputs, "one number for each output of the network")
    for item in items:
        if not 0 < item.number() < 1:
            raise item.fault("between 0 and 1")
    return tuple(item.number() for item in items)


def _background(given: _Value, activation: Activation, count: int, single: bool) -> int | None:
    if single:
        if given.integer() != 0:
            raise given.fault("0: of a single sigmoid, the first class is the background")
        return 0
    if given.value is None:
        return None
    if activation != "softmax":
        raise given.fault("null: planes have no background class")
    return given.integer(0, count - 1)


def _about(given: _Value) -> dict[str, Any]:
    if not isinstance(given.value, dict):
        raise given.fault("an object")
    given.check_json()
    return given.value


@dataclass(frozen=True, slots=True)
class _Value:
    """A value somewhere in the document, that knows its key; complains as an InputError."""

    source: str
    key: str
    value: Any

    def fault(self, must_be: str) -> InputError:
        key = self.key or "the description"
        return InputError(f"{self.source}: {key} must be {must_be}, found {_shorten(self.value)}")

    def at(self, name: str) -> _Value:
        return _Value(self.source, f"{self.key}.{name}" if self.key else name, self.value[name])

    def members(self, *required: str, optional: tuple[str, ...] = ()) -> None:
        if not isinstance(self.value, dict):
            raise self.fault(f"an object with the keys {', '.join(required)}")
        prefix = f"{self.key}." if self.key else ""
        for name in required:
            if name not in self.value:
                raise InputError(f"{self.source}: {prefix}{name} is missing")
        for name in self.value:
            if name not in required and name not in optional:
                known = ", ".join((*required, *optional))
                raise InputError(
                    f"{self.source}: {prefix}{_plain(name)} is not a key tilepipe knows; "
                    f"there are {known}"
                )

    def items(self, count: int, rule: str) -> list[_Value]:
        if not isinstance(self.value, list):
            raise self.fault(f"a list, {rule}")
        if len(self.value) != count:
            raise InputError(
                f"{self.source}: {self.key} must have {count} entries ({rule}), "
                f"found {len(self.value)}"
            )
        return [_Value(self.source, f"{self.key}[{i}]", v) for i, v in enumerate(self.value)]

    def integer(self, least: int | None = None, most: int | None = None) -> int:
        # JSON's true is Python's True, which is an int.
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.fault("a whole number")
        if least is not None and self.value < least:
            raise self.fault(f"at least {least}")
        if most is not None and self.value > most:
            raise self.fault(f"at most {most}")
        return self.value

    def number(self) -> float:
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            raise self.fault("a number")
        try:
            number = float(self.value)
        except OverflowError:
            raise self.fault("a finite number") from None
        if not math.isfinite(number):
            raise self.fault("a finite number")
        return number

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.fault("a string")
        return self.value

    def choice(self, allowed: tuple[str, ...]) -> str:
        if self.value not in allowed:
            raise self.fault("one of " + ", ".join(allowed) if len(allowed) > 1 else allowed[0])
        return self.text()

    def check_json(self, level: int = 0) -> None:
        """Refuse what JSON cannot hold (numbers not finite among it), at any nesting."""
        if level > _DEEPEST_ABOUT:
            raise InputError(f"{self.source}: about must not be nested deeper than {level - 1}")
        if isinstance(self.value, dict):
            for name in self.value:
                if not isinstance(name, str):
                    raise InputError(f"{self.source}: {self.key} must have text as its keys")
                self.at(name).check_json(level + 1)
        elif isinstance(self.value, list):
            for i, value in enumerate(self.value):
                _Value(self.source, f"{self.key}[{i}]", value).check_json(level + 1)
        elif isinstance(self.value, int | float) and not isinstance(self.value, bool):
            self.number()
        elif self.value is not None and not isinstance(self.value, str | bool):
            raise self.fault("text, a number, a list, an object, true, false or null")


def _shorten(value: Any) -> str:
    try:
        return _plain(reprlib.repr(value))
    except ValueError:  # an int of more digits than Python prints
        return "a very large number"


def _plain(text: str) -> str:
    return shortened(sentence(text), 80)
