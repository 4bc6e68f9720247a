"""What is known of each object before it is measured: class, first pixel and area, by number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tilepipe.objects.table import ROWS, Growing
from tilepipe.storage import StoragePath
from tilepipe.storage.fsync import fsync_below
from tilepipe.storage.zarr_store import zarr_store

COLUMNS = {"part": "uint8", "first": "int64", "area": "int64"}


@dataclass(frozen=True, slots=True)
class IndexRows:
    """Some objects that follow each other in number; arrays (n,)."""

    part: NDArray[np.uint8]
    """The part of each (`tilepipe.objects.rules.PartTable`): its class."""
    first: NDArray[np.int64]
    """Its first pixel, as a flat index into the mask."""
    area: NDArray[np.int64]
    """Its pixels."""

    def __len__(self) -> int:
        """The number of objects."""
        return len(self.part)


class ObjectIndex:
    """A finished index, open for reading."""

    def __init__(self, path: StoragePath) -> None:
        group = zarr.open_group(zarr_store(path, read_only=True), mode="r")
        self._arrays: dict[str, Any] = {name: group[name] for name in COLUMNS}

    def __len__(self) -> int:
        """The number of objects."""
        return int(self._arrays["part"].shape[0])

    def read(self, start: int = 0, stop: int | None = None) -> IndexRows:
        """Objects number ``start + 1`` to ``stop``; all without arguments."""
        return IndexRows(**{name: np.asarray(a[start:stop]) for name, a in self._arrays.items()})


class IndexWriter:
    """Writes an index in the order of numbers."""

    def __init__(self, path: StoragePath) -> None:
        self._path = path
        group = zarr.open_group(zarr_store(path), mode="w", zarr_format=3)
        self._arrays = {name: Growing(group, name, dtype, ROWS) for name, dtype in COLUMNS.items()}

    def append(self, rows: IndexRows) -> None:
        """Add the objects that follow those already written."""
        for name, array in self._arrays.items():
            array.append(getattr(rows, name))

    def finish(self) -> None:
        """Write what is left, all of it to the disk."""
        for array in self._arrays.values():
            array.finish()
        fsync_below(self._path)
