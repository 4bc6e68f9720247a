"""Objects are traced and put together on an object store as on a disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.objects.making import as_bytes, noise
from tilepipe.grid import Window, WindowGrid
from tilepipe.objects.measuring import Measures, columns_of
from tilepipe.objects.stages import assemble, trace_block
from tilepipe.objects.table import ObjectBatch, ObjectsInfo, TableWriter, open_table
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.storage import StoragePath, as_path


def made_in(place: StoragePath) -> ObjectBatch:
    labels, measures = noise((60, 50), 0.45), Measures()
    columns, grid = columns_of(measures), WindowGrid(Window(0, 0, 60, 50), (32, 32))

    def read(window: Window) -> np.ndarray:
        return labels[window.y : window.stop_y, window.x : window.stop_x]

    for window in grid:
        trace_block(read, window, labels.shape, place / "spilled", measures)
    writer = TableWriter(place / "table", columns, outlines=True)
    classes = np.zeros(int(labels.max()), np.uint8)
    count = assemble(place / "spilled", grid, writer, classes, measures)
    spec = MaskSpec(*labels.shape, "labels", (MaskClass("a", "#102030"),))
    writer.finish(ObjectsInfo(spec, columns, count))
    return open_table(place / "table").read(0, count)


def test_a_table_on_an_object_store_is_that_on_a_disk(folder: str, tmp_path: Path) -> None:
    (tmp_path / "spilled").mkdir()
    assert as_bytes(made_in(as_path(folder))) == as_bytes(made_in(tmp_path))
