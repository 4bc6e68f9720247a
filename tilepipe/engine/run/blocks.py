"""The tasks that compute the blocks of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tilepipe.engine.cluster.pool import Outcome, Task
from tilepipe.engine.events import BlockReport
from tilepipe.engine.run.stage import OpenRun
from tilepipe.engine.state.totals import Totals
from tilepipe.engine.work.block import compute_block
from tilepipe.errors import EnvironmentFailure, NonFiniteError, TilepipeError, UnreadableError
from tilepipe.text import duration, some


class Blocks:
    """The blocks of one image that are left to compute, until the image is given up.

    A block that cannot be read is tried once more, around its unreadable pixels.
    """

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self.totals = Totals()
        """Sums over the blocks that this run computed."""
        self.workers: set[str] = set()
        """The workers that computed them."""
        self.error: TilepipeError | None = None
        """Why the image was given up."""
        self._begin = 0.0
        self._in_flight = 0
        self._all_drawn = False

    def tasks(self) -> Iterator[Task]:
        """Yield a task for each block that is not done."""
        run = self._run
        self._begin = run.stopwatch.total
        run.callbacks.submitted()
        for number in run.plan.coverage.in_order():
            if self.error is not None:
                break
            if not run.progress.is_done(number):
                self._in_flight += 1
                store = str(run.outputs.store)
                yield Task(compute_block, (store, run.run_id, number), number)
        self._all_drawn = True

    @property
    def seconds(self) -> float:
        """Wall time since the first task was drawn."""
        return self._run.stopwatch.total - self._begin

    @property
    def is_computed(self) -> bool:
        """Whether no block is left to compute or to wait for."""
        return self._all_drawn and self._in_flight == 0

    def receive(self, outcome: Outcome) -> Task | None:
        """Record the outcome of a task; returns the task to try instead, if any.

        Raises EnvironmentFailure when the machine is at fault, so that every image would fail.
        """
        self._in_flight -= 1
        if self.error is not None:
            return None
        if outcome.error is not None:
            return self._failed(outcome.task, outcome.error)
        report: BlockReport = outcome.value
        self._run.ledger.append(report.to_record())
        self._run.progress.add(report)
        self.totals.add(report)
        self.workers.add(report.worker)
        self._run.callbacks.block(report)
        return None

    def _failed(self, task: Task, error: BaseException) -> Task | None:
        number = task.label
        self._run.callbacks.on_warning(f"block {number}: {error}")
        if isinstance(error, UnreadableError) and len(task.arguments) == 3:
            self._in_flight += 1
            return replace(task, arguments=(*task.arguments, True), attempt=0)
        if isinstance(error, UnreadableError | NonFiniteError):
            self._run.progress.failed[number] = str(error)
        elif isinstance(error, EnvironmentFailure):
            raise error
        elif isinstance(error, TilepipeError):
            self.error = error
        else:
            self.error = TilepipeError(f"block {number}: {type(error).__name__}: {error}")
            self.error.__cause__ = error
        return None

    def late(self, numbers: Sequence[int], seconds: float, worker: str) -> None:
        """Warn that a block, or one of several, does not come back."""
        where = f" on worker {worker}" if worker else ""
        what = f"block {numbers[0]}"
        if len(numbers) > 1:
            what = f"one of the blocks {some([str(number) for number in numbers])}"
        self._run.callbacks.on_warning(
            f"{what} has been running for {duration(seconds)}{where}; reading or writing may be "
            "stuck: check the disks of the image and of the mask"
        )
