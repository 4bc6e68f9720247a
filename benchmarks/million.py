"""A million blocks with a network that costs nothing: what the engine's own loop takes.

    python benchmarks/million.py [--blocks 1000000] [--workers N]

The loop of a run (the task pool, the ledger, the progress) on the workers that a run starts, with
tasks that return a receipt at once. Memory is that of the client, which with the worker inside this
process is all there is; the tasks are those that were drawn and had not come back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from common import WORK, command_line, fresh, parse, record
from nothing import no_work

from tilepipe.engine.cluster.bundle import MOST
from tilepipe.engine.cluster.connect import connect
from tilepipe.engine.cluster.pool import Task, TaskPool
from tilepipe.engine.options import RunOptions
from tilepipe.engine.state.ledger import Ledger
from tilepipe.engine.state.progress import Progress

LOOK_EVERY = 500


def _fit() -> dict[str, str]:
    return {}


@dataclass
class Loads:
    """What was seen at a number of blocks."""

    marks: list[int]
    seconds: dict[int, float] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)
    tasks: int = 0

    def look(self, done: int, drawn: int, begin: float) -> None:
        """Take note."""
        self.tasks = max(self.tasks, drawn - done)
        if done in self.marks:
            self.seconds[done] = time.perf_counter() - begin
            self.memory[done] = psutil.Process().memory_info().rss


def drive(blocks: int, count: int | None, path: Path) -> tuple[Loads, int, int]:
    """Do them all; what was seen, the memory before, and the most tasks that may be in flight."""
    marks = sorted({n for n in (1000, 10_000, 100_000, 900_000) if n < blocks} | {blocks})
    loads, progress = Loads(marks), Progress()
    with connect(RunOptions(image="none.tif", workers=count)) as (workers, _):
        workers.ask(_fit)
        in_flight, drawn = workers.roster.in_flight() * MOST, 0

        def tasks() -> Iterator[Task]:
            nonlocal drawn
            for number in range(blocks):
                drawn = number + 1
                yield Task(no_work, ("store", "run", number))

        before, begin = psutil.Process().memory_info().rss, time.perf_counter()
        with Ledger(path) as ledger:
            for done, outcome in enumerate(TaskPool(workers, retries=2).run(tasks()), 1):
                ledger.append(outcome.value.to_record())
                progress.add(outcome.value)
                if done % LOOK_EVERY == 0 or done == blocks:
                    loads.look(done, drawn, begin)
    return loads, before, in_flight


def main() -> None:
    """Drive, and write what was seen; then read the ledger as a resumed run does."""
    parser = command_line(__doc__)
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int)
    options = parse(parser, blocks=300)
    path = WORK / "million.ledger"
    fresh(path)
    loads, before, in_flight = drive(options.blocks, options.workers, path)
    crew = f"{options.workers} worker processes" if options.workers else "in-process"
    done = 0
    for mark in loads.marks:
        span = loads.seconds[mark] - loads.seconds.get(done, 0.0)
        record(
            "million", f"{mark} blocks, {crew}",
            [
                ("blocks per second since the row before", (mark - done) / span, "1/s", ""),
                ("memory of the client", loads.memory[mark] / 1e6, "MB", ""),
            ],
        )  # fmt: skip
        done = mark
    begin = time.perf_counter()
    resumed = Progress.from_ledger(path)
    seconds = time.perf_counter() - begin
    assert all(resumed.is_done(number) for number in (0, options.blocks - 1))
    record(
        "million", f"all of {options.blocks} blocks, {crew}",
        [
            ("blocks per second", options.blocks / loads.seconds[options.blocks], "1/s", ""),
            ("most tasks drawn and not back", loads.tasks, "", f"<= {in_flight}"),
            ("memory of the client, more than before the first",
             (loads.memory[options.blocks] - before) / 1e6, "MB", ""),
            ("bytes of the ledger a block", path.stat().st_size / options.blocks, "B", ""),
            ("reading the ledger when resuming", seconds, "s", ""),
        ],
    )  # fmt: skip
    fresh(path)


if __name__ == "__main__":
    main()
