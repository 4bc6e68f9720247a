"""A table whose outlines are changed as they are read: simplified, or smoothed."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tilepipe.objects.curves import simplified, smoothed
from tilepipe.objects.outlines import Outlines
from tilepipe.objects.table import ObjectBatch, ObjectTable

Shape = Literal["exact", "simple", "smooth"]


class ShapedTable(ObjectTable):
    """A table with other outlines; the shape of each object depends on it alone."""

    def __init__(self, table: ObjectTable, shape: Shape) -> None:
        self.__dict__.update(table.__dict__)
        self._shape = shape

    def read(self, start: int, stop: int, *, outlines: bool = True) -> ObjectBatch:
        """The rows from ``start`` to before ``stop``, counted from 0."""
        batch = super().read(start, stop, outlines=outlines)
        return replace(batch, outlines=batch.outlines and self._shaped(batch.outlines))

    def _shaped(self, outlines: Outlines) -> Outlines:
        if not len(outlines):
            return outlines
        return smoothed(outlines) if self._shape == "smooth" else simplified(outlines)


def shaped(table: ObjectTable, shape: Shape) -> ObjectTable:
    """The table with outlines along pixel edges, or with simple or smooth ones."""
    return table if shape == "exact" or not table.info.outlines else ShapedTable(table, shape)
