"""The rows of a table as files hold them: fields with units, places in the file's coordinates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.objects.formats.frame import Frame, closed
from tilepipe.objects.outlines import Outlines
from tilepipe.objects.table import BATCH, Column, ObjectBatch, ObjectsInfo, ObjectTable
from tilepipe.text import one_line

NUMBER, CLASS = "number", "class"
CENTROID = ("centroid_x", "centroid_y")
BOX = ("left", "top", "right", "bottom")
"""The columns of a table that say where an object lies, in pixels of the mask."""

BOX_FIELDS = ("xmin", "ymin", "xmax", "ymax")

POINTS_AT_ONCE = 1 << 18
"""Points of outlines of a batch, about: objects may be nuclei, or lakes."""

DIGITS = 12
"""Of float64, in text."""

FIRST_BATCH = 1000
"""Objects that are read before it is known how many points they have."""

RESERVED = {"fid", "ogc_fid", "id", "geom", "geometry", "bbox", "rowid", "oid"}
"""Names that formats use for what is not a measurement."""

_UNITS = {"um": "µm", "um2": "µm^2", "m": "m", "m2": "m^2", "px": "px", "px2": "px^2"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a file."""

    name: str
    """With its unit: ``area_um2``; not one of `RESERVED`, and unlike all others in any case."""
    dtype: str
    """Numpy's name of its type; ``str`` for the class."""
    unit: str
    title: str


class Records:
    """The rows of a table in the fields of a file.

    Parameters
    ----------
    info
        The table's.
    frame
        The coordinates of the file.
    boxes
        Whether fields say the box of each object; files with outlines do without.
    """

    def __init__(self, info: ObjectsInfo, frame: Frame, *, boxes: bool) -> None:
        self.info, self.frame = info, frame
        self.classes = class_names(info)
        self._measured = measurements(info)
        names = {column.name for column in info.columns}
        self._centroid = names.issuperset(CENTROID)
        self._boxes = boxes and names.issuperset(BOX)
        columns = [Column(NUMBER, "int64", title="Number"), Column(CLASS, "str", title="Class")]
        if self._centroid:
            columns += [
                Column(name, "float64", frame.unit, f"Centroid {name[-1].upper()}")
                for name in CENTROID
            ]
        if self._boxes:
            columns += [Column(name, "float64", frame.unit, name) for name in BOX_FIELDS]
        self.fields = _fields((*columns, *self._measured))

    def values(self, batch: ObjectBatch) -> list[NDArray[Any]]:
        """The values (n,) of each field; of the class, its name (as objects)."""
        columns = batch.columns
        found = [
            columns[NUMBER].astype(np.int64),
            np.array(self.classes, object)[columns[CLASS]],
        ]
        if self._centroid:
            x, y = (columns[name] for name in CENTROID)
            found += list(self.frame.points(np.stack([x, y], axis=1).astype(np.float64)).T)
        if self._boxes:
            found += list(self._box(batch).T)
        return found + [columns[column.name] for column in self._measured]

    def _box(self, batch: ObjectBatch) -> NDArray[np.float64]:
        """(n, 4): that of the box in the mask, whose sides a rotated map does not share."""
        left, top, right, bottom = (batch.columns[name] for name in BOX)
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        moved = [self.frame.points(np.stack(corner, axis=1)) for corner in corners]
        boxes = [np.min(moved, axis=0), np.max(moved, axis=0)]
        return np.concatenate(boxes, axis=1).astype(np.float64)


def measurements(info: ObjectsInfo) -> tuple[Column, ...]:
    """The columns of a table that are neither number nor class, nor say where an object lies."""
    places = {NUMBER, CLASS, *CENTROID, *BOX}
    return tuple(column for column in info.columns if column.name not in places)


def class_names(info: ObjectsInfo) -> list[str]:
    """The names of the mask's classes, each in one line."""
    return [one_line(each.name) for each in info.mask.classes]


def titled(column: Column) -> str:
    """What a person reads: ``Major axis µm``."""
    title = one_line(column.title) or column.name.replace("_", " ").capitalize()
    return f"{title} {_UNITS.get(column.unit, column.unit)}".strip()


def unlike(names: Sequence[str]) -> list[str]:
    """Names, no two of which are equal: the second ``a`` is ``a (2)``."""
    found: list[str] = []
    for name in names:
        other, again = name, 2
        while other in found:
            other, again = f"{name} ({again})", again + 1
        found.append(other)
    return found


def shortest(values: NDArray[Any]) -> NDArray[Any]:
    """Values as they are written in few digits: 0.1 and not 0.10000000149 or 0.1000000000000003.

    Of a float32, the fewest digits that tell it from all others; of a float64, `DIGITS`, as those
    beyond come from rounding.
    """
    if values.dtype == np.float32:
        return values.astype("U").astype(np.float64)
    if values.dtype != np.float64:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.floor(np.log10(np.abs(values)))
    # Up to 10^22, powers are exact, and so is the quotient as far as it can be.
    fits = (size <= DIGITS - 1) & (size >= DIGITS - 23)
    scale = 10.0 ** np.where(fits, DIGITS - 1 - size, 0)
    return np.where(fits, np.round(values * scale) / scale, values)


def batches(table: ObjectTable, *, most: int = BATCH) -> Iterator[tuple[ObjectBatch, Outlines]]:
    """All rows with their outlines, in batches of about `POINTS_AT_ONCE` and at most ``most`` rows.

    Rings are closed: their first point is at their end, too.

    Raises
    ------
    InputError
        Where the table has no outlines.
    """
    if not table.info.outlines:
        raise InputError(
            f"{table.path} has no outlines; write its objects as .csv, or find them again with "
            "outlines"
        )
    start, size = 0, min(most, FIRST_BATCH)
    while start < len(table):
        batch = table.read(start, start + size)
        assert batch.outlines is not None, "asked above"
        yield batch, closed(batch.outlines)
        start += len(batch)
        per_object = max(1, len(batch.outlines.points) // len(batch))
        size = min(most, max(1, POINTS_AT_ONCE // per_object))


def _fields(columns: Iterable[Column]) -> tuple[Field, ...]:
    """The fields of columns, whose names no format forbids and no two of which are alike."""
    taken = set(RESERVED)
    fields = []
    for column in columns:
        base = re.sub(r"\W+", "_", one_line(column.name)).strip("_") or "value"
        base = f"{base}_{column.unit}" if column.unit else base
        name, again = base, 2
        while name.lower() in taken:
            name, again = f"{base}_{again}", again + 1
        taken.add(name.lower())
        fields.append(Field(name, column.dtype, column.unit, one_line(column.title)))
    return tuple(fields)
