"""Measurements of objects in the layout of AnnData in zarr (its version 0.1.0), without anndata."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from tilepipe.objects.formats.frame import Frame
from tilepipe.objects.formats.records import CENTROID, CLASS, NUMBER, Records, class_names, unlike
from tilepipe.objects.table import ROWS, ObjectTable

REGION, INSTANCE = "region", "number"
"""The columns that say which element a row is about, and which object of it."""


def write_table(group: Any, table: ObjectTable, frame: Frame, region: str) -> None:
    """Write a table into an empty zarr group: a row for each object, a column for each measurement.

    Parameters
    ----------
    frame
        Of centroids, which become ``obsm/spatial``.
    region
        The name of the element that has the objects' outlines.
    """
    records = Records(table.info, frame, boxes=False)
    places = {NUMBER, CLASS, *(name for name in _centroids(records))}
    measured = [i for i, field in enumerate(records.fields) if field.name not in places]
    centroids = [i for i, field in enumerate(records.fields) if field.name in _centroids(records)]
    count, names = len(table), [records.fields[i].name for i in measured]
    _mark(group, "anndata", "0.1.0")
    group.attrs.update({
        "spatialdata-encoding-type": "ngff:regions_table", "region": region,
        "region_key": REGION, "instance_key": INSTANCE, "version": "0.2",
    })  # fmt: skip
    _dicts(group, region)
    _frame(group, "var", names, [])
    obs = _frame(group, "obs", None, [REGION, INSTANCE, CLASS], count)
    numbers = _array(obs, INSTANCE, (count,), "int64")
    regions = _categorical(obs, REGION, [region], count)
    classes = _categorical(obs, CLASS, unlike(class_names(table.info)), count)
    matrix = _array(group, "X", (count, len(names)), "float32")
    spatial = _array(group["obsm"], "spatial", (count, 2), "float64") if centroids else None
    start = 0
    for batch in table.batches(ROWS, outlines=False):
        rows = slice(start, start + len(batch))
        values = records.values(batch)
        numbers[rows] = values[0]
        obs["_index"][rows] = values[0].astype("T")
        regions[rows] = 0
        classes[rows] = batch.columns[CLASS]
        matrix[rows] = _side_by_side([values[i] for i in measured], len(batch))
        if spatial is not None:
            spatial[rows] = _side_by_side([values[i] for i in centroids], len(batch))
        start += len(batch)


def _centroids(records: Records) -> list[str]:
    return [field.name for field in records.fields if field.name.startswith(CENTROID)]


def _side_by_side(columns: list[NDArray[Any]], count: int) -> NDArray[Any]:
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def _dicts(group: Any, region: str) -> None:
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        _mark(group.create_group(name), "dict", "0.1.0")
    about = group["uns"].create_group("spatialdata_attrs")
    _mark(about, "dict", "0.1.0")
    known = {"region": region, "region_key": REGION, "instance_key": INSTANCE}
    for name, value in known.items():
        text = about.create_array(name, shape=(), dtype="string", fill_value="")
        text[()] = value
        _mark(text, "string", "0.2.0")


def _frame(
    group: Any, name: str, index: list[str] | None, columns: list[str], count: int = 0
) -> Any:
    """A dataframe whose index is given, or filled later."""
    frame = group.create_group(name)
    _mark(frame, "dataframe", "0.2.0")
    frame.attrs.update({"_index": "_index", "column-order": columns})
    texts = _texts(frame, "_index", len(index) if index is not None else count)
    if index:
        texts[:] = np.array(index, "T")
    return frame


def _categorical(frame: Any, name: str, categories: list[str], count: int) -> Any:
    """The codes of a column of categories."""
    column = frame.create_group(name)
    _mark(column, "categorical", "0.2.0")
    column.attrs["ordered"] = False
    _texts(column, "categories", len(categories))[:] = np.array(categories, "T")
    return _array(column, "codes", (count,), "int16")


def _texts(group: Any, name: str, count: int) -> Any:
    array = group.create_array(
        name, shape=(count,), chunks=(min(max(count, 1), ROWS),), dtype="string", fill_value=""
    )
    _mark(array, "string-array", "0.2.0")
    return array


def _array(group: Any, name: str, shape: tuple[int, ...], dtype: str) -> Any:
    chunks = (min(max(shape[0], 1), ROWS), *(max(side, 1) for side in shape[1:]))
    array = group.create_array(
        name, shape=shape, chunks=chunks, dtype=dtype, fill_value=0,
        compressors=[ZstdCodec(level=3)],
    )  # fmt: skip
    _mark(array, "array", "0.2.0")
    return array


def _mark(node: Any, kind: str, version: str) -> None:
    node.attrs.update({"encoding-type": kind, "encoding-version": version})
