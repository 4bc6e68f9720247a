"""What scheduler and client can pass on, and what files a block takes.

    python benchmarks/scheduling.py [--tasks 5000] [--workers 1 2]

Blocks a second of the loop that feeds the workers (the task pool), with tasks that do nothing; and,
over a run of many blocks inside this process, files opened, created and renamed for each block.
"""

from __future__ import annotations

import collections
import os
import sys
import time
from typing import Any

from common import WORK, command_line, fresh, parse, record, sample_slide

import tilepipe
from tilepipe.engine.cluster.connect import connect
from tilepipe.engine.cluster.pool import Task, TaskPool
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.options import RunOptions


def _nothing(number: int) -> int:
    return number


def _ready() -> dict[str, str]:
    return {}


def blocks_a_second(tasks: int, workers: int) -> float:
    """Of empty tasks, through worker processes of this machine, after a hundred to warm up."""
    with connect(RunOptions("nothing.tif", workers=workers)) as (crew, _):
        crew.ask(_ready)
        for number in (100, tasks):
            empty = (Task(_nothing, (n,)) for n in range(number))
            begin = time.perf_counter()
            for _ in TaskPool(crew, retries=0).run(empty):
                pass
            seconds = time.perf_counter() - begin
    return tasks / seconds


class Files(RunCallbacks):
    """Counts what Python opens and renames while blocks are computed."""

    def __init__(self) -> None:
        self.on = False
        self.counts: collections.Counter[str] = collections.Counter()
        sys.addaudithook(self._event)

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or not str(arguments[0] if arguments else "").startswith(str(WORK)):
            return  # modules that Python loads are none of the run's files
        if event == "open":
            flags = arguments[2]
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            self.counts["files written"] += bool(writes)
            self.counts["files read"] += not writes
        elif event == "os.rename":
            self.counts["files renamed"] += 1

    def submitted(self) -> None:
        """The blocks begin."""
        self.on = True

    def stage(self, name: str) -> None:
        """They have ended, when the pyramid begins."""
        self.on = False


def files_a_block(side: int) -> dict[str, float]:
    """Of blocks of 1536 on a sample, computed inside this process by the paper's tile."""
    output, files = WORK / "scheduling.ome.zarr", Files()
    fresh(output)
    image = sample_slide(side)
    summary = tilepipe.run(image, outputs=output, window=572, watch=files)
    return {name: count / summary.blocks for name, count in files.counts.items()}


def main() -> None:
    """Measure and write."""
    parser = command_line(__doc__)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--side", type=int, default=8192, help="0 leaves out the run.")
    options = parse(parser, tasks=20, workers=[1], side=512)
    for workers in options.workers:
        rate = blocks_a_second(options.tasks, workers)
        record(
            "scheduling", f"empty tasks, {workers} worker processes of 3 threads",
            [("blocks passed on", rate, "1/s", "")],
        )  # fmt: skip
    if options.side:
        found = files_a_block(options.side)
        record(
            "scheduling", f"{options.side} x {options.side}, blocks of 1536, in-process",
            [(name, value, "a block", "") for name, value in sorted(found.items())],
        )  # fmt: skip


if __name__ == "__main__":
    main()
