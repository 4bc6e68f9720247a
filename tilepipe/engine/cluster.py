"""The Dask side: who does the work, and a bounded number of tasks in flight."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tilepipe.engine.options import RunOptions
from tilepipe.engine.sizing import Crew
from tilepipe.engine.watchdog import Late, Watchdog
from tilepipe.errors import InputError, NonFiniteError, SurroundingsError, UnreadableError

SLOTS = 3
"""Blocks a worker of ours has in hand: one read, one computed, one written."""
CONNECT_SECONDS = 10
POLL_SECONDS = 0.01
"""Between two looks at what has come back; Dask itself looks as often."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def connect(options: RunOptions, gpus: int = 0) -> Iterator[tuple[Any, Crew]]:
    """A Dask client and what the plan must know of its workers.

    One worker inside this process; or processes of this machine (``workers``, or one a GPU where
    there are several); or the workers of a running scheduler.

    Raises
    ------
    InputError
        When the scheduler cannot be reached, or has no workers.
    SurroundingsError
        When it is lost while connected.
    """
    import dask
    from distributed import Client, LocalCluster

    workers = options.workers or (gpus if gpus > 1 and options.scheduler is None else None)
    settings = {
        # A block that kills its worker is tried elsewhere, and given up after `retries` deaths.
        "distributed.scheduler.allowed-failures": options.retries,
        # Memory is bounded by the plan; spilling or pausing tiny receipts helps nobody.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.admin.tick.limit": "1h",
        "distributed.scheduler.locks.lease-timeout": "inf",
    }
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        if options.scheduler is not None:
            try:
                client = stack.enter_context(
                    Client(options.scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
                )
            except (OSError, ValueError, TimeoutError) as error:
                raise InputError(
                    f"scheduler {options.scheduler}: cannot be reached ({_line(error)}); "
                    "check the address, and that `dask scheduler` runs there"
                ) from error
            facts = client.scheduler_info(n_workers=-1)["workers"].values()
            if not facts:
                raise InputError(
                    f"scheduler {options.scheduler}: has no workers; start some with `dask worker`"
                )
            slots = max(int(worker["nthreads"]) for worker in facts)
            yield client, Crew(len(facts), in_process=False, slots=slots, local=False)
            return
        cluster = _cuda_cluster(workers) if gpus > 1 and options.workers is None else None
        if cluster is None:
            cluster = LocalCluster(
                n_workers=workers or 1,
                threads_per_worker=SLOTS,
                processes=workers is not None,
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                memory_limit=0,
                # What fails is told by the run, in one line, and not as a worker's traceback.
                silence_logs=logging.CRITICAL,
                protocol=None if workers is not None else "inproc://",
            )
        stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster, set_as_default=False))
        yield client, Crew(workers or 1, workers is None, SLOTS, gpu_memory=gpu_memory(gpus))


def gpu_memory(gpus: int) -> int | None:
    """Bytes that a pass may take on each GPU: most of what is free on the fullest one."""
    if gpus == 0:
        return None
    import torch

    return int(0.9 * min(torch.cuda.mem_get_info(i)[0] for i in range(gpus)))


def _cuda_cluster(workers: int | None) -> Any | None:
    """One worker a GPU by dask-cuda, which also binds each to the cores near its GPU."""
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        return None
    return LocalCUDACluster(
        n_workers=workers, threads_per_worker=SLOTS, dashboard_address="127.0.0.1:0", memory_limit=0
    )


def prepare_workers(client: Any, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run ``function`` once on every worker and return what each reports.

    Raises
    ------
    InputError
        When a worker cannot run it at all (tilepipe is missing there, or of another version).
    """
    reports = client.run(function, *arguments, on_error="return")
    for address, report in reports.items():
        if isinstance(report, Exception):
            raise InputError(
                f"worker {address}: cannot run this version of tilepipe ({_line(report)}); install "
                "the same environment on client and workers"
            ) from report
        if isinstance(report, dict) and "error" in report:
            raise InputError(f"worker {address}: {report['error']}")
    return list(reports.values())


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that was given up."""

    item: Any
    error: BaseException


def run_bounded(
    client: Any,
    function: Callable[..., Any],
    items: Iterable[tuple[Any, ...]],
    in_flight: int,
    retries: int,
    timeout: float | None = None,
    late: Late | None = None,
) -> Iterator[tuple[tuple[Any, ...], Any | Failure]]:
    """Call ``function(*item)`` on the workers for every item; yield each with its result.

    At most ``in_flight`` tasks are known to the scheduler at a time, whatever the number of items.
    A task that raised is tried again ``retries`` times, after those that wait; then its item is
    yielded with a `Failure`. ``late`` is told of items that do not come back (see `Watchdog`).

    Raises
    ------
    SurroundingsError
        When nothing came back for ``timeout`` seconds, when the scheduler or all workers are lost,
        or a disk is full: nothing of that is the item's fault, and going on would give up every
        item.
    InputError
        As a task raised it, when no retry can help (the image or the model are not there).
    """
    from concurrent.futures import CancelledError

    from distributed import as_completed
    from distributed.comm import CommClosedError

    waiting = ((item, 0) for item in items)
    again: deque[tuple[tuple[Any, ...], int]] = deque()
    tried: dict[str, tuple[tuple[Any, ...], int]] = {}
    results = as_completed(with_results=False, loop=client.loop)
    watchdog = Watchdog(timeout)

    def submit_next() -> bool:
        following = next(waiting, None) or (again.popleft() if again else None)
        if following is None:
            return False
        future = client.submit(function, *following[0], pure=False)
        tried[future.key] = following
        watchdog.submitted(future.key, following[0], time.monotonic())
        results.add(future)
        return True

    try:
        for _ in range(in_flight):
            if not submit_next():
                break
        while tried:
            while not results.has_ready():
                time.sleep(POLL_SECONDS)
                for key, item, seconds in watchdog.late(time.monotonic()):
                    worker = _start_anew(client, key)
                    if late is not None:
                        late(item, seconds, worker)
            future = next(results)
            watchdog.finished(future.key, time.monotonic())
            item, attempt = tried.pop(future.key)
            if future.status == "cancelled" or client.status not in ("running",):
                raise SurroundingsError("the scheduler was lost")
            error = future.exception() if future.status == "error" else None
            if error is None:
                outcome = future.result()
                future.release()
                yield item, outcome
            elif attempt < retries and _may_pass(error):
                again.append((item, attempt + 1))
            elif (cause := surroundings(error)) is not None:
                raise cause
            elif isinstance(error, InputError) and not isinstance(
                error, UnreadableError | NonFiniteError
            ):
                raise error
            else:
                yield item, Failure(item, error)
            submit_next()
    except (CommClosedError, CancelledError, TimeoutError) as error:
        raise SurroundingsError(f"the scheduler was lost ({_line(error)})") from error
    finally:
        for future in list(results.futures):
            future.release()


def _start_anew(client: Any, key: str) -> str:
    """Start the worker anew that has a task, if it is a process of ours; returns its address."""
    holders = [address for address, keys in client.processing().items() if key in keys]
    if not holders:
        return ""
    ours = client.cluster is not None and not holders[0].startswith("inproc://")
    if ours:
        client.restart_workers(holders, raise_for_error=False)
    return str(holders[0])


REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "give permission"),
    **dict.fromkeys(
        (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT),
        "look whether the disk is there and sound",
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
}
"""What to do about an error of the system while writing, by its number."""


MORE_MEMORY = (
    "free some, or use fewer workers, and give the same command again; or begin anew with "
    "--overwrite and a lower --memory, which a run that has begun cannot change"
)
"""The window is frozen with the plan, and with it what a worker takes."""


def _may_pass(error: BaseException) -> bool:
    """Whether the same task may succeed when tried again."""
    return not isinstance(error, NonFiniteError) and surroundings(error) is None


def surroundings(error: BaseException) -> SurroundingsError | None:
    """The error as one of the machine's, when it is: the disk, permissions, memory, the cluster.

    What cannot be read of an image is an `UnreadableError` long before; an `OSError` that gets here
    is about what was to be written.
    """
    if isinstance(error, SurroundingsError):
        return error
    if type(error).__name__ == "CommClosedError":
        return SurroundingsError(f"the scheduler was lost ({_line(error)})")
    if type(error).__name__ == "KilledWorker":
        return SurroundingsError(
            "one block ended several workers, one after the other, most likely for want of memory; "
            f"{MORE_MEMORY}; and look at the workers' logs"
        )
    if isinstance(error, OSError) and error.errno in REMEDIES:
        where = f" {error.filename}" if error.filename else ""
        return SurroundingsError(
            f"the mask cannot be written{where}: {error.strerror}; {REMEDIES[error.errno]}"
        )
    if out_of_memory(error):
        return SurroundingsError(f"out of memory; {MORE_MEMORY}")
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted, in whatever way torch or Python say it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(error).lower()
        or "out of memory" in str(error).lower()
    )


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
