"""The table of classes over images: a row for each class of each image, as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Any

from tilepipe.engine.report.record import Summary
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.storage import StoragePath, as_path, require_writable, write_whole
from tilepipe.text import table_row

COLUMNS = (
    "image", "mask", "result", "label", "class", "pixels", "share", "area", "area_unit", "area_ha",
    "pixel_size", "pixel_size_unit", "answered_pixels", "answered_share", "answered_area",
    "objects", "density", "density_unit", "reason",
)  # fmt: skip
"""Columns of the table.

``share`` and ``area`` are of pixels with an answer; ``area`` and ``answered_area`` are in
``area_unit``, mm2 or km2, and empty where the pixel size is no length. ``area_ha`` is the same area
in hectares, on the ground only. ``objects`` is how many objects of the class the run found, and
``density`` how many there are for each ``density_unit`` with an answer; they are empty where none
were looked for. Rows of images that failed have a ``reason`` and no numbers.
"""

_HECTARES = {"km2": 100.0}
"""Hectares in a unit of area; slides are not measured in them."""


def table_path(path: str) -> StoragePath:
    """The path of a table, before any work is done.

    Raises
    ------
    InputError
        It does not end in ``.csv``, or cannot be written there.
    """
    target = as_path(path)
    if target.suffix.lower() != ".csv":
        raise InputError(f"the table {path} does not end in .csv; use that suffix")
    if target.is_dir():
        raise InputError(f"the table {path} is a folder; choose another name")
    require_writable(target)
    return target


def class_rows(
    image: str, result: str, summary: Summary | None, reason: str = ""
) -> Iterator[dict[str, Any]]:
    """The rows of an image, with the columns `COLUMNS`; one without numbers if it failed."""
    common: dict[str, Any] = {"image": image, "result": result, "reason": reason}
    if summary is None:
        yield common
        return
    size, unit = summary.plan.image.pixel_size, summary.area_unit
    common["mask"] = str(summary.outputs[0])
    if size is not None:
        common["pixel_size"] = f"{math.sqrt(size.y * size.x):.6g}"
        common["pixel_size_unit"] = size.unit
    common["answered_pixels"] = summary.answered
    total = summary.answered + summary.no_answer
    common["answered_share"] = _number(summary.answered / total)
    common["answered_area"] = _number(_answered_area(summary))
    common["area_unit"] = unit or ""
    for label, found in enumerate(summary.classes):
        row = {**common, "label": label, "class": found.name, "pixels": found.pixels}
        if summary.plan.mask.product.has_classes:
            row["share"] = _number(found.share)
            row["area"] = _number(found.area)
            if found.area is not None and unit in _HECTARES:
                row["area_ha"] = _number(found.area * _HECTARES[unit])
        yield {**row, **_of_objects(summary, found.name)}


def _of_objects(summary: Summary, name: str) -> dict[str, Any]:
    """The columns about the objects of a class."""
    found = summary.objects
    figures = next((each for each in found.classes if each.name == name), None) if found else None
    if found is None or figures is None:
        return {}
    return {
        "objects": figures.count,
        "density": _number(figures.density),
        "density_unit": f"per {found.unit.large}",
    }


def write_rows(path: StoragePath, rows: Iterable[dict[str, Any]]) -> None:
    """Write the table; an older one is replaced once it is complete.

    Raises
    ------
    EnvironmentFailure
        It cannot be written.
    """
    text = StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(table_row, rows))
    try:
        write_whole(path, text.getvalue())
    except OSError as error:
        raise EnvironmentFailure(
            f"the table {path} cannot be written: {error.strerror}; the masks are complete, and "
            "the same command writes it again"
        ) from error


def _answered_area(summary: Summary) -> float | None:
    """The area of all pixels with an answer, in `Summary.area_unit`."""
    image, product = summary.plan.image, summary.plan.mask.product
    areas = [found.area for found in summary.classes]
    if product.flat and product.has_classes and all(area is not None for area in areas):
        return sum(area for area in areas if area is not None)
    size = None if image.pixel_size is None else image.pixel_size.metres()
    if size is None or image.crs_pixel_size is not None:
        return None  # unknown; or it differs from pixel to pixel, and was measured of classes only
    return summary.answered * size[0] * size[1] * (1e6 if summary.area_unit == "mm2" else 1e-6)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"
