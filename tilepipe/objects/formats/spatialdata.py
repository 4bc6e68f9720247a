"""Objects as a SpatialData folder (its format 0.2): outlines, measurements, and labels if given.

Its layout is written with zarr and pyarrow, so that spatialdata is needed only by who reads it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from tilepipe.grid import CHUNK, Window, WindowGrid
from tilepipe.objects.formats.anndata import INSTANCE, write_table
from tilepipe.objects.formats.frame import pixel_frame
from tilepipe.objects.formats.geoparquet import write_shapes
from tilepipe.objects.table import ObjectsInfo, ObjectTable
from tilepipe.storage import complete_or_absent
from tilepipe.storage.fsync import fsync_below

SHAPES, LABELS, TABLE = "objects", "numbers", "table"
"""The names of the elements."""

PIXELS, MICROMETRES = "global", "micrometer"
"""The coordinate systems: pixels of level 0 of the image, as spatialdata-io has images, and um."""

_SIDE = 4 * CHUNK


class Labels(Protocol):
    """The numbers of objects, pixel by pixel, as a pyramid on the grid of the mask."""

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level."""
        ...

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """The numbers (H, W) in a window."""
        ...


def write_spatialdata(table: ObjectTable, path: Path, labels: Labels | None = None) -> None:
    """Write a folder that spatialdata 0.7 opens.

    Shapes ``objects``, labels ``numbers`` (if given) and the table ``table`` lie in the coordinate
    systems ``global``, of pixels of the image from its upper left corner, and ``micrometer``, where
    the pixel size is known. Without objects there are no shapes and no table, which spatialdata
    wants to have rows.
    """
    with complete_or_absent(path) as part:
        root = zarr.open_group(part, mode="w", zarr_format=3)
        root.attrs["spatialdata_attrs"] = {"version": "0.2"}
        if labels is not None:
            _write_labels(root.create_group("labels"), labels, table.info)
        if len(table):
            group = root.create_group("shapes").create_group(SHAPES)
            group.attrs.update(_shapes_attributes(table.info))
            rows = root.create_group("tables").create_group(TABLE)
            write_table(rows, table, pixel_frame(table.info), SHAPES)
        with warnings.catch_warnings():
            # Zarr has yet to say that metadata may be kept together; spatialdata does so, too.
            warnings.filterwarnings("ignore", "Consolidated metadata")
            zarr.consolidate_metadata(root.store)
        if len(table):  # after that, as it is not zarr's
            shapes = part / "shapes" / SHAPES / "shapes.parquet"
            write_shapes(table, shapes, pixel_frame(table.info), INSTANCE)
        fsync_below(part)


def _write_labels(group: Any, labels: Labels, info: ObjectsInfo) -> None:
    group.attrs["ome"] = {"labels": [LABELS]}
    levels = labels.levels
    element = group.create_group(LABELS)
    element.attrs.update(_labels_attributes(levels, info))
    for number, (height, width) in enumerate(levels):
        array = element.create_array(
            f"s{number}", shape=(height, width), chunks=(CHUNK, CHUNK), dtype="uint32",
            fill_value=0, compressors=[ZstdCodec(level=3)], dimension_names=("y", "x"),
        )  # fmt: skip
        for window in WindowGrid(Window(0, 0, height, width), (_SIDE, _SIDE)):
            pixels = labels.read(window, number)
            if pixels.any():
                array[window.slices()] = pixels


def _shapes_attributes(info: ObjectsInfo) -> dict[str, Any]:
    return {
        "encoding-type": "ngff:shapes",
        "axes": ["x", "y"],
        "coordinateTransformations": _transformations("xy", {}, info),
        "spatialdata_attrs": {"version": "0.3"},
    }


def _labels_attributes(levels: tuple[tuple[int, int], ...], info: ObjectsInfo) -> dict[str, Any]:
    a, _, c, _, e, f = pixel_frame(info).matrix
    height, width = levels[0]
    scales = [[height / rows, width / columns] for rows, columns in levels]
    datasets = [
        {"path": f"s{number}", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for number, scale in enumerate(scales)
    ]
    # Counted from corners: no half pixel, as NGFF itself would have it.
    place = {"scale": [e, a], "translation": [f, c]}
    multiscale = {
        "name": LABELS,
        "axes": [{"name": name, "type": "space"} for name in "yx"],
        "datasets": datasets,
        "coordinateTransformations": _transformations("yx", place, info),
    }
    ome = {"version": "0.5-dev-spatialdata", "multiscales": [multiscale]}
    return {"ome": ome, "spatialdata_attrs": {"version": "0.3"}}


def _transformations(
    axes: str, place: dict[str, list[float]], info: ObjectsInfo
) -> list[dict[str, Any]]:
    """From an element to each coordinate system.

    Parameters
    ----------
    axes
        In their order: ``xy`` or ``yx``.
    place
        ``scale`` and ``translation`` from the element to pixels of the image, if they differ.
    """
    steps = [{"type": kind, kind: numbers} for kind, numbers in place.items()]
    found = [_to_system(steps, axes, PIXELS, "unit")]
    size = _micrometres(info)
    if size is not None:
        scale = {"type": "scale", "scale": [size["xy".index(axis)] for axis in axes]}
        found.append(_to_system([*steps, scale], axes, MICROMETRES, MICROMETRES))
    return found


def _to_system(steps: list[dict[str, Any]], axes: str, system: str, unit: str) -> dict[str, Any]:
    between = {"input": _axes(axes, axes, "unit"), "output": _axes(system, axes, unit)}
    inner = {"input": _axes(axes, axes, "unit"), "output": _axes(axes, axes, "unit")}
    if not steps:
        return {"type": "identity", **between}
    if len(steps) == 1:
        return {**steps[0], **between}
    sequence = [{**step, **inner} for step in steps]
    return {"type": "sequence", "transformations": sequence, **between}


def _axes(name: str, axes: str, unit: str) -> dict[str, Any]:
    return {"name": name, "axes": [{"name": a, "type": "space", "unit": unit} for a in axes]}


def _micrometres(info: ObjectsInfo) -> tuple[float, float] | None:
    """The size (x, y) of a pixel of level 0 of the image; None where it is not known."""
    size = info.mask.pixel_size
    metres = size.metres() if size is not None and size.is_sound else None
    if metres is None:
        return None
    a, _, _, _, e, _ = pixel_frame(info).matrix
    return float(np.float64(metres[1] * 1e6 / a).round(12)), float(
        np.float64(metres[0] * 1e6 / e).round(12)
    )
