"""A run of one image, from its options to its summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tilepipe.engine.cluster.connect import environment_failure
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.options import RunOptions
from tilepipe.engine.report.record import Summary
from tilepipe.engine.run.job import Connection, Job, compute


def run(options: RunOptions, watch: RunCallbacks | None = None) -> Summary:
    """Segment an image, or go on where an earlier run of the same options stopped.

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
        Connection(options, watch) as connection,
        Job(options, connection, watch) as job,
    ):
        done = job.prepare()
        if done is not None:
            return done
        for _ in compute(connection.workforce(), [job], options):
            pass
        return job.finish()


@contextmanager
def environment_errors_classified() -> Iterator[None]:
    """What is the machine's doing becomes a `EnvironmentFailure`, at whatever moment it happens."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        cause = environment_failure(error)
        if cause is None:
            raise
        raise cause from error
