"""The workers of a scheduler that take part in a run, while workers join, leave and are lost."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.text import duration, first_line

if TYPE_CHECKING:
    from tilepipe.engine.events import RunCallbacks

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Time between two checks of the scheduler's workers, each one small request."""
RENEW_SECONDS = 30.0
"""Time between two attempts to restart lost workers of a cluster of ours."""
RENEWALS = 10
"""Attempts without a new worker before giving up."""
RELEASE_SECONDS = 10.0
"""How long the end of a run waits for workers to close what they opened."""


class Roster:
    """The known workers, and which of them take part; safe to use from several threads.

    Nothing here goes over the network.
    """

    def __init__(self, at_most: int = 0) -> None:
        self._at_most = at_most
        self._lock = threading.Lock()
        self._threads: dict[str, int] = {}
        self._fit: set[str] = set()
        self._unfit: dict[str, str] = {}
        self.changes = 0
        """A number that grows when a worker joins, is left out or is lost."""

    @property
    def fit(self) -> set[str]:
        """The addresses of the workers that take part."""
        with self._lock:
            return set(self._fit)

    @property
    def present(self) -> int:
        """The number of workers that the scheduler has."""
        return len(self._threads)

    @property
    def reason(self) -> str:
        """Why a worker is left out; empty if none is."""
        with self._lock:
            return next(iter(self._unfit.values()), "")

    def in_flight(self) -> int:
        """How many tasks the scheduler should have: one more than each worker can run at once.

        So no worker waits for the client. Without any worker, the number is 0.
        """
        with self._lock:
            tasks = sum(self._threads[address] + 1 for address in self._fit)
        return max(tasks, self._at_most) if tasks else 0

    def eligible(self) -> list[str] | None:
        """The workers that may run a task; None if all may."""
        with self._lock:
            return None if self._threads.keys() == self._fit else sorted(self._fit)

    def not_unfit(self, addresses: Collection[str]) -> list[str]:
        """The addresses that are not left out."""
        with self._lock:
            return [address for address in addresses if address not in self._unfit]

    def replace(self, threads: dict[str, int], fit: Collection[str]) -> None:
        """Start again with these workers, of which ``fit`` take part."""
        with self._lock:
            self._threads, self._fit = threads, set(fit)
            self.changes += 1

    def update(self, threads: dict[str, int]) -> list[str]:
        """Take over the workers that the scheduler has now; returns the addresses of new ones."""
        with self._lock:
            self.changes += bool(self._threads.keys() - threads.keys())
            self._threads = threads
            self._fit &= threads.keys()
            self._unfit = {a: reason for a, reason in self._unfit.items() if a in threads}
            return [a for a in threads if a not in self._fit and a not in self._unfit]

    def admit(self, addresses: Collection[str]) -> None:
        """Let workers take part."""
        with self._lock:
            self._fit |= set(addresses)
            self.changes += 1

    def leave_out(self, address: str, reason: str) -> None:
        """Exclude a worker."""
        with self._lock:
            self._fit.discard(address)
            self._unfit[address] = reason
            self.changes += 1


class Renewal:
    """Restarting the workers that a cluster of ours has lost, now and then, a few times.

    Parameters
    ----------
    renew
        Restarts lost workers; returns an error message, or "".
    wanted
        The number of workers to keep.
    """

    def __init__(self, renew: Callable[[], str], wanted: int) -> None:
        self._renew, self._wanted = renew, wanted
        self._last, self.attempts = time.monotonic(), 0

    def attempt(self, present: int) -> str:
        """Restart workers if some are missing and it is time; returns an error message, or ""."""
        waited = time.monotonic() - self._last
        if present >= self._wanted or self.attempts >= RENEWALS or waited < RENEW_SECONDS:
            return ""
        self._last = time.monotonic()
        self.attempts += 1
        return self._renew()


class Workers:
    """A client, and the workers behind it that take part in a run.

    A worker that joins later is first asked what the others were asked (`ask`). One that cannot
    take part is named once and gets no task, but is not closed, because others may use it.

    Parameters
    ----------
    client
        A connected `distributed.Client`, or an `InProcessClient`.
    wait
        Seconds to wait for a new worker after all are lost.
    watch
        Reports workers that are left out, and the loss of all.
    at_most
        The tasks that all workers of an adaptive cluster could have. It starts workers only for
        tasks that are waiting.
    renewal
        Restarts lost workers.
    """

    def __init__(
        self,
        client: Any,
        *,
        wait: float,
        watch: RunCallbacks | None = None,
        at_most: int = 0,
        renewal: Renewal | None = None,
    ) -> None:
        self.client = client
        self.roster = Roster(at_most)
        self._wait, self._watch, self._renewal = wait, watch, renewal
        self._asking = threading.RLock()
        self._question: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
        self._begun = False
        self._deserted: float | None = None
        self._reasons: set[str] = set()
        self._messages: deque[str] = deque()

    def ask(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Run ``function`` once on every worker, now and when one joins; returns the reports.

        A report ``{"error": reason}`` means that the worker cannot take part. Before the first
        block this is an error; later the worker is left out.

        Raises
        ------
        InputError
            When a worker cannot take part, or cannot run this version of tilepipe; during a run,
            when none can.
        EnvironmentFailure
            When no workers are left.
        """
        with self._asking:
            before, self._question = self._question, (function, arguments)
            threads = self.client.nthreads()
            reports, faults = self._reports(self.roster.not_unfit(threads))
            if faults and not (self._begun and reports):
                # If no worker can do it, the image is at fault; other images may still work.
                self._question = before
                address, reason = next(iter(faults.items()))
                raise InputError(f"worker {address}: {reason}")
            self.roster.replace(threads, reports)
            for address, reason in faults.items():
                self.leave_out(address, reason)
            if not reports:
                raise EnvironmentFailure("no workers are left; start some")
            return list(reports.values())

    def release(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Let every worker run ``function`` at the end of a run; failures are ignored."""

        def work() -> None:
            try:
                self.client.run(function, *arguments, on_error="ignore")
            except Exception as error:
                logger.debug("workers were not released: %s", error)

        if self.client.status == "running":
            # A host that does not answer must not keep the run from ending.
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(RELEASE_SECONDS)

    def begin(self) -> None:
        """From now on leave out workers that cannot take part, instead of raising."""
        self._begun = True

    def leave_out(self, address: str, reason: str) -> None:
        """Give a worker no more tasks, and report each reason once."""
        self.roster.leave_out(address, reason)
        if reason not in self._reasons:
            self._reasons.add(reason)
            self._messages.append(f"worker {address} is left out: {reason}")

    def check(self) -> None:
        """Report what happened to workers, in the caller's thread.

        Raises EnvironmentFailure when the scheduler is lost, or there was no worker for too long.
        """
        while self._messages:
            message = self._messages.popleft()
            if self._watch is not None:
                self._watch.on_warning(message)
        if self.client.status != "running":
            raise EnvironmentFailure("the scheduler was lost")
        since = self._deserted
        if since is not None and time.monotonic() - since > self._wait:
            raise EnvironmentFailure(f"{self._none_left()} for {duration(self._wait)}")

    def refresh(self) -> None:
        """Update the workers, ask new ones, and restart lost ones."""
        with self._asking:
            new = self.roster.update(self.client.nthreads())
            if new and self._question is not None:
                reports, faults = self._reports(new)
                for address, reason in faults.items():
                    self.leave_out(address, reason)
                self.roster.admit(reports)
                if self._renewal is not None:
                    self._renewal.attempts = 0
        if self.roster.fit:
            self._deserted = None
        elif self._deserted is None and self._begun:
            self._deserted = time.monotonic()
            wait = duration(self._wait)
            self._messages.append(f"{self._none_left()}; waiting {wait} for others to join")
        if self._renewal is not None and (error := self._renewal.attempt(self.roster.present)):
            self._messages.append(f"lost workers could not be started again: {error}")

    @contextmanager
    def monitored(self) -> Iterator[Workers]:
        """Refresh the workers regularly, in a thread, as long as the context lasts."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(LOOK_SECONDS):
                try:
                    self.refresh()
                except Exception as error:
                    # `check` reports a lost scheduler; otherwise the next attempt may succeed.
                    logger.debug("the workers were not refreshed: %s", error)

        thread = threading.Thread(target=work, name="tilepipe-workers", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join(RELEASE_SECONDS)

    def _reports(self, addresses: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """The reports of fit workers, and the faults of others; lost workers are in neither."""
        assert self._question is not None, "there is a question"
        function, arguments = self._question
        if not addresses:
            return {}, {}
        found = self.client.run(
            _asked, _version(), function, arguments,
            workers=addresses, on_error="return",
        )  # fmt: skip
        reports: dict[str, Any] = {}
        faults: dict[str, str] = {}
        for address, report in found.items():
            if isinstance(report, OSError | TimeoutError):  # CommClosedError is an OSError
                continue
            if isinstance(report, Exception):
                faults[address] = (
                    f"cannot run this version of tilepipe ({first_line(report)}); install the same "
                    "environment on client and workers"
                )
            elif isinstance(report, dict) and "error" in report:
                faults[address] = report["error"]
            else:
                reports[address] = report
        return reports, faults

    def _none_left(self) -> str:
        reason = self.roster.reason
        return (
            f"no worker that can take part is left ({reason})" if reason else "no workers are left"
        )


def _asked(
    wanted: str, function: Callable[..., Any], arguments: tuple[Any, ...], dask_worker: Any
) -> Any:
    """Call the function on the worker, unless its tilepipe has another version."""
    if (here := _version()) != wanted:
        return {
            "error": f"has tilepipe {here}, but the client has {wanted}; install the same "
            "environment on client and workers"
        }
    if "dask_worker" in inspect.signature(function).parameters:
        return function(*arguments, dask_worker=dask_worker)
    return function(*arguments)


@cache
def _version() -> str:
    """The version of tilepipe; looking it up parses a file each time."""
    return version("tilepipe")
