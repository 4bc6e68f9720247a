"""Options are fields of a dataclass: one declaration for command line, YAML file and Python.

`option` declares one: default, help, bounds, and how text becomes its value. `Options`, the base of
the dataclasses, reads mappings (a YAML file, flags, keywords) and checks what it holds; `signature`
and `help_text` describe it to Python.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache, reduce
from operator import or_
from os import PathLike, fspath
from pathlib import Path
from textwrap import fill
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from tilepipe.errors import InputError
from tilepipe.schema import convert, no_such_key


@dataclass(frozen=True, slots=True)
class Option:
    """How a field of a dataclass of options is described, written and bounded."""

    help: str
    """What it does, without a full stop."""
    flag: str = ""
    """Its name on the command line and in YAML files, where it is not that of the field."""
    short: str = ""
    """A short form, such as ``-m``."""
    metavar: str | None = None
    """What stands for its value in the help of the command line."""
    unset: str = ""
    """What applies if it is not given, where the default does not tell."""
    parse: Callable[[Any], Any] | None = None
    """Makes its value of text, and leaves alone what is not text; raises InputError."""
    bounds: tuple[tuple[str, float], ...] = ()
    """``ge``, ``gt``, ``le``, ``lt`` and their numbers, as `msgspec.Meta` takes them."""
    finite: bool = True
    """Whether NaN and infinity are refused."""


def option(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    **details: Any,
) -> Any:
    """Declare a field of a dataclass of options.

    Parameters
    ----------
    default
        Its default; ``...`` where it must be given.
    text
        Its help.
    least, above, most, below
        Bounds of a number: inclusive, exclusive, inclusive, exclusive.
    **details
        Of `Option`.
    """
    limits = {"ge": least, "gt": above, "le": most, "lt": below}
    bounds = tuple((name, value) for name, value in limits.items() if value is not None)
    metadata = {"option": Option(text, bounds=bounds, **details)}
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def details_of(each: Field[Any]) -> Option:
    """The `Option` of a field."""
    return each.metadata.get("option") or Option("")


types_of: Callable[[type], dict[str, Any]] = cache(get_type_hints)
"""The type of each field of a dataclass."""


def core(hint: Any) -> Any:
    """A type without None."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    return reduce(or_, (part for part in get_args(hint) if part is not NoneType))


@dataclass(frozen=True, slots=True)
class Options:
    """Base of dataclasses of options; what they hold has its declared type, within its bounds."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = _typed(type(self), each, getattr(self, each.name), each.name)
            object.__setattr__(self, each.name, value)

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """The options of a mapping, under the names and types of the fields.

        Parameters
        ----------
        values
            Text or values, under the names of fields or of flags, with ``-`` or ``_``.
        where
            The file they come from, for messages.

        Raises
        ------
        InputError
            Naming the option at fault.
        """
        prefix = f"{where}: " if where else ""
        known = {each.name: each for each in fields(cls)}
        flags = {details_of(each).flag or name: name for name, each in known.items()}
        result: dict[str, Any] = {}
        for key, value in values.items():
            name = str(key).replace("-", "_")
            name = flags.get(name, name)
            if name not in known:
                raise InputError(prefix + no_such_key(str(key), flags, "option"))
            try:
                result[name] = _typed(cls, known[name], value, str(key))
            except InputError as error:
                raise InputError(f"{prefix}{error}") from error
        return result

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """A dataclass of the options of a mapping; see `read`."""
        return cls(**cls.read(values, where))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The options in a YAML file, unchecked.

    Raises
    ------
    InputError
        Where it cannot be read, or holds no options.
    """
    import yaml

    from tilepipe.storage import local_file

    try:
        document = yaml.safe_load(local_file(str(path), "a YAML file").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, ArithmeticError, AttributeError, LookupError, TypeError,
            RecursionError) as error:  # fmt: skip
        # What is not YAML, and what is but means nothing: a thirteenth month, a key that is a list.
        line = " ".join(str(error).split())
        raise InputError(f"{path} is not valid YAML: {line}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} must hold options, one `name: value` a line")
    return document


def _typed(kind: type[Options], each: Field[Any], value: Any, key: str) -> Any:
    if type(value) is type(each.default) and value == each.default:
        return value
    details, accepted = details_of(each), _accepted(kind)[each.name]  # type: ignore[arg-type]
    value = _without_paths(value)
    texts = value if isinstance(value, tuple | list) else (value,)
    if any(isinstance(text, str) and not text.strip() for text in texts):
        # As a variable of the shell gives it that is not set.
        raise InputError(f"{key} is empty; give it a value, or leave it out")
    try:
        if details.parse is not None:
            value = details.parse(value)
        if get_origin(core(types_of(kind)[each.name])) is tuple and isinstance(
            value, str | int | float
        ):
            value = (value,)
        value = convert(value, accepted, key)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    except ValueError as error:
        raise InputError(str(error)) from error
    for number in value if isinstance(value, tuple) else (value,):
        if details.finite and isinstance(number, float) and not math.isfinite(number):
            raise InputError(f"{key} must be a finite number, not {number}")
    return value


@cache
def _accepted(kind: type[Options]) -> dict[str, Any]:
    """The type of each field, with its bounds."""
    from msgspec import Meta

    accepted = types_of(kind)
    for each in fields(kind):
        if bounds := details_of(each).bounds:
            bare = core(hint := accepted[each.name])
            limits: dict[str, Any] = dict(bounds)
            bounded: Any = Annotated[bare, Meta(**limits)]
            accepted = {**accepted, each.name: bounded if bare == hint else bounded | None}
    return accepted


def _without_paths(value: Any) -> Any:
    if isinstance(value, PathLike):
        return fspath(value)
    return list(map(_without_paths, value)) if isinstance(value, tuple | list) else value


def shown_default(each: Field[Any]) -> str:
    """What applies where an option is not given, for a person; empty where nothing does."""
    if unset := details_of(each).unset:
        return unset
    default = each.default
    if default is None or default is False or default is MISSING or default in ("", ()):
        return ""
    if default is True:
        return "on"
    if isinstance(default, tuple):
        return ",".join(f"{part:g}" for part in default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def signature(
    function: Callable[..., Any], kind: type[Options], *positional: str
) -> inspect.Signature:
    """The signature of a function whose ``**options`` are the fields of a dataclass.

    Parameters
    ----------
    function
        It ends in ``**options``.
    kind
        The dataclass.
    *positional
        Fields that the function has parameters of its own for.
    """
    own = inspect.signature(function)
    hints = types_of(kind)
    keywords = [
        inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY,
            default={} if each.default is MISSING else each.default, annotation=hints[each.name],
        )
        for each in fields(kind) if each.name not in positional
    ]  # fmt: skip
    given = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    return own.replace(parameters=[*given, *keywords])


def help_text(kind: type[Options], *left_out: str) -> str:
    """Every option with its type, default and meaning, as a section of a docstring."""
    lines = ["Options", "-------"]
    for each in fields(kind):
        if each.name in left_out:
            continue
        default = shown_default(each)
        lines.append(f"{each.name} : {_type_name(types_of(kind)[each.name])}")
        text = details_of(each).help + (f" [{default}]." if default else ".")
        lines.append(fill(text, 80, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)


def _type_name(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(_type_name(part) for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is Literal:
        return " | ".join(map(repr, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint).rpartition(".abc.")[2]
