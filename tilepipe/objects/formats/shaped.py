"""A table whose outlines are changed as they are read: simplified, smoothed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from tilepipe.objects.outlines import Outlines
from tilepipe.objects.table import ObjectBatch, ObjectTable

Shape = Callable[[Outlines], Outlines]
"""Makes outlines of others, an object at a time: what it makes of one depends on no other."""


class Shaped(ObjectTable):
    """A table with other outlines; all else is as it was."""

    def __init__(self, table: ObjectTable, shape: Shape) -> None:
        self.path, self.info = table.path, table.info
        self._table, self._shape = table, shape

    def column(self, name: str) -> NDArray[Any]:
        """A whole column (n,)."""
        return self._table.column(name)

    def read(self, start: int, stop: int, *, outlines: bool = True) -> ObjectBatch:
        """The rows from ``start`` to before ``stop``, counted from 0."""
        batch = self._table.read(start, stop, outlines=outlines)
        found = batch.outlines
        return ObjectBatch(batch.columns, None if found is None else self._shape(found))
