"""Objects as a table in text: a row for each, without outlines."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.objects.formats.frame import map_frame
from tilepipe.objects.formats.records import Records, shortest
from tilepipe.objects.formats.text_files import writing
from tilepipe.objects.table import ObjectTable


def write_csv(table: ObjectTable, path: Path) -> None:
    """Write a row for each object: number, class, centroid, box and measurements.

    Units are part of the columns' names. Values that are not known are empty.
    """
    records = Records(table.info, map_frame(table.info), boxes=True)
    with writing(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([field.name for field in records.fields])
        for batch in table.batches(outlines=False):
            cells = [_cells(values) for values in records.values(batch)]
            rows.writerows(zip(*cells, strict=True))


def _cells(values: NDArray[Any]) -> list[Any]:
    found = shortest(values)
    cells: list[Any] = found.tolist()
    if values.dtype.kind == "f":
        for index in np.flatnonzero(~np.isfinite(found)):
            cells[index] = ""
    return cells
