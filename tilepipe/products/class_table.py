"""Tables of classes, for masks of other programs: which label is called what, in which colour.

A table is a file or a text. All of these say the same::

    0=background,1=nucleus:#00a0ff               a text
    background,nucleus=#00a0ff                   the same, as in `tilepipe train --classes`

    value,name,colour                            a CSV file
    0,background,
    1,nucleus,#00a0ff

    {"0": "background", "1": {"name": "nucleus", "colour": "#00a0ff"}}            a JSON file
    {"classes": ["background", {"name": "nucleus", "colour": "#00a0ff"}], "background": 0}

The last is how models and masks of tilepipe hold their classes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tilepipe.errors import InputError
from tilepipe.products.base import NO_ANSWER, MaskClass
from tilepipe.schema import load_json
from tilepipe.storage import local_file
from tilepipe.text import first_line, shortened

if TYPE_CHECKING:
    from tilepipe.models.specs import OutputSpec

COLOURS = ("#000000", "#00a0ff", "#ffb000", "#e6194b", "#3cb44b", "#911eb4", "#f58231", "#46f0f0")
"""Colours of the first classes, where none are given."""

LARGEST_FILE = 2**20
"""Bytes of a file with a table; one of 255 classes has a few thousand."""

_FORM = "give VALUE=NAME or VALUE=NAME:#rrggbb for each class, such as 0=background,1=nucleus"
_VALUES, _NAMES, _COLOURS = ("value", "label", "id"), ("name", "class"), ("colour", "color")
"""The names that a column of CSV, or a key of JSON, may have."""


class ClassTable(NamedTuple):
    """The classes of the labels 0, 1, 2 ..., and which of them is the background."""

    classes: tuple[MaskClass, ...]
    background: int | None

    @classmethod
    def of(cls, output: OutputSpec) -> ClassTable:
        """The classes of a model."""
        classes = tuple(MaskClass(c.name, c.colour) for c in output.classes)
        return cls(classes, output.background)


class _Row(NamedTuple):
    """A class as it is given: its label, its name, and its colour, if it has one."""

    value: int
    name: str
    colour: str


def default_colour(label: int) -> str:
    """The colour ``#rrggbb`` of a label for which none is given."""
    return COLOURS[label] if label < len(COLOURS) else f"#{(label * 0x3D4F1B) % 0xFFFFFF:06x}"


def read_class_table(text_or_path: str | Path) -> ClassTable:
    """Read a table of classes from a file (``.json`` or ``.csv``), or from a text.

    Labels that a table leaves out, below its largest, are called by their number. The background
    is what a table says it is, or the class that is called so.

    Parameters
    ----------
    text_or_path
        See the head of this module.

    Raises
    ------
    InputError
        The file does not exist, or the table is not understood, names a label or a class twice, or
        has labels that are not 0 .. 254 (255 is "no answer").
    """
    given = str(text_or_path)
    suffix = Path(given).suffix.lower()
    if isinstance(text_or_path, Path) or suffix in (".json", ".csv"):
        read = _from_json if suffix == ".json" else _from_csv
        where, content = f"classes {given}", _content(given)
    else:
        read, where, content = _from_text, f"classes {shortened(given, 80)}", given
    try:
        rows, background = read(content)
        return _table(rows, background)
    except ValueError as error:
        raise InputError(f"{where}: {first_line(error)}") from error


def _content(given: str) -> str:
    path = local_file(given, "a table of classes")
    if not path.exists():
        raise InputError(f"classes {given}: there is no such file; check the path, or {_FORM}")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"classes {given}: is too large for a table of classes; check the path")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"classes {given}: is not text in UTF-8; save it as such") from error
    except OSError as error:
        raise InputError(f"classes {given}: cannot be read: {error.strerror}") from error


def _table(rows: Sequence[_Row], background: int | None) -> ClassTable:
    """A table whose labels are checked, without gaps."""
    if not rows:
        raise ValueError(f"there are no classes; {_FORM}")
    named: dict[int, MaskClass] = {}
    for value, name, colour in rows:
        if not 0 <= value < NO_ANSWER:
            raise ValueError(
                f"class {name!r} has the label {value}; labels are 0 to {NO_ANSWER - 1}, as "
                f"{NO_ANSWER} stands for no answer"
            )
        if value in named:
            raise ValueError(f"label {value} is both {named[value].name!r} and {name!r}")
        if not name or any(name == other.name for other in named.values()):
            fault = f"two classes are called {name!r}" if name else f"label {value} has no name"
            raise ValueError(f"{fault}; give each a name of its own")
        named[value] = MaskClass(name, colour or default_colour(value))
    if background is not None and background not in named:
        raise ValueError(f"the background is label {background}, which is not in the table")
    if background is None:
        called_so = (v for v, c in named.items() if c.name.lower() == "background")
        background = next(called_so, None)
    every = range(max(named) + 1)
    unnamed = {v: MaskClass(str(v), default_colour(v)) for v in every if v not in named}
    return ClassTable(tuple({**unnamed, **named}[value] for value in every), background)


def _from_text(text: str) -> tuple[list[_Row], None]:
    rows = []
    for position, part in enumerate(part.strip() for part in text.split(",")):
        found = re.fullmatch(r"(?:(-?\d+)\s*=\s*)?(.*?)(?:\s*[:=]\s*(#.*))?", part)
        if found is None or not found[2] or "=" in found[2]:
            raise ValueError(f"{part!r} is not understood; {_FORM}")
        rows.append(_Row(int(found[1] or position), found[2], found[3] or ""))
    return rows, None


def _from_csv(text: str) -> tuple[list[_Row], None]:
    lines = csv.DictReader(StringIO(text), skipinitialspace=True)
    try:
        columns = [name.strip().lower() for name in lines.fieldnames or ()]
        found = [dict(zip(columns, line.values(), strict=False)) for line in lines]
    except csv.Error as error:
        raise ValueError(f"it is not CSV ({error})") from error
    if not any(name in columns for name in _NAMES) or not any(v in columns for v in _VALUES):
        raise ValueError("its first line must name the columns: value,name,colour")
    return [_row(line) for line in found if any(line.values())], None


def _from_json(text: str) -> tuple[list[_Row], int | None]:
    document: Any = load_json(text)
    background = None
    if isinstance(document, Mapping) and isinstance(document.get("classes"), list | Mapping):
        background, document = document.get("background"), document["classes"]
    if background is not None and type(background) is not int:
        raise ValueError(f"background must be a label, not {background!r}")
    if isinstance(document, Mapping):
        return [_row({"value": v, **_named(entry)}) for v, entry in document.items()], background
    if isinstance(document, list):
        return [_row({"value": v, **_named(e)}) for v, e in enumerate(document)], background
    raise ValueError('it must be an object such as {"0": "background", "1": "nucleus"}, or a list')


def _named(entry: Any) -> Mapping[str, Any]:
    return entry if isinstance(entry, Mapping) else {"name": entry}


def _row(given: Mapping[str, Any]) -> _Row:
    """A row whose label stands under ``value`` or another of its names."""
    # What an entry says itself comes after its place in a list, and so wins.
    value = [given[key] for key in _VALUES if given.get(key) not in (None, "")][-1:]
    name, colour = _first(given, _NAMES), _first(given, _COLOURS)
    if not value or not re.fullmatch(r"-?\d+", str(value[0]).strip()):
        raise ValueError(f"the label of class {name!r} must be a whole number")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"the name of label {value[0]} must be a text, not {name!r}")
    return _Row(int(value[0]), (name or "").strip(), str(colour or "").strip())


def _first(given: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((given[key] for key in keys if given.get(key) not in (None, "")), None)
