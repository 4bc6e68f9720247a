"""The Dask side: who does the work, and a bounded number of tasks in flight."""

from __future__ import annotations

import errno
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tilepipe.engine.cluster.cluster_file import (
    SLOTS,
    close_cluster,
    of_this_user_only,
    read_cluster_file,
    renew,
    start_cluster,
)
from tilepipe.engine.cluster.dask_settings import NO_PAGES, OWN_CLUSTER, RUN, dask_settings
from tilepipe.engine.cluster.watchdog import Late, Watchdog
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.hardware import default_memory
from tilepipe.engine.options import RunOptions
from tilepipe.engine.resources import Crew, check_workers
from tilepipe.errors import (
    EnvironmentFailure,
    InputError,
    NonFiniteError,
    UnfitWorkerError,
)
from tilepipe.text import duration, first_line

if TYPE_CHECKING:
    from tilepipe.engine.events import RunCallbacks

CONNECT_SECONDS = 10
WAIT_SECONDS = 600.0
"""How long a run waits for workers of a scheduler elsewhere when it has lost all."""
WAIT_LOCAL_SECONDS = 60.0
"""The same for processes of this machine, which are started again at once where they can."""
TICK_SECONDS = 1.0
"""Between two looks at the workers' state while nothing comes back."""


@contextmanager
def connect(
    options: RunOptions, gpus: int = 0, watch: RunCallbacks | None = None, *, to_plan: bool = False
) -> Iterator[tuple[Workers, Crew]]:
    """The workers, and what the plan must know of them.

    One worker inside this process; or processes of this machine (``workers``, or one a GPU where
    there are several); or the workers of a running scheduler; or a cluster that is started for the
    run, and closed after it. ``to_plan`` starts no more of it than one worker.

    Raises
    ------
    InputError
        When the scheduler cannot be reached, or has no workers; when a cluster cannot be started.
    EnvironmentFailure
        When it is lost while connected, or no worker comes.
    """
    from distributed import Client

    workers = options.workers or (gpus if gpus > 1 and not options.uses_external_workers else None)
    with ExitStack() as stack:
        stack.enter_context(dask_settings(RUN))
        if options.scheduler is not None:
            try:
                client = stack.enter_context(
                    Client(options.scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
                )
            except (OSError, ValueError, TimeoutError) as error:
                raise InputError(
                    f"scheduler {options.scheduler}: cannot be reached ({first_line(error)}); "
                    "check the address, and that `dask scheduler` runs there"
                ) from error
            if not _first_worker(client, options.wait or 0, watch):
                raise InputError(
                    f"scheduler {options.scheduler}: has no workers; start some with `dask worker`"
                )
            wait = WAIT_SECONDS if options.wait is None else options.wait
            threads = client.nthreads()
            crew = Crew(len(threads), in_process=False, slots=max(threads.values()), local=False)
            yield stack.enter_context(Workers(client, wait=wait, watch=watch).watching()), crew
            return
        if options.cluster is not None:
            yield _own_cluster(options, watch, stack, to_plan=to_plan)
            return
        check_workers(workers or 1, options.memory or default_memory())
        cluster = None
        if gpus > 1 and options.workers is None:
            cluster = _cuda_cluster(workers, options.retries)
        if cluster is None:
            from tilepipe.engine.cluster.local_cluster import start_local_cluster

            cluster = start_local_cluster(workers, SLOTS, options.retries)
        stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster, set_as_default=False))
        local = Workers(client, wait=WAIT_LOCAL_SECONDS, watch=watch)
        if workers is not None:
            stack.enter_context(local.watching())
        memory = gpu_memory(gpus, workers or 1)
        yield local, Crew(workers or 1, workers is None, SLOTS, gpu_memory=memory)


def _own_cluster(
    options: RunOptions, watch: RunCallbacks | None, stack: ExitStack, *, to_plan: bool
) -> tuple[Workers, Crew]:
    """Start the cluster of a cluster file, and wait for the first of its workers."""
    from distributed import Client

    assert options.cluster is not None, "asked only where there is one"
    file = read_cluster_file(options.cluster)
    wait = file.wait if options.wait is None else options.wait
    stack.enter_context(dask_settings(OWN_CLUSTER | ({} if file.has_dashboard else NO_PAGES)))
    if watch is not None:
        watch.stage(f"starting {file.kind.path}; waiting for its first worker")
    cluster = start_cluster(file, options.retries, 1 if to_plan else None)
    stack.callback(_close, cluster, file.path, watch)
    client = stack.enter_context(Client(cluster, set_as_default=False))
    if not _first_worker(client, wait, None):
        raise EnvironmentFailure(
            f"{file.path}: no worker has come within {duration(wait)}; look at the jobs and "
            "their logs, or wait longer (`wait:` in the file, or --wait)"
        )
    slots = max(client.nthreads().values())
    workers = Workers(
        client,
        wait=wait,
        watch=watch,
        at_most=file.most * (slots + 1) if file.adapt is not None else 0,
        renew=lambda: renew(cluster),
        wanted=1 if file.workers is None else file.workers,
    )
    crew = Crew(file.most, in_process=False, slots=slots, local=False, threads=file.threads)
    return stack.enter_context(workers.watching()), crew


def _close(cluster: Any, path: str, watch: RunCallbacks | None) -> None:
    trouble = close_cluster(cluster)
    if trouble and watch is not None:
        watch.trouble(f"{path}: could not be closed, look whether workers are left: {trouble}")


def _first_worker(client: Any, wait: float, watch: RunCallbacks | None) -> bool:
    """Whether there is a worker, or one comes within so many seconds."""
    deadline = time.monotonic() + wait
    while not client.nthreads():
        if time.monotonic() >= deadline:
            return False
        if watch is not None:
            watch.stage(f"waiting {duration(wait)} for a first worker")
            watch = None
        time.sleep(0.2)
    return True


def gpu_memory(gpus: int, workers: int = 1) -> int | None:
    """Bytes that a pass may take on a GPU: most of what is free on the fullest one.

    Where there are more workers than GPUs, several share one, and its memory.
    """
    if gpus == 0:
        return None
    from tilepipe._torch import torch

    free = min(torch.cuda.mem_get_info(i)[0] for i in range(gpus))
    return int(0.9 * free / -(-workers // gpus))


def _cuda_cluster(workers: int | None, allowed_failures: int) -> Any | None:
    """One worker a GPU by dask-cuda, which also binds each to the cores near its GPU."""
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        return None
    with dask_settings(NO_PAGES):
        return LocalCUDACluster(
            n_workers=workers,
            threads_per_worker=SLOTS,
            memory_limit=0,
            **of_this_user_only(allowed_failures),
        )


def prepare_workers(workers: Workers, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run ``function`` once on every worker and return what each reports; see `Workers.ask`.

    Raises
    ------
    InputError
        When a worker cannot run it at all (tilepipe is missing there, or of another version).
    """
    return workers.ask(function, *arguments)


def release_workers(workers: Workers, function: Callable[..., Any], *arguments: Any) -> None:
    """Run ``function`` on every worker at the end of a run; see `Workers.release`."""
    workers.release(function, *arguments)


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that was given up."""

    item: Any
    error: BaseException


@dataclass(frozen=True, slots=True)
class _Task:
    """A task that the scheduler knows of."""

    item: tuple[Any, ...]
    attempt: int
    """How often it failed before."""
    future: Any
    places: frozenset[str] | None
    """Workers it must keep to."""
    changes: int
    """Of the workers, when it was submitted."""


def run_bounded(
    client: Any,
    function: Callable[..., Any],
    items: Iterable[tuple[Any, ...]],
    in_flight: int | Callable[[], int],
    retries: int,
    timeout: float | None = None,
    late: Late | None = None,
) -> Iterator[tuple[tuple[Any, ...], Any | Failure]]:
    """Call ``function(*item)`` on the workers for every item; yield each with its result.

    At most ``in_flight`` tasks are known to the scheduler at a time, whatever the number of items.
    A task that raised is tried again ``retries`` times, after those that wait; then its item is
    yielded with a `Failure`. Workers that come get their share; where workers are lost, or cannot
    take part, what they had goes to others, and counts as no failure.

    Parameters
    ----------
    client
        `Workers`, or a plain Dask client, whose workers are taken as they are.
    items
        Drawn one at a time, when there is a place for it.
    in_flight
        A number, or a function that gives it, such as `Workers.in_flight`.
    timeout
        Seconds without anything coming back after which to end; None: never.
    late
        Is told of items that do not come back (see `Watchdog`).

    Raises
    ------
    EnvironmentFailure
        When nothing came back for ``timeout`` seconds, when the scheduler or all workers are lost,
        or a disk is full: nothing of that is the item's fault, and going on would give up every
        item.
    """
    from concurrent.futures import CancelledError

    from distributed.comm import CommClosedError

    crew = client if isinstance(client, Workers) else None
    if crew is not None:
        client = crew.client
        crew.begin()
    limit = in_flight if callable(in_flight) else lambda: in_flight
    waiting = ((item, 0) for item in items)
    again: deque[tuple[tuple[Any, ...], int]] = deque()
    moved: deque[tuple[tuple[Any, ...], int]] = deque()
    tried: dict[str, _Task] = {}
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    seen = 0 if crew is None else crew.changes
    drawn = False  # all items
    watchdog = Watchdog(timeout)

    def following() -> tuple[tuple[Any, ...], int] | None:
        nonlocal drawn
        if moved:
            return moved.popleft()
        if not drawn and (new := next(waiting, None)) is not None:
            return new
        drawn = True
        return again.popleft() if again else None

    def submit_what_fits() -> None:
        while len(tried) < limit() and (next_one := following()) is not None:
            places = None if crew is None else crew.places()
            if places == []:  # all workers were lost meanwhile
                moved.append(next_one)
                return
            future = client.submit(function, *next_one[0], pure=False, workers=places)
            tried[future.key] = _Task(
                *next_one,
                future,
                None if places is None else frozenset(places),
                0 if crew is None else crew.changes,
            )
            watchdog.submitted(future.key, next_one[0], time.monotonic())
            future.add_done_callback(done.put)

    def move_tasks_of_the_lost() -> None:
        """Take back tasks that were to keep to workers of which none is left."""
        assert crew is not None, "without one no task is bound to a place"
        fit = crew.fit
        for key, task in list(tried.items()):
            if task.places is not None and fit.isdisjoint(task.places):
                del tried[key]
                watchdog.finished(key, time.monotonic())
                task.future.cancel()
                moved.append((task.item, task.attempt))

    try:
        while True:
            submit_what_fits()
            if drawn and not (tried or moved or again):
                return
            if crew is not None:
                crew.check()
                if crew.changes != seen:
                    seen = crew.changes
                    move_tasks_of_the_lost()
            try:
                future = done.get(timeout=min(TICK_SECONDS, watchdog.patience / 2))
            except queue.Empty:
                if client.status != "running":
                    raise EnvironmentFailure("the scheduler was lost") from None
                for key, item, seconds in watchdog.late(time.monotonic()):
                    worker = _start_anew(client, key)
                    if late is not None:
                        late(item, seconds, worker)
                continue
            watchdog.finished(future.key, time.monotonic())
            task = tried.pop(future.key, None)
            if task is None:  # taken back
                continue
            if future.status == "cancelled" or client.status != "running":
                raise EnvironmentFailure("the scheduler was lost")
            error = future.exception() if future.status == "error" else None
            if error is None:
                try:
                    outcome = future.result(timeout=TICK_SECONDS)
                except TimeoutError:
                    # Its worker was lost, or cut off, before it handed the result over.
                    tried[future.key] = task
                    future.add_done_callback(done.put)
                    continue
                future.release()
                yield task.item, outcome
                continue
            if crew is not None and _is_the_workers(error, crew, task):
                moved.append((task.item, task.attempt))
            elif task.attempt < retries and _may_pass(error):
                again.append((task.item, task.attempt + 1))
            elif (cause := environment_failure(error)) is not None:
                raise cause
            else:
                yield task.item, Failure(task.item, error)
    except (CommClosedError, CancelledError, TimeoutError) as error:
        raise EnvironmentFailure(f"the scheduler was lost ({first_line(error)})") from error
    finally:
        for task in tried.values():
            task.future.release()


def _is_the_workers(error: BaseException, crew: Workers, task: _Task) -> bool:
    """Whether a worker that cannot take part is to blame for an error; it is left out."""
    if isinstance(error, UnfitWorkerError) and error.worker:
        crew.leave_out(error.worker, error.reason)
        return True
    if isinstance(error, ImportError | AttributeError) or "deserializ" in str(error):
        # As of a worker without this tilepipe. If it joined only now, nobody has asked it yet.
        with suppress(OSError, TimeoutError):
            crew.look()
        return crew.places() is not None and crew.changes != task.changes
    return False


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
    return not isinstance(error, NonFiniteError) and environment_failure(error) is None


def environment_failure(error: BaseException) -> EnvironmentFailure | None:
    """The error as one of the machine's, when it is: the disk, permissions, memory, the cluster.

    What cannot be read of an image is an `UnreadableError` long before; an `OSError` that gets here
    is about what was to be written.
    """
    if isinstance(error, EnvironmentFailure):
        return error
    if type(error).__name__ == "CommClosedError":
        return EnvironmentFailure(f"the scheduler was lost ({first_line(error)})")
    if type(error).__name__ == "KilledWorker":
        return EnvironmentFailure(
            "one block ended several workers, one after the other, most likely for want of memory; "
            f"{MORE_MEMORY}; and look at the workers' logs"
        )
    if isinstance(error, OSError) and error.errno in REMEDIES:
        where = f" {error.filename}" if error.filename else ""
        return EnvironmentFailure(
            f"the mask cannot be written{where}: {error.strerror}; {REMEDIES[error.errno]}"
        )
    if out_of_memory(error):
        return EnvironmentFailure(f"out of memory; {MORE_MEMORY}")
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted, in whatever way torch or Python say it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(error).lower()
        or "out of memory" in str(error).lower()
    )
