"""From labels to the table of objects, in two steps: blocks are traced, then put together.

`trace_block` is called for each window of a grid, in any order, by any process, as often as one
likes: it writes one file. `assemble` reads those of all blocks and writes the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window, WindowGrid
from tilepipe.objects.joining import Joining, Rings
from tilepipe.objects.measuring import Measures, Sums, measurements, merged
from tilepipe.objects.outlines import Outlines, joined
from tilepipe.objects.spill import SpillFile, spill_of
from tilepipe.objects.table import ObjectBatch, TableWriter
from tilepipe.objects.tracing import Chains
from tilepipe.storage import StoragePath

ReadLabels = Callable[[Window], NDArray[Any]]
"""Gives the numbers of the objects of a window inside the image, (H, W); 0 is no object."""

BATCH_POINTS = 1 << 21
"""Points of a batch of objects, unless one has more by itself."""


def spill_path(folder: StoragePath, window: Window) -> StoragePath:
    """Where `trace_block` writes what it found in a window."""
    return folder / f"{window.y}-{window.x}.npz"


def read_with_rim(read_labels: ReadLabels, window: Window, shape: tuple[int, int]) -> NDArray[Any]:
    """A window and a rim of one pixel, which is 0 outside an image of ``shape``."""
    inside = window.pad(1).intersect(Window(0, 0, *shape))
    assert inside is not None, "a window has pixels inside its image"
    labels = read_labels(inside)
    above, before = inside.y - window.y + 1, inside.x - window.x + 1
    below = window.height + 2 - inside.height - above
    return np.pad(labels, ((above, below), (before, window.width + 2 - inside.width - before)))


def trace_block(
    read_labels: ReadLabels,
    window: Window,
    shape: tuple[int, int],
    folder: StoragePath,
    measures: Measures,
    *,
    outlines: bool = True,
) -> int:
    """Trace and measure the objects of a window, and write what was found to one file.

    Parameters
    ----------
    read_labels : callable
        Gives the numbers of a window's objects.
    window : Window
        One of a grid that covers the image.
    shape : tuple of int
        (height, width) of the image.
    folder : StoragePath
        Where the files of all windows are; it exists.
    measures : Measures
        What to measure of each object.
    outlines : bool
        Whether to trace outlines, or only to measure.

    Returns
    -------
    int
        The number of objects with pixels in the window.
    """
    labels = read_with_rim(read_labels, window, shape)
    spill = spill_of(labels, window, shape[1], measures, outlines=outlines)
    spill.write(spill_path(folder, window))
    return len(spill.done) + len(spill.open)


def assemble(
    folder: StoragePath,
    grid: WindowGrid,
    writer: TableWriter,
    classes: Any,
    measures: Measures,
    *,
    outlines: bool = True,
) -> int:
    """Write the objects of all windows to a table, in the order of their numbers.

    Parameters
    ----------
    folder : StoragePath
        Where `trace_block` wrote.
    grid : WindowGrid
        All windows; its area is the whole image.
    writer : TableWriter
        Its columns are those of `columns_of` for the same measures.
    classes : array of uint8, shape (n,)
        The class of each object, in the order of numbers; slices of it are read.
    measures : Measures
        As for `trace_block`.
    outlines : bool
        As for `trace_block`.

    Returns
    -------
    int
        The number of objects.

    Raises
    ------
    ValueError
        If numbers are missing, or do not grow from one row of windows to the next.
    """
    for sums, found in _batches(folder, grid, outlines=outlines):
        first, count = writer.count + 1, len(sums)
        if not np.array_equal(sums.number, np.arange(first, first + count)):
            raise ValueError("objects are not numbered in the order of their first pixels")
        columns = measurements(sums, measures)
        columns["class"] = np.asarray(classes[first - 1 : first - 1 + count])
        writer.append(ObjectBatch(columns, found))
    return writer.count


def _batches(
    folder: StoragePath, grid: WindowGrid, *, outlines: bool
) -> Iterator[tuple[Sums, Outlines | None]]:
    """The objects in the order of their numbers, by the row of windows in which they begin."""
    windows = list(grid)
    rings, crossing = _joined(folder, windows, grid)
    for top in sorted({window.y for window in windows}):
        row = [window for window in windows if window.y == top]
        found, parts = [], []
        for window in row:
            with SpillFile(spill_path(folder, window)) as file:
                done, drawn = file.finished()
            found.append(done.moved(window.y, window.x))
            parts.append(drawn)
        first = crossing.lowest[:, 1]
        begun = crossing.take((first >= top) & (first < row[0].stop_y))
        sums = merged([*found, begun])
        if not outlines:
            yield sums, None
        elif len(sums):
            number = np.concatenate([each.number for each in found])
            order = np.argsort(number)
            others = rings.of(int(sums.number[0]), int(sums.number[-1]) + 1)
            read = partial(_pieces, folder, windows)
            yield from _drawn(sums, number[order], joined(parts).take(order), others, read)


def _drawn(
    sums: Sums,
    number: NDArray[Any],
    finished: Outlines,
    rings: Rings,
    pieces: Callable[[int], Chains],
) -> Iterator[tuple[Sums, Outlines]]:
    """Some objects with their outlines, in batches of about `BATCH_POINTS`.

    ``number`` has the numbers of those that are finished; the rings are those of the others.
    """
    others, sizes = rings.points_of()
    order = np.argsort(np.concatenate((number, others)))
    ends = np.cumsum(np.concatenate((finished.points_of(), sizes))[order])
    begin = 0
    while begin < len(sums):
        full = (ends[begin - 1] if begin else 0) + BATCH_POINTS
        stop = max(begin + 1, int(np.searchsorted(ends, full, side="right")))
        first, last = sums.number[begin], sums.number[stop - 1]
        a, b = np.searchsorted(number, (first, last + 1))
        parts = [rings.of(int(first), int(last) + 1).outlines(pieces)]
        if b > a:
            parts.insert(0, finished.of(a, b))
            own = np.concatenate((number[a:b], others[(others >= first) & (others <= last)]))
            parts = [joined(parts).take(np.argsort(own))]
        yield sums.take(np.arange(begin, stop)), parts[0]
        begin = stop


def _pieces(folder: StoragePath, windows: list[Window], block: int) -> Chains:
    with SpillFile(spill_path(folder, windows[block])) as file:
        return file.pieces()


def _joined(folder: StoragePath, windows: list[Window], grid: WindowGrid) -> tuple[Rings, Sums]:
    """The rings and the sums of the objects that lie in several windows."""
    joining, sums = Joining(), []
    for block, window in enumerate(windows):
        place = (
            (window.y - grid.area.y) // grid.tile[0],
            (window.x - grid.area.x) // grid.tile[1],
        )
        with SpillFile(spill_path(folder, window)) as file:
            joining.add(block, place, file.pieces(points=False), file.borders())
            sums.append(file.unfinished().moved(window.y, window.x))
    return joining.rings(), merged(sums)
