"""A bounded number of tasks on their way to the workers, whatever the number of tasks."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tilepipe.engine.cluster.failures import environment_failure, may_pass
from tilepipe.engine.cluster.watchdog import Watchdog
from tilepipe.engine.cluster.workers import Workers
from tilepipe.errors import EnvironmentFailure, UnfitWorkerError
from tilepipe.text import first_line

TICK_SECONDS = 1.0
"""Between two looks at the workers while no task comes back."""


@dataclass(frozen=True, slots=True)
class Task:
    """A function call for a worker."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    label: Any = None
    """How whoever hands out the task recognises it."""
    attempt: int = 0
    """How often it has failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A task that came back: with its value, or with the error for which it was given up."""

    task: Task
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A task that the scheduler knows of."""

    task: Task
    future: Any
    bound_to: frozenset[str] | None
    """Workers that may run it; None: any."""
    changes: int
    """`Workers.changes` when it was submitted."""


class TaskPool:
    """Feeds tasks to workers, and yields each once with its outcome.

    The scheduler knows of no more tasks than the workers can have in hand, and one more for each.
    A task that raised is tried again, after those that wait. Workers that join get their share;
    the tasks of workers that are lost, or cannot take part, go to others, which is no failure of
    the task.

    Parameters
    ----------
    workers
        Asked before (`Workers.ask`), so that it is known which can take part.
    retries
        How often a task that raised is tried again.
    timeout
        Seconds without any outcome after which to stop; None: never.
    on_late
        Called with a task that does not come back, the seconds it has been out, and the address of
        the worker that has it, or ''.
    """

    def __init__(
        self,
        workers: Workers,
        retries: int,
        timeout: float | None = None,
        on_late: Callable[[Task, float, str], None] | None = None,
    ) -> None:
        self._workers, self._client = workers, workers.client
        self._retries, self._on_late = retries, on_late
        self._first: deque[Task] = deque()  # taken back from workers, or added
        self._last: deque[Task] = deque()  # failed, to be tried again
        self._submitted: dict[str, _Submitted] = {}
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._drawn = False  # all tasks
        self._watchdog = Watchdog(timeout)

    def add(self, task: Task) -> None:
        """Hand out another task, before all that wait; from the loop over `run`."""
        self._first.append(task)

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield the outcome of each task, in the order in which they come back.

        Tasks are drawn one at a time, when a worker can take one.

        Raises
        ------
        EnvironmentFailure
            When nothing came back for ``timeout`` seconds, when the scheduler or all workers are
            lost, or a disk is full: none of that is the task's fault, and any other task would
            fail as well.
        """
        from concurrent.futures import CancelledError

        from distributed.comm import CommClosedError

        waiting = iter(tasks)
        changes = self._workers.changes
        self._workers.begin()
        try:
            while True:
                self._submit(waiting)
                if self._drawn and not (self._submitted or self._first or self._last):
                    return
                self._workers.check()
                if self._workers.changes != changes:
                    changes = self._workers.changes
                    self._take_back_from_the_lost()
                outcome = self._next_outcome()
                if outcome is not None:
                    yield outcome
        except (CommClosedError, CancelledError, TimeoutError) as error:
            raise EnvironmentFailure(f"the scheduler was lost ({first_line(error)})") from error
        finally:
            for submitted in self._submitted.values():
                submitted.future.release()

    def _submit(self, waiting: Iterator[Task]) -> None:
        """Submit tasks until the workers have enough."""
        while len(self._submitted) < self._workers.in_flight():
            task = self._next_task(waiting)
            if task is None:
                return
            bound_to = self._workers.eligible()
            if bound_to == []:  # all workers were lost meanwhile
                self._first.append(task)
                return
            future = self._client.submit(
                task.function, *task.arguments, pure=False, workers=bound_to
            )
            self._submitted[future.key] = _Submitted(
                task,
                future,
                None if bound_to is None else frozenset(bound_to),
                self._workers.changes,
            )
            self._watchdog.submitted(future.key, task, time.monotonic())
            future.add_done_callback(self._done.put)

    def _next_task(self, waiting: Iterator[Task]) -> Task | None:
        if self._first:
            return self._first.popleft()
        if not self._drawn:
            task = next(waiting, None)
            if task is not None:
                return task
            self._drawn = True
        return self._last.popleft() if self._last else None

    def _take_back_from_the_lost(self) -> None:
        """Take back tasks bound to workers of which none is left."""
        fit = self._workers.fit
        for key, submitted in list(self._submitted.items()):
            if submitted.bound_to is not None and fit.isdisjoint(submitted.bound_to):
                del self._submitted[key]
                self._watchdog.finished(key, time.monotonic())
                submitted.future.cancel()
                self._first.append(submitted.task)

    def _next_outcome(self) -> Outcome | None:
        """Wait a moment for a task to come back; None where none did, or it is tried again."""
        try:
            future = self._done.get(timeout=min(TICK_SECONDS, self._watchdog.patience / 2))
        except queue.Empty:
            self._require_scheduler()
            for key, task, seconds in self._watchdog.late(time.monotonic()):
                worker = _restart_holder(self._client, key)
                if self._on_late is not None:
                    self._on_late(task, seconds, worker)
            return None
        self._watchdog.finished(future.key, time.monotonic())
        submitted = self._submitted.pop(future.key, None)
        if submitted is None:  # taken back
            return None
        if future.status == "cancelled":
            raise EnvironmentFailure("the scheduler was lost")
        self._require_scheduler()
        if future.status == "error":
            return self._failed(submitted, future.exception())
        try:
            value = future.result(timeout=TICK_SECONDS)
        except TimeoutError:
            # Its worker was lost, or cut off, before it handed the result over.
            self._submitted[future.key] = submitted
            future.add_done_callback(self._done.put)
            return None
        future.release()
        return Outcome(submitted.task, value)

    def _failed(self, submitted: _Submitted, error: BaseException) -> Outcome | None:
        task = submitted.task
        if self._is_the_workers(error, submitted):
            self._first.append(task)
        elif task.attempt < self._retries and may_pass(error):
            self._last.append(replace(task, attempt=task.attempt + 1))
        elif (cause := environment_failure(error)) is not None:
            raise cause
        else:
            return Outcome(task, error=error)
        return None

    def _is_the_workers(self, error: BaseException, submitted: _Submitted) -> bool:
        """Whether an error is that of a worker which cannot take part; it is left out."""
        if isinstance(error, UnfitWorkerError) and error.worker:
            self._workers.leave_out(error.worker, error.reason)
            return True
        if isinstance(error, ImportError | AttributeError) or "deserializ" in str(error):
            # As of a worker without this tilepipe. If it joined only now, nobody has asked it yet.
            with suppress(OSError, TimeoutError):
                self._workers.refresh()
            changed = self._workers.changes != submitted.changes
            return self._workers.eligible() is not None and changed
        return False

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise EnvironmentFailure("the scheduler was lost")


def _restart_holder(client: Any, key: str) -> str:
    """Restart the worker that has a task, if it is a process of ours; returns its address."""
    holders = [address for address, keys in client.processing().items() if key in keys]
    if not holders:
        return ""
    ours = client.cluster is not None and not holders[0].startswith("inproc://")
    if ours:
        client.restart_workers(holders, raise_for_error=False)
    return str(holders[0])
