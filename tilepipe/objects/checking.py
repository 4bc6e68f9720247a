"""Objects of a window traced and measured again, and compared with their table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.objects.measuring import Measures, measurements
from tilepipe.objects.outlines import Outlines
from tilepipe.objects.spill import spill_of
from tilepipe.objects.stages import ReadLabels, read_with_rim
from tilepipe.objects.table import BATCH, ObjectBatch, ObjectTable


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of comparing the objects of a window with a table."""

    objects: int
    """How many lie in the window with all of their pixels, and were compared."""
    differences: tuple[tuple[int, str], ...]
    """The number of an object, and what differs: a column, ``outline``, or ``missing``."""


def check_window(
    table: ObjectTable, read_labels: ReadLabels, window: Window, measures: Measures
) -> Checked:
    """Trace and measure the objects that lie in a window, and compare them with a table.

    Memory holds the window, and a batch of the table.

    Parameters
    ----------
    table : ObjectTable
        The table.
    read_labels : callable
        Gives the numbers of a window's objects.
    window : Window
        Inside the mask; objects that go on beyond it are left out.
    measures : Measures
        As for `tilepipe.objects.stages.trace_block`. Columns that they do not give, such as the
        class, are not compared.
    """
    shape = table.info.mask.height, table.info.mask.width
    labels = read_with_rim(read_labels, window, shape)
    spill = spill_of(labels, window, shape[1], measures, outlines=table.info.outlines)
    found = ObjectBatch(
        measurements(spill.done.moved(window.y, window.x), measures),
        spill.outlines if table.info.outlines else None,
    )
    number = found.columns["number"]
    differences = [(int(each), "missing") for each in number[number > len(table)]]
    stop = int(np.searchsorted(number, len(table), side="right"))
    begin = 0
    while begin < stop:
        first = int(number[begin])
        end = min(int(np.searchsorted(number, first + BATCH)), stop)
        there = table.read(first - 1, int(number[end - 1]))
        differences += _compared(found, np.arange(begin, end), there, number[begin:end] - first)
        begin = end
    return Checked(len(number), tuple(sorted(differences)))


def _compared(
    one: ObjectBatch, rows: NDArray[Any], other: ObjectBatch, other_rows: NDArray[Any]
) -> list[tuple[int, str]]:
    """What differs between rows of two batches."""
    number, differences = one.columns["number"][rows], []
    for name, values in other.columns.items():
        if name in one.columns:
            ours, theirs = one.columns[name][rows].astype(values.dtype), values[other_rows]
            differs = (ours != theirs) & ~((ours != ours) & (theirs != theirs))
            differences += [(int(each), name) for each in number[differs]]
    if one.outlines is not None and other.outlines is not None:
        ours, theirs = one.outlines.take(rows), other.outlines.take(other_rows)
        differences += [
            (int(each), "outline")
            for row, each in enumerate(number)
            if not _same(ours.of(row, row + 1), theirs.of(row, row + 1))
        ]
    return differences


def _same(one: Outlines, other: Outlines) -> bool:
    parts = ("points", "rings", "polygons")
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)
