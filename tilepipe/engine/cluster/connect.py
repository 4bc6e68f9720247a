"""Connecting to the workers of a run: in this process, on this machine, or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tilepipe.engine.cluster.cluster_file import (
    GPU_SLOTS,
    SLOTS,
    close_cluster,
    of_this_user_only,
    read_cluster_file,
    renew,
    start_cluster,
)
from tilepipe.engine.cluster.dask_settings import NO_PAGES, OWN_CLUSTER, RUN, dask_settings
from tilepipe.engine.cluster.in_process import InProcessClient
from tilepipe.engine.cluster.workers import Renewal, Workers
from tilepipe.engine.hardware import cores, default_memory
from tilepipe.engine.options import RunOptions
from tilepipe.engine.resources import Resources, check_workers
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.text import duration, first_line

if TYPE_CHECKING:
    from tilepipe.engine.events import RunCallbacks

CONNECT_SECONDS = 10
WAIT_SECONDS = 600.0
"""How long a run waits for new workers of an external scheduler after losing all."""
WAIT_LOCAL_SECONDS = 60.0
"""The same for processes of this machine, which are restarted at once if possible."""


@contextmanager
def connect(
    options: RunOptions, gpus: int = 0, watch: RunCallbacks | None = None, *, to_plan: bool = False
) -> Iterator[tuple[Workers, Resources]]:
    """The workers of a run, and their resources.

    They are one worker inside this process, processes of this machine (``workers``, or one for each
    of several GPUs), the workers of a running scheduler, or those of a cluster that is started for
    the run. With ``to_plan``, such a cluster starts only one worker.

    Raises
    ------
    InputError
        When the scheduler cannot be reached, or has no workers; when a cluster cannot be started.
    EnvironmentFailure
        When the scheduler is lost, or no worker starts.
    """
    with ExitStack() as stack:
        if options.scheduler is not None:
            yield _external(options, options.scheduler, watch, stack)
        elif options.cluster is not None:
            yield _own_cluster(options, options.cluster, watch, stack, to_plan=to_plan)
        else:
            yield _local(options, gpus, watch, stack)


def _external(
    options: RunOptions, scheduler: str, watch: RunCallbacks | None, stack: ExitStack
) -> tuple[Workers, Resources]:
    """Connect to a running scheduler."""
    from tilepipe.engine.cluster.client import ClosingClient

    stack.enter_context(dask_settings(RUN))
    try:
        client = stack.enter_context(
            ClosingClient(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        )
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"scheduler {scheduler}: cannot be reached ({first_line(error)}); check the address, "
            "and that `dask scheduler` runs there"
        ) from error
    if not _first_worker(client, options.wait or 0, watch):
        raise InputError(f"scheduler {scheduler}: has no workers; start some with `dask worker`")
    wait = WAIT_SECONDS if options.wait is None else options.wait
    threads = client.nthreads()
    workers = stack.enter_context(Workers(client, wait=wait, watch=watch).monitored())
    return workers, Resources(len(threads), False, max(threads.values()), local=False)


def _local(
    options: RunOptions, gpus: int, watch: RunCallbacks | None, stack: ExitStack
) -> tuple[Workers, Resources]:
    """Start the worker inside this process, or worker processes of this machine."""
    resources = local_resources(options, gpus)
    if resources.in_process:
        client = stack.enter_context(InProcessClient(resources.slots))
        return Workers(client, wait=WAIT_LOCAL_SECONDS, watch=watch), resources
    return _processes(options, resources, gpus, watch, stack), resources


def local_resources(options: RunOptions, gpus: int) -> Resources:
    """The workers that a run starts on this machine: itself, or processes, one for each GPU.

    Raises
    ------
    InputError
        Where the memory limit has no room for so many processes.
    """
    count = options.workers or max(1, gpus)
    check_workers(count, options.memory or default_memory())
    in_process = options.workers is None and count == 1
    most = min(GPU_SLOTS, cores()) if gpus and in_process else 0
    return Resources(count, in_process, SLOTS, most_slots=most, gpu_memory=gpu_memory(gpus, count))


def _processes(
    options: RunOptions, resources: Resources, gpus: int, watch: RunCallbacks | None,
    stack: ExitStack,
) -> Workers:  # fmt: skip
    """Start worker processes of this machine."""
    from tilepipe.engine.cluster.client import ClosingClient
    from tilepipe.engine.cluster.local_cluster import start_local_cluster

    stack.enter_context(dask_settings(RUN))
    cluster = None
    if gpus > 1 and options.workers is None:
        cluster = _cuda_cluster(resources, options.retries)
    if cluster is None:
        cluster = start_local_cluster(resources.workers, resources.slots, options.retries)
    stack.enter_context(cluster)
    client = stack.enter_context(ClosingClient(cluster, set_as_default=False))
    return stack.enter_context(Workers(client, wait=WAIT_LOCAL_SECONDS, watch=watch).monitored())


def _own_cluster(
    options: RunOptions, path: str, watch: RunCallbacks | None, stack: ExitStack, *, to_plan: bool
) -> tuple[Workers, Resources]:
    """Start the cluster of a cluster file, and wait for its first worker."""
    from tilepipe.engine.cluster.client import ClosingClient

    stack.enter_context(dask_settings(RUN))
    file = read_cluster_file(path)
    wait = file.wait if options.wait is None else options.wait
    stack.enter_context(dask_settings(OWN_CLUSTER | ({} if file.has_dashboard else NO_PAGES)))
    if watch is not None:
        watch.stage(f"starting {file.kind.path}; waiting for its first worker")
    cluster = start_cluster(file, options.retries, 1 if to_plan else None)
    stack.callback(_close, cluster, file.path, watch)
    client = stack.enter_context(ClosingClient(cluster, set_as_default=False))
    if not _first_worker(client, wait, None):
        raise EnvironmentFailure(
            f"{file.path}: no worker started within {duration(wait)}; check the jobs and their "
            "logs, or wait longer (`wait:` in the file, or --wait)"
        )
    slots = max(client.nthreads().values())
    at_most = file.most * (slots + 1) if file.adapt is not None else 0
    renewal = Renewal(lambda: renew(cluster), 1 if file.workers is None else file.workers)
    workers = Workers(client, wait=wait, watch=watch, at_most=at_most, renewal=renewal)
    resources = Resources(file.most, False, slots, local=False, threads=file.threads or 0)
    return stack.enter_context(workers.monitored()), resources


def _close(cluster: Any, path: str, watch: RunCallbacks | None) -> None:
    error = close_cluster(cluster)
    if error and watch is not None:
        watch.on_warning(f"{path}: could not be closed; check for leftover workers: {error}")


def _first_worker(client: Any, wait: float, watch: RunCallbacks | None) -> bool:
    """Whether there is a worker, or one starts within ``wait`` seconds."""
    deadline = time.monotonic() + wait
    while not client.nthreads():
        if time.monotonic() >= deadline:
            return False
        if watch is not None:
            watch.stage(f"waiting up to {duration(wait)} for the first worker")
            watch = None
        time.sleep(0.2)
    return True


def gpu_memory(gpus: int, workers: int = 1) -> int | None:
    """The memory that a pass may take on a GPU in bytes: most of what is free on the fullest one.

    If there are more workers than GPUs, they share its memory.
    """
    if gpus == 0:
        return None
    from tilepipe._torch import torch

    free = min(torch.cuda.mem_get_info(i)[0] for i in range(gpus))
    return int(0.9 * free / -(-workers // gpus))


def _cuda_cluster(resources: Resources, allowed_failures: int) -> Any | None:
    """One worker for each GPU, by dask-cuda, which also binds each to the cores near its GPU."""
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        return None
    with dask_settings(NO_PAGES):
        return LocalCUDACluster(
            n_workers=resources.workers,
            threads_per_worker=resources.slots,
            memory_limit=0,
            **of_this_user_only(allowed_failures),
        )
