"""The objects of a mask, from its pixels to a pyramid of numbers and a table: all stages in order.

What is kept meanwhile is in the workspace of the job, so that a later call goes on where an earlier
one was stopped, and ends with the same bytes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.objects.index import ObjectIndex
from tilepipe.objects.job import Workspace
from tilepipe.objects.measures import measures_of
from tilepipe.objects.measuring import columns_of
from tilepipe.objects.numbering import Compute, OnStep, all_of, number_objects, step, workspace_at
from tilepipe.objects.stages import assemble, trace_block
from tilepipe.objects.table import ObjectsInfo, ObjectTable, TableWriter, open_table
from tilepipe.products.base import MaskSpec
from tilepipe.products.instances import create_instances
from tilepipe.products.pyramid import downsample_block, pyramid_blocks
from tilepipe.storage import as_path, remove
from tilepipe.storage.fsync import fsync_below


def build_objects(
    work: Workspace,
    spec: MaskSpec,
    info: ObjectsInfo,
    compute: Compute,
    on_step: OnStep,
    *,
    source: str | None = None,
) -> ObjectTable:
    """Number, outline and measure the objects of a mask.

    Parameters
    ----------
    work
        The workspace of the job. Its target becomes an OME-Zarr group of numbers, with the table of
        objects within it (``table/``).
    spec
        The mask.
    info
        What the table says of itself; columns and count are filled in.
    compute
        Runs tasks.
    on_step
        Is told what begins.
    source
        The path from the target to the mask, if it is to lie in it.
    """
    target = as_path(work.job.target)

    def create(_work: Workspace) -> None:
        remove(target)
        create_instances(target, spec, source=source)

    step(work, "target", create)
    index = number_objects(work, compute, on_step)
    step(work, "pyramid", partial(_pyramid, compute), partial(on_step, "pyramid of objects"))
    tasks = ((str(work.path), window) for window in work.windows())
    title = "outlining objects" if work.job.outlines else "measuring objects"
    step(work, "traced", all_of(compute, trace_task, tasks), partial(on_step, title))
    table = partial(_write_table, spec=spec, info=info, index=index)
    step(work, "table", table, partial(on_step, "table of objects"))
    return open_table(target / "table")


def trace_task(path: str, window: Window) -> None:
    """Outline and measure the objects of one window; the work of a task."""
    work = workspace_at(path)
    numbers = work.target
    trace_block(
        numbers.read, window, numbers.shape, work.path / "traced",
        measures_of(work, numbers.spec), outlines=work.job.outlines,
    )  # fmt: skip


def pyramid_task(path: str, level: int, window: Window) -> None:
    """Write one window of a coarser level of the numbers; the work of a task."""
    target = workspace_at(path).target
    downsample_block(target, level, window)
    target.flush(window, level)


def _pyramid(compute: Compute, work: Workspace) -> None:
    """Write the coarser levels, each once the one before is whole."""
    for level, windows in pyramid_blocks(work.target).items():
        tasks = ((str(work.path), level, window) for window in windows)
        all_of(compute, pyramid_task, tasks)(work)


def _write_table(work: Workspace, spec: MaskSpec, info: ObjectsInfo, index: ObjectIndex) -> None:
    measures = measures_of(work, spec)
    columns = columns_of(measures)
    path = as_path(work.job.target) / "table"
    remove(path)
    writer = TableWriter(path, columns, outlines=work.job.outlines)
    count = assemble(
        work.path / "traced", work.grid, writer, _Classes(work, index), measures,
        outlines=work.job.outlines,
    )  # fmt: skip
    writer.finish(replace(info, columns=columns, count=count, outlines=work.job.outlines))
    fsync_below(path)  # before the step is recorded as done


class _Classes:
    """The class of each object, read as it is asked for."""

    def __init__(self, work: Workspace, index: ObjectIndex) -> None:
        self._index = index
        self._class = np.array((0, *work.job.parts.classes), np.uint8)

    def __getitem__(self, some: slice) -> NDArray[np.uint8]:
        return self._class[self._index.read(some.start, some.stop).part]
