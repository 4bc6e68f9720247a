"""The Dask side: who does the work, and a bounded number of tasks in flight."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.hardware import default_memory
from tilepipe.engine.options import RunOptions
from tilepipe.engine.resources import Resources, check_workers
from tilepipe.errors import (
    EnvironmentFailure,
    InputError,
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
) -> Iterator[tuple[Workers, Resources]]:
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
            resources = Resources(
                len(threads), in_process=False, slots=max(threads.values()), local=False
            )
            yield (
                stack.enter_context(Workers(client, wait=wait, watch=watch).monitored()),
                resources,
            )
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
            stack.enter_context(local.monitored())
        memory = gpu_memory(gpus, workers or 1)
        yield local, Resources(workers or 1, workers is None, SLOTS, gpu_memory=memory)


def _own_cluster(
    options: RunOptions, watch: RunCallbacks | None, stack: ExitStack, *, to_plan: bool
) -> tuple[Workers, Resources]:
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
    resources = Resources(
        file.most, in_process=False, slots=slots, local=False, threads=file.threads or 0
    )
    return stack.enter_context(workers.monitored()), resources


def _close(cluster: Any, path: str, watch: RunCallbacks | None) -> None:
    trouble = close_cluster(cluster)
    if trouble and watch is not None:
        watch.on_warning(f"{path}: could not be closed, look whether workers are left: {trouble}")


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
