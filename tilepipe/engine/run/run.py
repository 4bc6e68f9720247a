"""A run of one image, from its options to its summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tilepipe.engine.cluster.failures import environment_failure
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.options import RunOptions
from tilepipe.engine.report.record import Summary
from tilepipe.engine.run.job import Job, LazyWorkers
from tilepipe.engine.run.stream import compute_blocks


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


@contextmanager
def environment_errors_classified() -> Iterator[None]:
    """Turn errors of the environment into `EnvironmentFailure`, whenever they occur."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        cause = environment_failure(error)
        if cause is None:
            raise
        raise cause from error
