"""Reading back JSON that tilepipe wrote: what is not as it was written is a ValueError, always."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

P = ParamSpec("P")
T = TypeVar("T")


def load_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises
    ------
    ValueError
        For what is none, and for what is nested more deeply than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def strict_json(read: Callable[P, T]) -> Callable[P, T]:
    """Make a function that builds a dataclass of a JSON document raise nothing but ValueError.

    The values of the dataclass, and of those in it, are held against their annotations: a file
    may say that a height is a text, and nothing else would notice before it is used.
    """

    @wraps(read)
    def strict(*given: P.args, **named: P.kwargs) -> T:
        try:
            result = read(*given, **named)
            _check(type(result), result, "")
            return result
        except KeyError as error:
            raise ValueError(f"{error} is missing") from error
        except (
            ArithmeticError, AttributeError, IndexError, RecursionError, TypeError
        ) as error:  # fmt: skip
            raise ValueError(str(error)) from error

    return strict


def _check(kind: Any, value: Any, where: str) -> None:
    """Raise ValueError where a value, or a part of it, is not of its annotated kind."""
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, kind):
        hints = get_type_hints(kind)
        for field in fields(kind):
            _check(hints[field.name], getattr(value, field.name), f"{where} {field.name}".strip())
    elif not _fits(kind, value, where):
        name = kind.__name__ if isinstance(kind, type) else kind
        raise ValueError(f"{where} is {value!r:.60}, not {name}")


def _fits(kind: Any, value: Any, where: str) -> bool:
    origin, given = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        if value is None:
            return NoneType in given
        return any(_is(part, value, where) for part in given)
    if origin is Literal:
        return isinstance(value, str | int) and value in given
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = [given[0]] * len(value) if given[1:] == (Ellipsis,) else list(given)
        return len(kinds) == len(value) and all(map(lambda k, v: _is(k, v, where), kinds, value))
    if origin in (dict, Mapping):
        return isinstance(value, dict)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(kind, type) and isinstance(value, kind)


def _is(kind: Any, value: Any, where: str) -> bool:
    try:
        _check(kind, value, where)
    except ValueError:
        return False
    return True


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
