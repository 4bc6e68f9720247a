"""Documents held against the dataclasses that describe them; an error names the key at fault."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tilepipe.text import sentence, shortened

T = TypeVar("T")


def load_json(text: str | bytes) -> Any:
    """Parse a JSON text.

    Raises
    ------
    ValueError
        For text that is not JSON, or is nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def decode(kind: type[T], document: Any, key: str = "", *, complete: bool = False) -> T:
    """Build a dataclass from a JSON document, strictly: types, bounds, keys and finite numbers.

    Parameters
    ----------
    kind
        The dataclass. Bounds are `msgspec.Meta` in its annotations.
    document
        The parsed JSON.
    key
        Where the document stands in a larger one, for messages: ``network.arguments``.
    complete
        Whether every field must be given, those with a default too.

    Raises
    ------
    ValueError
        With a sentence that begins with the key at fault: ``input.std[0] must be above 0, not 0``.
    """
    if isinstance(document, dict) and is_dataclass(kind):
        # msgspec ignores unknown keys of dataclasses, and cannot look up one that is no text.
        _check_keys(kind, document, key, complete=complete)
    result: T = convert(document, kind, key)
    _check_parts(document, result, key)
    return result


def convert(value: Any, kind: Any, key: str) -> Any:
    """Convert a value to a type; see `decode`, which also looks at keys and finite numbers."""
    import msgspec

    if isinstance(value, set | frozenset):  # YAML has them, in no order
        raise ValueError(f"{key or 'the document'} must be {describe(kind)}, not {shown(value)}")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(_explained(str(error), value, kind, key)) from error
    except (ArithmeticError, RecursionError, UnicodeError) as error:
        raise ValueError(f"{key or 'the document'} cannot be read: {error}") from error


def no_such_key(key: str, known: Iterable[str], what: str = "key") -> str:
    """Say that a key does not exist, and which one may be meant."""
    name = key.rpartition(".")[2]
    close = get_close_matches(name, list(known), 1)
    way_out = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return f"{_plain(key)} is not a known {what}; {way_out}"


def shown(value: Any) -> str:
    """A value as a person may see it in a message: short, and in one line."""
    try:
        return _plain(reprlib.repr(value))
    except ValueError:  # an int of more digits than Python prints
        return "a very large number"


def describe(kind: Any) -> str:
    """What a type accepts, for a person: ``a whole number or auto``."""
    origin = get_origin(kind)
    if origin is Annotated:
        return describe(get_args(kind)[0])
    if origin in (Union, UnionType):
        return " or ".join(describe(part) for part in get_args(kind) if part is not NoneType)
    if origin is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if origin in (tuple, list):
        return "a list"
    return _NAMES.get(kind, "an object")


_NAMES: dict[Any, str] = {
    int: "a whole number", float: "a number", str: "a string", bool: "true or false",
}  # fmt: skip

_BOUND = re.compile(r"Expected `\w+` (>=|<=|>|<) (\S+)")
_BOUNDS = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}
_LENGTH = re.compile(r"Expected `array` of length (\d+), got (\d+)")


def _explained(message: str, value: Any, kind: Any, key: str) -> str:
    """An error of msgspec as a sentence."""
    message, _, place = message.partition(" - at `")
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        kind = _part(kind, name)
        value = value[name or int(index)]
        key = _join(key, name) if name else f"{key}[{index}]"
    what = key or "the document"
    if place.startswith("key`"):
        return f"{what} must have strings as its keys"
    if found := re.fullmatch("Object missing required field `(.*)`", message):
        return f"{_join(key, found[1])} is missing"
    if found := _BOUND.match(message):
        bound = f"{int(found[2]):,}" if found[2].lstrip("-").isdigit() else f"{float(found[2]):g}"
        return f"{what} must be {_BOUNDS[found[1]]} {bound}, not {shown(value)}"
    if found := _LENGTH.match(message):
        return f"{what} must have {found[1]} entries, not {found[2]}"
    if message.startswith(("Expected ", "Invalid enum value")):
        return f"{what} must be {describe(kind)}, not {shown(value)}"
    if message.startswith("Number out of range"):
        return f"{what} must be a finite number, not {shown(value)}"
    # What a dataclass says itself; of one of its fields, or of all of them together.
    names = _hints(kind) if isinstance(kind, type) and is_dataclass(kind) else {}
    return _join(key, message) if message.split(" ")[0] in names else f"{what}: {message}"


def _part(kind: Any, name: str) -> Any:
    """The type of a field, or of the items of a list where ``name`` is empty."""
    for part in get_args(kind) if get_origin(kind) in (Union, UnionType, Annotated) else (kind,):
        if name and isinstance(part, type) and is_dataclass(part):
            return _hints(part)[name]
        if not name and get_origin(part) in (tuple, list):
            return get_args(part)[0]
        if get_origin(part) in (Union, UnionType):
            return _part(part, name)
    return Any


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@cache
def _fields(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _check_keys(kind: Any, document: Mapping[Any, Any], key: str, *, complete: bool) -> None:
    known = _fields(kind)
    for name in document:
        if name not in known:
            raise ValueError(no_such_key(_join(key, str(name)), known))
    for name in known if complete else ():
        if name not in document:
            raise ValueError(f"{_join(key, name)} is missing")


_PLAIN = (str, int, bool, NoneType)
"""Types of values that have no parts, and are finite."""


def _check_parts(document: Any, result: Any, key: str) -> None:
    """Refuse unknown keys within a document, and numbers that are not finite."""
    if is_dataclass(result) and isinstance(document, dict):
        _check_keys(type(result), document, key, complete=False)
        for name, value in document.items():
            part = getattr(result, name)
            if type(value) not in _PLAIN:
                _check_parts(value, part, _join(key, name))
            if type(value) is int and isinstance(part, float):
                # 1 and not 1.0: a document that is written again keeps its bytes.
                object.__setattr__(result, name, value)
    elif isinstance(result, tuple | list):
        for index, (value, part) in enumerate(zip(document, result, strict=True)):
            _check_parts(value, part, f"{key}[{index}]")
    elif isinstance(result, float) and not math.isfinite(result):
        raise ValueError(f"{key} must be a finite number, not {shown(document)}")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _plain(text: str) -> str:
    return shortened(sentence(text), 80)
