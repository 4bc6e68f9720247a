"""Errors of workers, sorted into failures of the task and of the environment."""

from __future__ import annotations

import errno
from concurrent.futures import CancelledError

from tilepipe.errors import EnvironmentFailure, NonFiniteError
from tilepipe.text import first_line

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "give permission"),
    **dict.fromkeys(
        (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT),
        "check that the disk is mounted and healthy",
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
}
"""The remedy for a system error while writing, by its number."""

MORE_MEMORY = (
    "free some, or use fewer workers, and run the same command again; or start over with "
    "--overwrite and a lower --memory, which cannot change once a run has begun"
)
"""The remedy for too little memory; the plan fixes the window and so the memory of a worker."""


def environment_failure(error: BaseException) -> EnvironmentFailure | None:
    """The error as a failure of disk, permissions, memory or cluster; None for other errors.

    Errors of reading an image are `UnreadableError`, so an `OSError` here concerns writing.
    """
    if isinstance(error, EnvironmentFailure):
        return error
    if type(error).__name__ == "CommClosedError":
        return EnvironmentFailure(f"the scheduler was lost ({first_line(error)})")
    if type(error).__name__ == "KilledWorker":
        return EnvironmentFailure(
            "one block killed several workers in turn, probably by running out of memory; "
            f"{MORE_MEMORY}; and check the workers' logs"
        )
    if isinstance(error, OSError) and error.errno in REMEDIES:
        where = f" {error.filename}" if error.filename else ""
        return EnvironmentFailure(
            f"the mask cannot be written{where}: {error.strerror}; {REMEDIES[error.errno]}"
        )
    if out_of_memory(error):
        return EnvironmentFailure(f"out of memory; {MORE_MEMORY}")
    return None


def is_loss_of_scheduler(error: BaseException) -> bool:
    """Whether an error of Dask's client tells that its scheduler is gone."""
    # By name: a run inside this process loads no Dask.
    lost = isinstance(error, CancelledError | TimeoutError)
    return lost or type(error).__name__ == "CommClosedError"


def may_pass(error: BaseException) -> bool:
    """Whether the same task may succeed in another attempt."""
    return not isinstance(error, NonFiniteError) and environment_failure(error) is None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch reports that memory is exhausted."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(error).lower()
        or "out of memory" in str(error).lower()
        or "bad_alloc" in str(error)  # of C++, by OpenVINO
        or "unable to find an engine" in str(error).lower()  # of cuDNN, that fits
    )
