"""The worker inside this process: a few threads, without a scheduler and without Dask.

`InProcessClient` answers to the part of `distributed.Client` that `Workers` and `TaskPool` use, so
that neither asks which of the two it has.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from queue import SimpleQueue
from typing import Any, Self

ADDRESS = "in-process"
CLOSE_SECONDS = 30.0
"""How long closing waits for tasks that have begun; a read that hangs never ends."""


class _Call(Future[Any]):
    """A call under way, with the names that Dask gives to what `concurrent.futures` knows too."""

    def __init__(self, key: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.key, self._function, self._arguments = key, function, arguments

    @property
    def status(self) -> str:
        """As of a `distributed.Future`."""
        if not self.done():
            return "pending"
        if self.cancelled():
            return "cancelled"
        return "finished" if self.exception() is None else "error"

    def release(self) -> None:
        """Do not begin, if it has not begun."""
        self.cancel()

    def work(self) -> None:
        """Make the call, unless it was released."""
        if not self.set_running_or_notify_cancel():
            return
        try:
            value = self._function(*self._arguments)
        except BaseException as error:  # raised where the result is asked for
            self.set_exception(error)
        else:
            self.set_result(value)


class InProcessClient:
    """One worker: this process, which works on up to ``threads`` tasks at once.

    Its threads do not keep the process alive, because a read from a lost network disk never ends.
    """

    cluster = None
    status = "running"

    def __init__(self, threads: int) -> None:
        self._numbers = count()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._wanted = 0
        self.resize(threads)

    def resize(self, threads: int) -> None:
        """Work on up to ``threads`` tasks at once; tasks that are queued already may be more."""
        for _ in range(threads, self._wanted):
            self._calls.put(None)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for number in range(self._wanted, threads):
            thread = threading.Thread(
                target=self._work, name=f"tilepipe-worker-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._wanted = threads

    def submit(
        self, function: Callable[..., Any], *arguments: Any, pure: bool = False, workers: Any = None
    ) -> _Call:
        """Queue a call for the next thread that is free."""
        call = _Call(str(next(self._numbers)), function, arguments)
        self._calls.put(call)
        return call

    def run(
        self, function: Callable[..., Any], *arguments: Any, workers: Any = None, on_error: str = ""
    ) -> dict[str, Any]:
        """Call a function now, in the caller's thread; returns its value, or error, by worker.

        ``on_error`` is as in `distributed.Client.run`.
        """
        names = inspect.signature(function).parameters
        named = {"dask_worker": None} if "dask_worker" in names else {}
        try:
            return {ADDRESS: function(*arguments, **named)}
        except Exception as error:
            if on_error not in ("return", "ignore"):
                raise
            return {ADDRESS: error} if on_error == "return" else {}

    def nthreads(self) -> dict[str, int]:
        """The only worker, and how many tasks it works on at once."""
        return {ADDRESS: self._wanted}

    def processing(self) -> dict[str, list[str]]:
        """No worker that could be restarted."""
        return {}

    def close(self) -> None:
        """End, after the tasks that have begun."""
        self.status = "closed"
        for _ in range(self._wanted):
            self._calls.put(None)
        until = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.work()
            del call  # and what it holds: an error keeps the arrays of the block that it ended
