"""Who of a scheduler's workers takes part in a run, while they come, go and are lost."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.text import duration, first_line

if TYPE_CHECKING:
    from tilepipe.engine.events import RunCallbacks

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Between two looks at the scheduler's workers; one small request each, whatever the blocks."""
RENEW_SECONDS = 30.0
"""Between two attempts to start workers that a cluster of ours has lost."""
RENEWALS = 10
"""Attempts without a new worker after which it is left at that."""
RELEASE_SECONDS = 10.0
"""How long the end of a run waits for workers to let go of what they opened."""


class Workers:
    """A Dask client, and the workers behind it that were asked and found fit.

    A worker that joins later is asked what those of the start were asked (`ask`), before its first
    task. One that differs is named once and left out: it gets no task, and is not closed, because
    it may be there for others.

    Parameters
    ----------
    client
        A connected `distributed.Client`.
    wait
        Seconds to wait for a new worker where all are lost.
    watch
        Is told of workers that are left out, and of the loss of all.
    at_most
        Tasks that workers which an adaptive cluster may still start can have in hand. It starts
        them for tasks that it sees waiting.
    renew
        Starts again what a cluster of ours has lost; returns what went wrong, or "".
    wanted
        How many workers ``renew`` keeps up.
    """

    def __init__(
        self,
        client: Any,
        *,
        wait: float,
        watch: RunCallbacks | None = None,
        at_most: int = 0,
        renew: Callable[[], str] | None = None,
        wanted: int = 0,
    ) -> None:
        self.client = client
        self._wait, self._watch, self._at_most = wait, watch, at_most
        self._renew, self._wanted = renew, wanted
        self._renewed, self._renewals = time.monotonic(), 0
        self._asking = threading.RLock()  # held while workers are asked
        self._lock = threading.Lock()  # held for a moment, over what follows
        self._threads: dict[str, int] = {}
        self._fit: set[str] = set()
        self._unfit: dict[str, str] = {}
        self._question: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
        self._begun = False
        self._deserted: float | None = None
        self._said: set[str] = set()
        self._to_say: deque[str] = deque()
        self.changes = 0
        """Goes up when a worker is found fit, left out or lost."""

    # What the plan and the run ask.

    def ask(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Run ``function`` once on every worker and return what each reports.

        A report ``{"error": reason}`` says that this worker cannot take part. Before the first
        block that is refused; later the worker is left out. Workers that join are asked the last
        question.

        Raises
        ------
        InputError
            When a worker cannot take part, or cannot run this version of tilepipe at all; during a
            run, when none can.
        EnvironmentFailure
            When there is no worker any more.
        """
        with self._asking:
            before, self._question = self._question, (function, arguments)
            threads = self.client.nthreads()
            asked = [address for address in threads if address not in self._unfit]
            reports, faults = self._reports(asked)
            if faults and not (self._begun and reports):
                # What none can do is no worker's fault: of several images, the others may do.
                self._question = before
                address, reason = next(iter(faults.items()))
                raise InputError(f"worker {address}: {reason}")
            with self._lock:
                self._threads = threads
                self._fit = set(reports)
                self.changes += 1
            for address, reason in faults.items():
                self.leave_out(address, reason)
            if not reports:
                raise EnvironmentFailure("no workers are left; start some")
            return list(reports.values())

    def release(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Let every worker run ``function``, at the end of a run; what fails is let be."""

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

    # What the loop over the tasks asks, often: nothing of this goes over the network.

    def begin(self) -> None:
        """From now on a worker that cannot take part is left out instead of refused."""
        self._begun = True

    @property
    def fit(self) -> set[str]:
        """Addresses of the workers that take part."""
        with self._lock:
            return set(self._fit)

    def in_flight(self) -> int:
        """How many tasks the scheduler should know of.

        One more than each worker can have in hand, so that none waits for the client; none where
        no worker is left.
        """
        with self._lock:
            tasks = sum(self._threads[address] + 1 for address in self._fit)
        return max(tasks, self._at_most) if tasks else 0

    def eligible(self) -> list[str] | None:
        """Workers that a task must keep to; None where all that there are take part."""
        with self._lock:
            return None if self._threads.keys() == self._fit else sorted(self._fit)

    def leave_out(self, address: str, reason: str) -> None:
        """Give a worker nothing more to do, and say why, once for all workers of that kind."""
        with self._lock:
            self._fit.discard(address)
            self._unfit[address] = reason
            self.changes += 1
        if reason not in self._said:
            self._said.add(reason)
            self._to_say.append(f"worker {address} is left out: {reason}")

    def check(self) -> None:
        """Say what is to be said of the workers, in the caller's thread.

        Raises
        ------
        EnvironmentFailure
            When the scheduler is lost, or there was no worker for too long.
        """
        while self._to_say:
            message = self._to_say.popleft()
            if self._watch is not None:
                self._watch.on_warning(message)
        if self.client.status != "running":
            raise EnvironmentFailure("the scheduler was lost")
        since = self._deserted
        if since is not None and time.monotonic() - since > self._wait:
            raise EnvironmentFailure(f"{self._without()} for {duration(self._wait)}")

    # The watch.

    def refresh(self) -> None:
        """See who is there, and ask who is new."""
        with self._asking:
            threads = self.client.nthreads()
            with self._lock:
                gone = self._threads.keys() - threads.keys()
                self._threads = threads
                self._fit &= threads.keys()
                for address in self._unfit.keys() - threads.keys():
                    del self._unfit[address]
                self.changes += bool(gone)
                new = [a for a in threads if a not in self._fit and a not in self._unfit]
            if new and self._question is not None:
                reports, faults = self._reports(new)
                for address, reason in faults.items():
                    self.leave_out(address, reason)
                with self._lock:
                    self._fit |= reports.keys()
                    self.changes += 1
                    self._renewals = 0
        self._note_loss()
        self._replace_lost()

    def monitored(self) -> WorkerMonitor:
        """Look now and then, in a thread, as long as the context lasts."""
        return WorkerMonitor(self)

    def _reports(self, addresses: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """What workers report, and what is wrong with others; those that are gone say nothing."""
        assert self._question is not None, "asked only when there is a question"
        function, arguments = self._question
        if not addresses:
            return {}, {}
        found = self.client.run(
            _asked, version("tilepipe"), function, arguments,
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

    def _note_loss(self) -> None:
        with self._lock:
            deserted = not self._fit
        if not deserted:
            self._deserted = None
        elif self._deserted is None and self._begun:
            self._deserted = time.monotonic()
            self._to_say.append(
                f"{self._without()}; waiting {duration(self._wait)} for others to join"
            )

    def _without(self) -> str:
        with self._lock:
            reasons = list(self._unfit.values())
        if reasons:
            return f"no worker that can take part is left ({reasons[0]})"
        return "no workers are left"

    def _replace_lost(self) -> None:
        if self._renew is None or len(self._threads) >= self._wanted:
            return
        if self._renewals >= RENEWALS or time.monotonic() - self._renewed < RENEW_SECONDS:
            return
        self._renewed = time.monotonic()
        self._renewals += 1
        if trouble := self._renew():
            self._to_say.append(f"lost workers could not be started again: {trouble}")


class WorkerMonitor:
    """A thread that looks after the workers."""

    def __init__(self, workers: Workers) -> None:
        self._workers, self._stop = workers, threading.Event()
        self._thread = threading.Thread(target=self._run, name="tilepipe-workers", daemon=True)

    def __enter__(self) -> Workers:
        self._thread.start()
        return self._workers

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(RELEASE_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self._workers.refresh()
            except Exception as error:
                # A scheduler that is lost is told by `check`; the next look may succeed.
                logger.debug("no look at the workers: %s", error)


def _asked(
    wanted: str, function: Callable[..., Any], arguments: tuple[Any, ...], dask_worker: Any
) -> Any:
    """On the worker: answer, unless this is another tilepipe."""
    if (here := version("tilepipe")) != wanted:
        return {
            "error": f"has tilepipe {here}, and the client {wanted}; install the same environment "
            "on client and workers"
        }
    if "dask_worker" in inspect.signature(function).parameters:
        return function(*arguments, dask_worker=dask_worker)
    return function(*arguments)
