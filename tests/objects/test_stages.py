from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.objects.making import InMemory, Labels, as_bytes, noise, table_of
from tilepipe.grid import Window, WindowGrid
from tilepipe.objects import stages
from tilepipe.objects.checking import check_window
from tilepipe.objects.measuring import Layer, Measures, columns_of
from tilepipe.objects.outlines import Outlines
from tilepipe.objects.stages import ReadLabels, assemble, spill_path, trace_block
from tilepipe.objects.table import ObjectsInfo, ObjectTable, TableWriter, open_table
from tilepipe.products.base import MaskClass, MaskSpec

MEASURES = Measures()


def reader(labels: Labels) -> ReadLabels:
    def read(window: Window) -> Labels:
        assert Window(0, 0, *labels.shape).contains(window)
        return labels[window.y : window.stop_y, window.x : window.stop_x]

    return read


def write_table(
    labels: Labels, tile: tuple[int, int], folder: Path, measures: Measures = MEASURES
) -> ObjectTable:
    """The table on disk, made in blocks; classes are 1, 2, 3, 1, 2 ..."""
    spilled, path = folder / "spilled", folder / "table"
    spilled.mkdir(parents=True)
    grid = WindowGrid(Window(0, 0, *labels.shape), tile)
    for window in grid:
        trace_block(reader(labels), window, labels.shape, spilled, measures)
    columns = columns_of(measures)
    writer = TableWriter(path, columns, outlines=True)
    classes = (np.arange(int(labels.max())) % 3 + 1).astype(np.uint8)
    count = assemble(spilled, grid, writer, classes, measures)
    names = (MaskClass(name, "#102030") for name in "abcd")
    writer.finish(ObjectsInfo(MaskSpec(*labels.shape, "labels", tuple(names)), columns, count))
    return open_table(path)


def test_a_table_is_read_as_it_was_assembled(tmp_path: Path) -> None:
    labels = noise((120, 100), 0.4)
    table = write_table(labels, (48, 32), tmp_path)
    expected = table_of(labels, labels.shape, tmp_path / "whole")
    found = table.read(0, len(table))
    assert len(table) == labels.max()
    np.testing.assert_array_equal(found.columns.pop("class"), np.arange(len(table)) % 3 + 1)
    expected.columns.pop("class")
    expected.columns["number"] = expected.columns["number"].astype(np.uint32)
    for name in ("left", "top", "right", "bottom"):
        expected.columns[name] = expected.columns[name].astype(np.int32)
    assert as_bytes(found) == as_bytes(expected)
    batches = [table.read(k, k + 7).outlines for k in range(0, len(table), 7)]
    assert sum(len(batch.points) for batch in batches if batch) == len(found.outlines.points)  # type: ignore[union-attr]


@pytest.mark.parametrize("points", [1, 50, 1000])
def test_batches_do_not_show(points: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = noise((90, 100), 0.45)
    whole = table_of(labels, labels.shape, tmp_path / "whole")
    monkeypatch.setattr(stages, "BATCH_POINTS", points)
    assert as_bytes(table_of(labels, (40, 30), tmp_path / "blocks")) == as_bytes(whole)


def test_a_mask_may_have_no_objects(tmp_path: Path) -> None:
    labels = np.zeros((10, 10), np.uint32)
    table = write_table(labels, (4, 4), tmp_path)
    assert len(table) == 0
    assert list(table.batches()) == []


def test_a_block_that_is_traced_again_is_the_same_file(tmp_path: Path) -> None:
    labels, window = noise((40, 40), 0.5), Window(8, 8, 16, 16)
    seen = []
    for _ in range(2):
        trace_block(reader(labels), window, labels.shape, tmp_path, MEASURES)
        seen.append(spill_path(tmp_path, window).read_bytes())
    assert seen[0] == seen[1]


@pytest.mark.parametrize("labels", [[[1], [0], [3]], [[2], [0], [1]]])
def test_numbers_that_are_not_those_of_labelling_are_refused(
    labels: list[list[int]], tmp_path: Path
) -> None:
    given = np.array(labels, np.uint32)
    grid = WindowGrid(Window(0, 0, 3, 1), (1, 1))
    for window in grid:
        trace_block(reader(given), window, given.shape, tmp_path, MEASURES)
    with pytest.raises(ValueError, match="not numbered in the order"):
        assemble(tmp_path, grid, InMemory(), np.zeros(2, np.uint8), MEASURES)  # type: ignore[arg-type]


def test_a_table_agrees_with_the_labels_it_was_made_of(tmp_path: Path) -> None:
    labels = noise((120, 100), 0.45)
    values = np.random.default_rng(0).random(labels.shape).astype(np.float16)
    layer = Layer("value", lambda w, _: reader(values)(w), 2.0**-24, has_max=True)  # type: ignore[arg-type]
    measures = Measures(layers=(layer,))
    table = write_table(labels, (48, 32), tmp_path, measures)
    for window in (Window(0, 0, 120, 100), Window(30, 20, 50, 60), Window(5, 5, 1, 1)):
        checked = check_window(table, reader(labels), window, measures)
        assert checked.differences == ()
    assert check_window(table, reader(labels), Window(0, 0, 120, 100), measures).objects == len(
        table
    )


def test_a_pixel_more_is_found(tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint32)
    labels[2:5, 2:5], labels[10:14, 10:14], labels[18:, 18:] = 1, 2, 3
    table = write_table(labels, (8, 8), tmp_path)
    changed = labels.copy()
    changed[14, 12] = 2
    changed[0, 18] = 4
    checked = check_window(table, reader(changed), Window(0, 0, 20, 20), MEASURES)
    assert {number for number, _ in checked.differences} == {2, 4}
    assert {"area", "outline", "bottom", "centroid_x"} <= {what for _, what in checked.differences}
    assert (4, "missing") in checked.differences
    assert not check_window(table, reader(changed), Window(0, 0, 8, 8), MEASURES).differences


def test_outlines_are_taken_in_any_order() -> None:
    assert len(Outlines.none().take(np.zeros(0, np.int64))) == 0
