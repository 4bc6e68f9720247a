"""The stage that computes the blocks of an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tilepipe.engine.cluster.pool import Outcome, Task
from tilepipe.engine.events import BlockReport
from tilepipe.engine.report.bottleneck import Timings
from tilepipe.engine.run.stage import OpenRun
from tilepipe.engine.work.block import compute_block
from tilepipe.errors import NonFiniteError, TilepipeError, UnreadableError
from tilepipe.text import duration


class Blocks:
    """The blocks of one image: the tasks that are left, and what becomes of each.

    A block that cannot be read whole is tried once more, around what is unreadable.
    """

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self.timings = Timings()
        self._out = 0  # handed out, and not back yet
        self._is_drawn = False

    def tasks(self) -> Iterator[Task]:
        """The blocks that are not done, one after the other."""
        run = self._run
        run.callbacks.submitted()
        for number in run.plan.coverage:
            if not run.progress.is_done(number):
                self._out += 1
                store = str(run.outputs.store)
                yield Task(compute_block, (store, run.run_id, number), number)
        self._is_drawn = True

    @property
    def is_computed(self) -> bool:
        """Whether no block is left to compute or to wait for."""
        return self._is_drawn and self._out == 0

    def receive(self, outcome: Outcome) -> Task | None:
        """Take note of a block that came back; returns what to try instead, if anything.

        Raises
        ------
        TilepipeError
            When the image must be given up.
        """
        self._out -= 1
        run, error, number = self._run, outcome.error, outcome.task.label
        if error is None:
            report: BlockReport = outcome.value
            run.ledger.append(report.to_record())
            run.progress.add(report)
            self.timings.add(report)
            run.callbacks.block(report)
            return None
        run.callbacks.on_warning(f"block {number}: {error}")
        arguments = outcome.task.arguments
        if isinstance(error, UnreadableError) and len(arguments) == 3:
            self._out += 1
            return replace(outcome.task, arguments=(*arguments, True))
        if isinstance(error, UnreadableError | NonFiniteError):
            run.progress.failed[number] = str(error)
            return None
        if isinstance(error, TilepipeError):
            raise error
        raise TilepipeError(f"block {number}: {type(error).__name__}: {error}") from error

    def give_up(self, task: Task) -> None:
        """Take note that a task, and all after it, are not handed out."""
        self._out -= 1
        self._is_drawn = True

    def drop(self) -> None:
        """Take note that a block came back which nobody waits for any more."""
        self._out -= 1

    def late(self, number: int, seconds: float, worker: str) -> None:
        """Warn of a block that does not come back."""
        where = f" on worker {worker}" if worker else ""
        self._run.callbacks.on_warning(
            f"block {number} has been running for {duration(seconds)}{where}; reading or writing "
            "may be stuck: check the disks of the image and of the mask"
        )
