"""The task pool: tasks go to the workers a bounded number at a time."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tilepipe.engine.cluster.bundle import BUNDLE_SECONDS, Answers, Pace, call_in_turn
from tilepipe.engine.cluster.failures import (
    environment_failure,
    is_loss_of_scheduler,
    may_pass,
)
from tilepipe.engine.cluster.watchdog import Watchdog
from tilepipe.engine.cluster.workers import Workers
from tilepipe.errors import EnvironmentFailure, UnfitWorkerError
from tilepipe.text import first_line

TICK_SECONDS = 1.0
"""Time between two checks of the workers while no task comes back."""

_END = object()


@dataclass(frozen=True, slots=True)
class Task:
    """A function call for a worker."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    label: Any = None
    """Anything that identifies the task to the caller."""
    attempt: int = 0
    """How often the task has failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished task with its value, or with the error after its last attempt."""

    task: Task
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A bundle of tasks that the scheduler has."""

    tasks: list[Task]
    future: Any
    bound_to: frozenset[str] | None
    """Workers that may run it; None: any."""
    changes: int
    """`Roster.changes` when it was submitted."""


class TaskPool:
    """Feeds tasks to workers, and yields the outcome of each once.

    The scheduler has at most one bundle of tasks more than each worker can run at once: single
    tasks, or several if they are short. A task that raised is tried again after the others. Workers
    that join get their share. The tasks of workers that are lost, or cannot take part, go to
    others, which does not count as an attempt.

    Parameters
    ----------
    workers
        The workers; `Workers.ask` must have been called.
    retries
        How often a task that raised is tried again.
    timeout
        Seconds without any outcome after which to stop; None: never.
    on_late
        Called with tasks that do not come back, the seconds since they were submitted, and the
        address of their worker, or ''.
    """

    def __init__(
        self,
        workers: Workers,
        retries: int,
        timeout: float | None = None,
        on_late: Callable[[list[Task], float, str], None] | None = None,
    ) -> None:
        self._workers, self._client = workers, workers.client
        self._retries, self._on_late = retries, on_late
        self._first: deque[Task] = deque()  # taken back from workers, or added
        self._last: deque[Task] = deque()  # failed, to be tried again
        self._submitted: dict[str, _Submitted] = {}
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._drawn = False  # all tasks
        self._watchdog = Watchdog(timeout)
        self._pace = Pace()

    def add(self, task: Task) -> None:
        """Add a task that goes before all others; to be called in the loop over `run`."""
        self._first.append(task)

    def run(self, tasks: Iterable[Task | None]) -> Iterator[Outcome]:
        """Yield the outcome of each task as it finishes; tasks are drawn when a worker is free.

        None among them tells that the next may be long in coming: what was drawn is not to wait.

        Raises EnvironmentFailure when no task finished for ``timeout`` seconds, when the scheduler
        or all workers are lost, or when a disk is full, so that all other tasks would fail as well.
        """
        waiting = iter(tasks)
        changes = self._workers.roster.changes
        self._workers.begin()
        try:
            while True:
                self._submit(waiting)
                if self._drawn and not (self._submitted or self._first or self._last):
                    return
                self._workers.check()
                if self._workers.roster.changes != changes:
                    changes = self._workers.roster.changes
                    self._take_back_from_the_lost()
                yield from self._next_outcomes()
        except (OSError, CancelledError) as error:
            if not is_loss_of_scheduler(error):
                raise
            raise EnvironmentFailure(f"the scheduler was lost ({first_line(error)})") from error
        finally:
            for submitted in self._submitted.values():
                submitted.future.release()

    def _submit(self, waiting: Iterator[Task | None]) -> None:
        """Submit tasks until the workers have enough."""
        while len(self._submitted) < self._workers.roster.in_flight():
            tasks = self._next_tasks(waiting)
            if not tasks:
                return
            bound_to = self._workers.roster.eligible()
            if bound_to == []:  # all workers were lost meanwhile
                self._first.extend(tasks)
                return
            calls = [(task.function, task.arguments) for task in tasks]
            future = self._client.submit(
                call_in_turn, calls, BUNDLE_SECONDS, pure=False, workers=bound_to
            )
            bound = None if bound_to is None else frozenset(bound_to)
            changes = self._workers.roster.changes
            self._submitted[future.key] = _Submitted(tasks, future, bound, changes)
            self._watchdog.submitted(future.key, tasks, time.monotonic())
            future.add_done_callback(self._done.put)

    def _next_tasks(self, waiting: Iterator[Task | None]) -> list[Task]:
        """The tasks of the next bundle; empty if none is left."""
        tasks: list[Task] = []
        while len(tasks) < self._pace.tasks:
            if self._first:
                tasks.append(self._first.popleft())
            elif not self._drawn:
                task = next(waiting, _END)
                if isinstance(task, Task):
                    tasks.append(task)
                elif task is _END:
                    self._drawn = True
                elif tasks:
                    break
            elif self._last:
                tasks.append(self._last.popleft())
            else:
                break
        return tasks

    def _take_back_from_the_lost(self) -> None:
        """Take back tasks that are bound to lost workers."""
        fit = self._workers.roster.fit
        for key, submitted in list(self._submitted.items()):
            if submitted.bound_to is not None and fit.isdisjoint(submitted.bound_to):
                del self._submitted[key]
                self._watchdog.finished(key, time.monotonic())
                submitted.future.cancel()
                self._first.extend(submitted.tasks)

    def _next_outcomes(self) -> Iterator[Outcome]:
        """Wait a moment for a bundle, and yield the outcomes of those that are not tried again."""
        try:
            future = self._done.get(timeout=min(TICK_SECONDS, self._watchdog.patience / 2))
        except queue.Empty:
            self._require_scheduler()
            for key, tasks, seconds in self._watchdog.late(time.monotonic()):
                worker = _restart_holder(self._client, key)
                if self._on_late is not None:
                    self._on_late(tasks, seconds, worker)
            return
        self._watchdog.finished(future.key, time.monotonic())
        submitted = self._submitted.pop(future.key, None)
        if submitted is None:  # taken back
            return
        if future.status == "cancelled":
            raise EnvironmentFailure("the scheduler was lost")
        self._require_scheduler()
        if future.status == "error":
            error = future.exception()
            answers = Answers([(None, error) for _ in submitted.tasks], 0.0)
        else:
            try:
                answers = future.result(timeout=TICK_SECONDS)
            except TimeoutError:
                # Its worker was lost before it delivered the result.
                self._submitted[future.key] = submitted
                future.add_done_callback(self._done.put)
                return
            self._pace.note(answers)
        future.release()
        self._first.extendleft(reversed(submitted.tasks[len(answers.found) :]))
        for task, (value, error) in zip(submitted.tasks, answers.found, strict=False):
            outcome = (
                Outcome(task, value) if error is None else self._failed(task, error, submitted)
            )
            if outcome is not None:
                yield outcome

    def _failed(self, task: Task, error: BaseException, submitted: _Submitted) -> Outcome | None:
        """What becomes of a task that raised; None if it is tried again."""
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
        """Whether an error shows that the worker cannot take part; it is then left out."""
        if isinstance(error, UnfitWorkerError) and error.worker:
            self._workers.leave_out(error.worker, error.reason)
            return True
        if isinstance(error, ImportError | AttributeError) or "deserializ" in str(error):
            # Perhaps a worker without this tilepipe that has just joined and was not asked yet.
            with suppress(OSError, TimeoutError):
                self._workers.refresh()
            changed = self._workers.roster.changes != submitted.changes
            return self._workers.roster.eligible() is not None and changed
        return False

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise EnvironmentFailure("the scheduler was lost")


def _restart_holder(client: Any, key: str) -> str:
    """Restart the worker that has a task, if we started its process; returns its address."""
    holders = [address for address, keys in client.processing().items() if key in keys]
    if not holders:
        return ""
    ours = client.cluster is not None and not holders[0].startswith("inproc://")
    if ours:
        client.restart_workers(holders, raise_for_error=False)
    return str(holders[0])
