"""The table of objects on disk: a row for each object, in the order of their numbers.

It is a zarr group of flat arrays, one for each column and four for the outlines, so that it is
written and read in batches whatever its size, on a disk or on an object store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from tilepipe.errors import DamagedMaskError, InputError
from tilepipe.objects.outlines import Outlines
from tilepipe.products.base import MaskSpec
from tilepipe.schema import decode
from tilepipe.storage import StoragePath
from tilepipe.storage.zarr_store import zarr_store
from tilepipe.text import first_line

FORMAT = 1

ROWS = 1 << 16
"""Rows of a chunk of a column."""

POINTS = 1 << 20
"""Entries of a chunk of the outlines' arrays."""

BATCH = 10_000
"""Objects of a batch, by default."""


@dataclass(frozen=True, slots=True)
class Column:
    """A measurement of each object."""

    name: str
    """In lower case with underscores: ``area``, ``major_axis``, ``mean_probability``."""
    dtype: str
    """Numpy's name of its type."""
    unit: str = ""
    """``um``, ``um2``, ``m``, ``m2``, ``px``, ``px2``; empty for a number without unit."""
    title: str = ""
    """What a person reads: ``Major axis``."""


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """How the grid of a mask lies on level 0 of its image.

    A point (x, y) of the mask, counted in pixels from the upper left corner, is the point
    ``(x * scale_x + left, y * scale_y + top)`` of the image.
    """

    name: str
    height: int
    width: int
    scale_y: float = 1.0
    scale_x: float = 1.0
    top: float = 0.0
    left: float = 0.0


@dataclass(frozen=True, slots=True)
class ObjectsInfo:
    """What is known of all objects of a table."""

    mask: MaskSpec
    """The mask that they are objects of: its grid, place and classes."""
    columns: tuple[Column, ...]
    count: int
    image: ImagePlace | None = None
    """None where it is not known of what image the mask is."""
    rule: dict[str, Any] = field(default_factory=dict)
    """How the objects were told apart (`tilepipe.objects.rules`), as JSON values."""
    model: dict[str, Any] = field(default_factory=dict)
    """The model of the mask: ``name``, ``fingerprint``, ``about``; empty where unknown."""
    outlines: bool = True
    """Whether the table has outlines."""
    partial: str = ""
    """Why objects may be missing: the mask was not finished, for example. Empty if none are."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"format": FORMAT, **asdict(self), "mask": self.mask.to_json()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ObjectsInfo:
        """Read what `to_json` returned; ValueError for anything else."""
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"it is not a table of objects of format {FORMAT}")
        rest = {key: value for key, value in document.items() if key not in ("format", "mask")}
        columns = tuple(decode(Column, column) for column in rest.pop("columns"))
        image = rest.pop("image")
        place = None if image is None else decode(ImagePlace, image)
        return cls(MaskSpec.from_json(document["mask"]), columns, image=place, **rest)


@dataclass(frozen=True, slots=True)
class ObjectBatch:
    """Some objects that follow each other: rows of the table.

    Every table has the columns ``number`` (1, 2, 3 ... in raster order of the objects' first
    pixels) and ``class`` (an index into the mask's classes).
    """

    columns: dict[str, NDArray[Any]]
    """(n,) each, by their names."""
    outlines: Outlines | None
    """None if the table has none."""

    def __len__(self) -> int:
        """The number of objects."""
        return len(self.columns["number"])


_PARTS = {
    "points": ("int32", 2, 0), "rings": ("int64", 0, 1), "polygons": ("int64", 0, 1),
    "objects": ("int64", 0, 1), "nodes": ("bool", 0, 0),
}  # fmt: skip
"""The arrays of outlines: type, columns, and how many zeros they begin with."""


class ObjectTable:
    """A table that is open for reading; see `create_table` and `open_table`."""

    def __init__(self, path: StoragePath, info: ObjectsInfo, group: Any) -> None:
        self.path, self.info = path, info
        self._columns = {column.name: group[f"columns/{column.name}"] for column in info.columns}
        self._outlines = [group[f"outlines/{part}"] for part in _PARTS] if info.outlines else None

    def __len__(self) -> int:
        """The number of objects."""
        return self.info.count

    def column(self, name: str) -> NDArray[Any]:
        """A whole column (n,)."""
        return np.asarray(self._columns[name][:])

    def read(self, start: int, stop: int, *, outlines: bool = True) -> ObjectBatch:
        """The rows from ``start`` to before ``stop``, counted from 0."""
        stop = min(stop, len(self))
        columns = {name: np.asarray(array[start:stop]) for name, array in self._columns.items()}
        self._require_whole(columns["number"], start)
        found = self._read_outlines(start, stop) if outlines and self._outlines else None
        return ObjectBatch(columns, found)

    def batches(self, size: int = BATCH, *, outlines: bool = True) -> Iterator[ObjectBatch]:
        """All rows, in batches of at most ``size``; none if there are no objects."""
        for start in range(0, len(self), size):
            yield self.read(start, start + size, outlines=outlines)

    def chunks(self, names: Collection[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """Some of the columns, in parts of `ROWS` rows, as they are stored."""
        for start in range(0, len(self), ROWS):
            part = slice(start, min(start + ROWS, len(self)))
            self._require_whole(np.asarray(self._columns["number"][part]), start)
            yield {name: np.asarray(self._columns[name][part]) for name in names}

    def _require_whole(self, number: NDArray[Any], start: int) -> None:
        """Refuse rows that are missing: zarr reads 0 where a chunk is not there."""
        if not np.array_equal(number, np.arange(start + 1, start + 1 + len(number))):
            raise DamagedMaskError(f"{self.path} is damaged: rows are missing; make it again")

    def _read_outlines(self, start: int, stop: int) -> Outlines:
        assert self._outlines is not None, "asked only where there are outlines"
        points, rings, polygons, objects, nodes = self._outlines
        of_objects = np.asarray(objects[start : stop + 1])
        of_polygons = np.asarray(polygons[of_objects[0] : of_objects[-1] + 1])
        of_rings = np.asarray(rings[of_polygons[0] : of_polygons[-1] + 1])
        here = slice(of_rings[0], of_rings[-1])
        return Outlines(
            np.asarray(points[here]),
            of_rings - of_rings[0],
            of_polygons - of_polygons[0],
            of_objects - of_objects[0],
            np.asarray(nodes[here]),
        )


class TableWriter:
    """Writes a table batch by batch, in the order of the objects' numbers.

    Arrays grow as batches come; the table can be opened only once `finish` has written its
    description. Chunks are written whole, so memory holds one chunk of each array at most.
    """

    def __init__(self, path: StoragePath, columns: tuple[Column, ...], *, outlines: bool) -> None:
        self._group = zarr.open_group(zarr_store(path), mode="w", zarr_format=3)
        self._count = 0
        self._columns = {
            c.name: Growing(self._group, f"columns/{c.name}", c.dtype, ROWS) for c in columns
        }
        self._parts = [
            Growing(
                self._group,
                f"outlines/{name}",
                dtype,
                POINTS,
                width,
                zeros,
                dimension={"points": "point", "nodes": "point"}.get(name, f"{name}_end"),
            )
            for name, (dtype, width, zeros) in _PARTS.items()
            if outlines
        ]

    @property
    def count(self) -> int:
        """The objects written so far."""
        return self._count

    def append(self, batch: ObjectBatch) -> None:
        """Add the objects that follow those already written."""
        for name, array in self._columns.items():
            array.append(batch.columns[name])
        if self._parts:
            found = batch.outlines
            assert found is not None, "a table with outlines needs those of each object"
            assert found.nodes is not None, "outlines of a table follow pixel edges"
            points, rings, polygons, objects, nodes = self._parts
            begin = points.size, rings.size - 1, polygons.size - 1
            points.append(found.points)
            rings.append(found.rings[1:] + begin[0])
            polygons.append(found.polygons[1:] + begin[1])
            objects.append(found.objects[1:] + begin[2])
            nodes.append(found.nodes)
        self._count += len(batch)

    def finish(self, info: ObjectsInfo) -> None:
        """Write what is left and the description; ``info.count`` must be the number written."""
        assert info.count == self._count, "the description counts what was written"
        for array in (*self._columns.values(), *self._parts):
            array.finish()
        self._group.update_attributes({"tilepipe": info.to_json()})


class Growing:
    """A zarr array that is appended to, in whole chunks."""

    def __init__(
        self,
        group: Any,
        name: str,
        dtype: str,
        chunk: int,
        width: int = 0,
        zeros: int = 0,
        *,
        dimension: str = "object",
    ) -> None:
        tail = (width,) if width else ()
        self._array = group.create_array(
            name, shape=(0, *tail), chunks=(chunk, *tail), dtype=dtype, fill_value=0,
            compressors=[ZstdCodec(level=3, checksum=True)],
            dimension_names=(dimension, *(["axis"] if width else [])),
        )  # fmt: skip
        self._chunk, self._written = chunk, 0
        self._pending: list[NDArray[Any]] = [np.zeros((zeros, *tail), dtype)]
        self.size = zeros
        """Entries so far, written or not."""

    def append(self, values: NDArray[Any]) -> None:
        """Add entries."""
        self._pending.append(np.asarray(values, self._array.dtype))
        self.size += len(values)
        if self.size - self._written >= self._chunk:
            self._write(self.size - (self.size - self._written) % self._chunk)

    def finish(self) -> None:
        """Write the last chunk, which need not be full."""
        self._write(self.size)

    def _write(self, stop: int) -> None:
        if stop == self._written:
            return
        whole = np.concatenate(self._pending)
        count = stop - self._written
        self._array.resize((stop, *self._array.shape[1:]))
        self._array[self._written : stop] = whole[:count]
        self._pending, self._written = [whole[count:]], stop


def open_table(path: StoragePath) -> ObjectTable:
    """Open a table that `TableWriter` finished; InputError if there is none."""
    try:
        group = zarr.open_group(zarr_store(path, read_only=True), mode="r")
        document: Any = group.attrs["tilepipe"]
        return ObjectTable(path, ObjectsInfo.from_json(document), group)
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is not a table of objects ({first_line(error)}); make it again"
        ) from error
