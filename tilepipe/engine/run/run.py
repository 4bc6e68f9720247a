"""A run of one image, and the stream of blocks that runs of several images share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tilepipe.engine.cluster.failures import environment_failure
from tilepipe.engine.cluster.pool import Task, TaskPool
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.options import RunOptions
from tilepipe.engine.report.record import Summary
from tilepipe.engine.run.job import Job, LazyWorkers
from tilepipe.errors import EnvironmentFailure
from tilepipe.storage import StoragePath


def run(options: RunOptions, watch: RunCallbacks | None = None) -> Summary:
    """Segment an image, or resume an earlier run with the same options where it stopped.

    Raises
    ------
    InputError
        When image, model, options or an existing output are at fault.
    EnvironmentFailure
        When the machine stopped the run (disk full, scheduler lost); it can be resumed.
    """
    watch = watch or RunCallbacks()
    with (
        environment_errors_classified(),
        LazyWorkers(options, watch) as lazy_workers,
        Job(options, lazy_workers, watch) as job,
    ):
        done = job.prepare()
        if done is not None:
            return done
        for _ in compute_blocks(lazy_workers.workers, [job], options):
            pass
        return job.finish()


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

    def tasks() -> Iterator[Task | None]:
        for job in jobs:
            begun[job.run.run_id] = job
            yield from job.blocks.tasks()
            note(job)
            yield None  # the next job may still be prepared

    def job_of(task: Task) -> Job:
        return begun[str(task.arguments[1])]  # by the id of its run

    def late(tasks: list[Task], seconds: float, worker: str) -> None:
        # Those of a bundle are of one job, except where one of another is tried again.
        job_of(tasks[0]).blocks.late([task.label for task in tasks], seconds, worker)

    pool = TaskPool(workers, options.retries, options.timeout_seconds, late)
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


@contextmanager
def environment_errors_classified(where: StoragePath | None = None) -> Iterator[None]:
    """Turn errors of the environment into `EnvironmentFailure`, whenever they occur.

    The message begins with ``where``, if that is given.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        cause = environment_failure(error)
        if cause is None:
            raise
        raise (cause if where is None else EnvironmentFailure(f"{where}: {cause}")) from error
