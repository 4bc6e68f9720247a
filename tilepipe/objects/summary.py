"""Objects in numbers: how many of each class, how dense, how large."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.objects.areas import SHOWN, Area, AreaUnit, PixelArea
from tilepipe.objects.medians import medians
from tilepipe.objects.table import Column, ObjectsInfo, ObjectTable
from tilepipe.schema import decode
from tilepipe.text import count, one_line

PLACES = frozenset({
    "number", "class", "centroid_x", "centroid_y", "left", "top", "right", "bottom",
    "longitude", "latitude", "orientation", "angle",
})  # fmt: skip
"""Columns that say which object it is and where it lies, so that a mean of them means nothing."""

ALL = "(all)"
"""What stands for the class in figures of all objects together."""


@dataclass(frozen=True, slots=True)
class Typical:
    """A measurement of many objects, in the unit of its column."""

    mean: float
    median: float
    unit: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The objects of one class, or all of them, in a mask or a region."""

    name: str
    """Of the class, or `ALL`."""
    count: int
    area: float | None
    """Of all of them, in the large unit; None if the table has no areas."""
    share: float | None
    """Their area as a share of the answered area; None without such an area."""
    density: float | None
    """Objects per large unit of answered area."""
    tissue_density: float | None = None
    """Objects per large unit of answered tissue; None where no tissue is known."""
    typical: dict[str, Typical] = field(default_factory=dict)
    """By the name of the measurement; without those that no object has."""

    @classmethod
    def of(
        cls, name: str, number: int, area: float | None, answered: Area, tissue: Area | None = None,
        **others: Any,
    ) -> Figures:  # fmt: skip
        """The figures of a number of objects, and of their area in the large unit."""
        return cls(
            name, number, area,
            None if area is None or not answered.size else area / answered.size,
            number / answered.size if answered.size else None,
            number / tissue.size if tissue is not None and tissue.size else None,
            **others,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ObjectsSummary:
    """The objects of a table, in numbers."""

    unit: AreaUnit
    answered: Area
    """The part of the mask with an answer: where objects can have been found."""
    tissue: Area | None
    """The part of that which is tissue; None where it is not known."""
    classes: tuple[Figures, ...]
    """Of each class that objects may have."""
    total: Figures
    """Of all objects."""
    partial: str = ""
    """Why objects may be missing; empty if none are."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "units": {"area": self.unit.large, "density": f"per {self.unit.large}"},
            "answered": asdict(self.answered),
            "tissue": None if self.tissue is None else asdict(self.tissue),
            "classes": [asdict(figures) for figures in self.classes],
            "all": asdict(self.total),
            "partial": self.partial,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ObjectsSummary:
        """Read what `to_json` returned; ValueError, KeyError or TypeError for anything else."""
        tissue = document["tissue"]
        small = next(small for small, large in SMALL_UNITS if large == document["units"]["area"])
        return cls(
            AreaUnit(small, document["units"]["area"]),
            decode(Area, document["answered"]),
            None if tissue is None else decode(Area, tissue),
            tuple(decode(Figures, each) for each in document["classes"]),
            decode(Figures, document["all"]),
            str(document["partial"]),
        )


SMALL_UNITS = (("um2", "mm2"), ("m2", "ha"), ("m2", "km2"), ("px2", "Mpx"))
"""The small and the large unit of areas that belong together."""


def summarise_objects(
    table: ObjectTable, answered: Area, tissue: Area | None = None
) -> ObjectsSummary:
    """Summarise a table of objects.

    Columns are read in parts, several times, and medians are exact.

    Parameters
    ----------
    table : ObjectTable
        Of the objects.
    answered : Area
        How much of their mask has an answer (`tilepipe.objects.areas.answered_area`).
    tissue : Area, optional
        How much of that is tissue.
    """
    info = table.info
    pixel = PixelArea(info.mask)
    columns = measured(info)
    classes = len(info.mask.classes)
    tallies = [_tally(table, column, classes) for column in columns]
    counts = np.zeros(classes, np.int64)
    for part in table.chunks(("class",)):
        counts += np.bincount(part["class"], minlength=classes)
    shown = sorted({*object_classes(info), *np.flatnonzero(counts).tolist()})

    def figures(name: str, number: int, group: int) -> Figures:
        area = next(
            (t.sums[group] * pixel.converted(c.unit) for c, t in zip(columns, tallies, strict=True)
             if c.name == "area"), None,
        )  # fmt: skip
        typical = {
            column.name: Typical(
                float(tally.sums[group] / tally.counts[group]), float(tally.medians[group]),
                column.unit,
            )
            for column, tally in zip(columns, tallies, strict=True) if tally.counts[group]
        }  # fmt: skip
        area = None if area is None else float(area)
        return Figures.of(name, number, area, answered, tissue, typical=typical)

    return ObjectsSummary(
        pixel.unit, answered, tissue,
        tuple(figures(info.mask.classes[n].name, int(counts[n]), n) for n in shown),
        figures(ALL, int(counts.sum()), classes), info.partial,
    )  # fmt: skip


def object_classes(info: ObjectsInfo) -> list[int]:
    """The classes that objects may have: those of the rule, or all but background and border."""
    named, border = info.rule.get("classes"), info.rule.get("border")
    return [
        number
        for number, each in enumerate(info.mask.classes)
        if (each.name in named if named else number != info.mask.background and each.name != border)
    ]


def measured(info: ObjectsInfo) -> tuple[Column, ...]:
    """The columns of which means and medians mean something."""
    return tuple(
        column
        for column in info.columns
        if column.name not in PLACES and np.dtype(column.dtype).kind in "iuf"
    )


def show_objects(summary: ObjectsSummary) -> str:
    """The summary for a person, a line for each class."""
    unit = SHOWN[summary.unit.large]
    several = len(summary.classes) > 1
    rows = [*summary.classes, *([summary.total] if several else [])]
    lines = [_line(figures, unit) for figures in rows]
    answered = f"{short(summary.answered.size)} {unit} with an answer"
    if summary.tissue is not None:
        answered += f", {short(summary.tissue.size)} {unit} of it tissue"
    lines.append(f"{'objects in':24} {answered}")
    if summary.partial:
        lines.append(f"{'not all':24} {one_line(summary.partial)}")
    return "\n".join(lines)


def show_counts(summary: ObjectsSummary, most: int) -> str:
    """How many objects there are of each of at most so many classes, in one line."""
    unit = SHOWN[summary.unit.large]

    def shown(figures: Figures) -> str:
        named = f"{figures.count:,} {one_line(figures.name)}"
        density = "" if figures.density is None else f" ({short(figures.density)} per {unit})"
        return named + density

    more = len(summary.classes) - most
    text = ", ".join(map(shown, summary.classes[:most])) + (
        f", and {more} more" if more > 0 else ""
    )
    return f"objects: {text}"


def short(value: float) -> str:
    """A figure in four digits, or in whole numbers: ``0.02345``, ``12,345``."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _line(figures: Figures, unit: str) -> str:
    parts = [f"{one_line(figures.name):24} {count(figures.count, 'object'):>16}"]
    if figures.density is not None:
        parts.append(f"{short(figures.density)} per {unit}")
    if figures.tissue_density is not None:
        parts.append(f"{short(figures.tissue_density)} per {unit} of tissue")
    if figures.share is not None:
        parts.append(f"{figures.share:.2%} of the area")
    if (area := figures.typical.get("area")) is not None:
        parts.append(f"median {short(area.median)} {SHOWN.get(area.unit, area.unit)}")
    return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class _Tally:
    """A column by class, and of all objects last; arrays (classes + 1,)."""

    counts: NDArray[np.int64]
    """Values that are not NaN."""
    sums: NDArray[np.float64]
    medians: NDArray[np.float64]


def _tally(table: ObjectTable, column: Column, classes: int) -> _Tally:
    def by_class() -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
        for part in table.chunks(("class", column.name)):
            values = part[column.name].astype(np.float64)
            known = ~np.isnan(values)
            yield part["class"][known].astype(np.intp), values[known]

    counts, sums = np.zeros(classes, np.int64), np.zeros(classes)
    for groups, values in by_class():
        counts += np.bincount(groups, minlength=classes)
        # One after another in the table's order, so that the sums are the same everywhere.
        sums += np.bincount(groups, values, minlength=classes)
    middle = medians(by_class, counts)
    if np.count_nonzero(counts) > 1:
        overall = medians(
            lambda: ((np.zeros_like(groups), values) for groups, values in by_class()),
            counts.sum(keepdims=True),
        )
    else:
        overall = middle[counts > 0] if counts.any() else np.full(1, math.nan)
    total = counts.sum(keepdims=True), sums.sum(keepdims=True)
    return _Tally(
        np.append(counts, total[0]), np.append(sums, total[1]), np.append(middle, overall)
    )
