"""Running tasks about objects in processes of this machine, without a cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from tilepipe.errors import EnvironmentFailure
from tilepipe.objects.job import PIXEL_BYTES, SMALLEST_SIDE
from tilepipe.objects.numbering import Compute

PROCESS = 250_000_000
"""Bytes of a process before it has any window, about."""


def processes_for(memory: int, cores: int, windows: int | None = None) -> int:
    """How many processes are worth it on so many cores, and within a memory limit in bytes.

    ``windows`` is the number of windows there are to share, if it is known.
    """
    window = SMALLEST_SIDE**2 * PIXEL_BYTES
    fitting = memory // 2 // (PROCESS + window)
    shared = cores if windows is None else windows // 4
    return max(1, min(cores, shared, fitting))


def serially(function: Callable[..., Any], items: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Call ``function(*item)`` for each item, one after another."""
    return (function(*item) for item in items)


@contextmanager
def in_processes(count: int) -> Iterator[Compute]:
    """Yield a function that calls another one for each of many items, in ``count`` processes."""
    if count == 1:
        yield serially
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_client) as pool:

        def compute(function: Callable[..., Any], items: Iterable[tuple[Any, ...]]) -> Any:
            return pool.map(_call, ((function, item) for item in items))

        try:
            yield compute
        except BrokenProcessPool as error:
            raise EnvironmentFailure(
                "a process that made objects has died, perhaps for want of memory: allow less with "
                "--memory, or use --workers 1; the same command goes on (a Python script needs "
                '`if __name__ == "__main__":` around the call)'
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _call(task: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    function, item = task
    return function(*item)


def _end_with_client() -> None:
    """End this process when the one that started it is killed, rather than write and wait on."""
    client = multiprocessing.parent_process()
    assert client is not None, "this is a process of a pool"

    def watch() -> None:
        client.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
