"""Threads that help to read one window, in processes with cores to spare.

There are none unless a process asks for them (`set_helpers`). All reads of a process share them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_THREADS = 4
"""That read one window. Each holds a tile or two, and a plan counts ten for a window."""

_pool: ThreadPoolExecutor | None = None
_helpers = 0


def set_helpers(count: int) -> None:
    """Let up to ``count`` more threads help to read each window from now on."""
    global _pool, _helpers
    count = max(0, min(count, MOST_THREADS - 1))
    if count != _helpers:
        old, _helpers = _pool, count
        _pool = ThreadPoolExecutor(count, "helper") if count else None
        if old is not None:
            old.shutdown(wait=False)


def for_each(function: Callable[[T], None], items: Iterable[T]) -> None:
    """Call a function for each item, in this thread and those that help.

    Raises
    ------
    Exception
        The error of the first item, in their order, whose call failed.
    """
    pool, work = _pool, _Work(function, items)
    if pool is None:
        work.do()
    else:
        try:
            helping = [pool.submit(work.do) for _ in range(_helpers)]
        except RuntimeError:  # the pool was replaced meanwhile
            helping = []
        work.do()
        for helper in helping:
            # One that has not begun would find nothing to do.
            if not helper.cancel():
                helper.result()
    if work.errors:
        raise work.errors[min(work.errors)]


class _Work(Generic[T]):
    """Items that several threads take one by one, until one of their calls fails."""

    def __init__(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        self._function, self._items = function, enumerate(items)
        self._lock = threading.Lock()
        self.errors: dict[int, BaseException] = {}
        """The errors, by the numbers of their items."""

    def do(self) -> None:
        """Take items and call the function, until there are none or a call has failed."""
        while not self.errors:
            with self._lock:
                taken = next(self._items, None)
            if taken is None:
                return
            number, item = taken
            try:
                self._function(item)
            except BaseException as error:
                self.errors[number] = error
