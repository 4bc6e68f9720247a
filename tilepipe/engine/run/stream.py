"""The blocks of several images, computed as one stream by the same workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from tilepipe.engine.cluster.pool import Task, TaskPool
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.options import RunOptions
from tilepipe.engine.run.job import Job


def compute_blocks(workers: Workers, jobs: Iterable[Job], options: RunOptions) -> Iterator[Job]:
    """Compute the blocks of prepared jobs as one stream; yield each job after its last block.

    The first blocks of a job are computed beside the last ones of the job before it. A job is
    taken from ``jobs`` only when its first block can begin.

    Raises EnvironmentFailure when the scheduler or all workers are lost, or a disk is full.
    """
    begun: dict[str, Job] = {}
    computed: deque[Job] = deque()

    def note(job: Job) -> None:
        if job.blocks.is_computed and begun.pop(job.run.run_id, None) is not None:
            computed.append(job)

    def tasks() -> Iterator[Task]:
        for job in jobs:
            begun[job.run.run_id] = job
            yield from job.blocks.tasks()
            note(job)

    def job_of(task: Task) -> Job:
        return begun[str(task.arguments[1])]  # by the id of its run

    def late(task: Task, seconds: float, worker: str) -> None:
        job_of(task).blocks.late(task.label, seconds, worker)

    timeout = None if options.timeout is None else 60 * options.timeout
    pool = TaskPool(workers, options.retries, timeout, late)
    for outcome in pool.run(tasks()):
        job = job_of(outcome.task)
        instead = job.blocks.receive(outcome)
        if instead is not None:
            pool.add(instead)
        note(job)
        while computed:
            yield computed.popleft()
    while computed:
        yield computed.popleft()
