"""The blocks of several images, computed as one stream by the same workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from tilepipe.engine.cluster.pool import Task, TaskPool
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.options import RunOptions
from tilepipe.engine.run.job import Job


def compute_blocks(workers: Workers, jobs: Iterable[Job], options: RunOptions) -> Iterator[Job]:
    """Compute the blocks of prepared jobs as one stream; yields each job when its last is done.

    The blocks of the next job begin while the last ones of the one before are computed. A job is
    taken from ``jobs`` only when its first block may begin.

    Raises
    ------
    EnvironmentFailure
        When the scheduler or all workers are lost, or a disk is full.
    """
    begun: dict[str, Job] = {}
    computed: deque[Job] = deque()

    def note(job: Job) -> None:
        if job.blocks.is_computed and begun.pop(job.run.run_id, None) is not None:
            computed.append(job)

    def tasks() -> Iterator[Task]:
        for job in jobs:
            begun[job.run.run_id] = job
            yield from job.tasks()
            note(job)

    def late(task: Task, seconds: float, worker: str) -> None:
        begun[_run_of(task)].blocks.late(task.label, seconds, worker)

    timeout = None if options.timeout is None else 60 * options.timeout
    pool = TaskPool(workers, options.retries, timeout, late)
    for outcome in pool.run(tasks()):
        job = begun[_run_of(outcome.task)]
        instead = job.receive(outcome)
        if instead is not None:
            pool.add(instead)
        note(job)
        while computed:
            yield computed.popleft()
    while computed:
        yield computed.popleft()


def _run_of(task: Task) -> str:
    """The id of the run that a block's task belongs to."""
    return str(task.arguments[1])
