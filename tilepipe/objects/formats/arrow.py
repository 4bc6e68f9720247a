"""Objects as a stream of Arrow record batches, with their outlines as WKB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.objects.formats.frame import Frame, closed
from tilepipe.objects.formats.records import Records, batches, shortest
from tilepipe.objects.outlines import Outlines
from tilepipe.objects.table import ObjectBatch, ObjectTable

if TYPE_CHECKING:
    import pyarrow as pa

GEOMETRY = "geometry"

_EXTENSION = {"ARROW:extension:name": "geoarrow.wkb"}


class ArrowRows:
    """The rows of a table as record batches, whose last column is `GEOMETRY` if it has outlines.

    Parameters
    ----------
    table, frame
        The objects, and the coordinates that they get.
    wide
        Whether measurements are float64, with the fewest digits that tell their float32 apart;
        for formats that store no other, and would show 0.1 as 0.10000000149011612.
    """

    def __init__(self, table: ObjectTable, frame: Frame, *, wide: bool) -> None:
        self._table, self._frame, self._wide = table, frame, wide
        self._records = Records(table.info, frame, boxes=False)
        self.fields = self._records.fields
        self.schema = self._schema()

    def batches(self, *, multi: bool) -> Iterator[tuple[pa.RecordBatch, Outlines]]:
        """The rows, with their outlines in the frame.

        ``multi``: whether an outline of one polygon is a multipolygon, too.
        """
        for batch, outlines in batches(self._table):
            moved = self._frame.outlines(outlines)
            yield self._rows(batch, wkb(moved, multi=multi)), moved

    def read(self, start: int, stop: int) -> pa.RecordBatch:
        """Some of the rows; of a table without outlines, without geometry."""
        batch = self._table.read(start, stop)
        if batch.outlines is None:
            return self._rows(batch, None)
        return self._rows(batch, wkb(self._frame.outlines(closed(batch.outlines)), multi=False))

    def _rows(self, batch: ObjectBatch, geometries: list[bytes] | None) -> pa.RecordBatch:
        import pyarrow as pa

        arrays = [
            self._array(values, field.type)
            for values, field in zip(self._records.values(batch), self.schema, strict=False)
        ]
        if geometries is not None:
            arrays.append(pa.array(geometries, pa.binary()))
        return pa.record_batch(arrays, schema=self.schema)

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        fields = [pa.field(field.name, self._type(field.dtype)) for field in self.fields]
        if self._table.info.outlines:
            fields.append(pa.field(GEOMETRY, pa.binary(), metadata=_EXTENSION))
        return pa.schema(fields)

    def _type(self, dtype: str) -> Any:
        """Signed integers, and floats: what every format has."""
        import pyarrow as pa

        if dtype == "str":
            return pa.string()
        known = np.dtype(dtype)
        if known.kind == "f":
            return pa.float64() if self._wide or known.itemsize == 8 else pa.float32()
        return pa.int64() if known.itemsize >= 4 and known != np.int32 else pa.int32()

    def _array(self, values: NDArray[Any], kind: Any) -> Any:
        import pyarrow as pa

        if values.dtype.kind != "f":
            return pa.array(values).cast(kind)
        plain = shortest(values) if self._wide else values
        return pa.array(plain, kind, mask=~np.isfinite(values))


def wkb(outlines: Outlines, *, multi: bool) -> list[bytes]:
    """Each object as well-known binary; ``multi``: all of them as multipolygons."""
    import shapely

    if multi:
        points = np.asarray(outlines.points, np.float64)
        parts = outlines.rings, outlines.polygons, outlines.objects
        found = shapely.from_ragged_array(shapely.GeometryType.MULTIPOLYGON, points, parts)
    else:
        found = outlines.geometries()
    # Little-endian, whatever the machine.
    encoded: list[bytes] = shapely.to_wkb(found, byte_order=1).tolist()
    return encoded
