"""Many images in one run: they share the workers, and none that fails stops the others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from tilepipe.engine.cluster.failures import environment_failure
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.inputs import model_of_run
from tilepipe.engine.options import RunOptions, image_stem
from tilepipe.engine.report.class_rows import class_rows, table_path, write_rows
from tilepipe.engine.report.record import Summary
from tilepipe.engine.run.job import Job, LazyWorkers
from tilepipe.engine.run.run import compute_blocks, environment_errors_classified
from tilepipe.engine.state.outputs import is_folder
from tilepipe.errors import InputError, TilepipeError
from tilepipe.models.file import Model
from tilepipe.storage import StoragePath

Result = Literal["done", "done before", "in part", "not exact", "failed"]

FINISHING = 2
"""The number of images that may be finished while the blocks of others are computed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one image."""

    image: str
    result: Result
    summary: Summary | None
    """The summary of its run; None if it failed."""
    reason: str = ""
    """Why it failed, or what could not be read."""

    @classmethod
    def of(cls, image: str, summary: Summary) -> Outcome:
        """The outcome of an image that has just been finished."""
        result: Result = "in part" if summary.incomplete else "done"
        if summary.exit_code == 5:
            result = "not exact"
        return cls(image, result, summary, _unreadable(summary))

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON-ready values."""
        record = self.summary.to_dict() if self.summary else None
        return {
            "image": self.image, "result": self.result, "reason": self.reason, "record": record,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """The outcomes of all images, in the order given."""

    outcomes: tuple[Outcome, ...]
    seconds: float
    """Wall time."""

    @property
    def exit_code(self) -> int:
        """0; 3 if an image failed or could not be read whole; 5 if a mask is not exact."""
        results = {outcome.result for outcome in self.outcomes}
        if "not exact" in results:
            return 5
        return 3 if results & {"failed", "in part"} else 0

    def write_table(self, path: str | StoragePath) -> None:
        """Write the classes of all images as CSV, a row for each class of each image.

        Images that failed have a row with the reason. An older table is replaced. The columns are
        `tilepipe.engine.report.class_rows.COLUMNS`.

        Raises
        ------
        InputError
            The path does not end in ``.csv``, or its folder does not exist.
        EnvironmentFailure
            The table cannot be written.
        """
        rows = (class_rows(one.image, one.result, one.summary, one.reason) for one in self.outcomes)
        write_rows(table_path(str(path)), chain.from_iterable(rows))

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON-ready values."""
        return {
            "tilepipe": "batch",
            "seconds": round(self.seconds, 3),
            "images": [outcome.to_dict() for outcome in self.outcomes],
        }


def _unreadable(summary: Summary) -> str:
    return "; ".join(f"block {n}: {why}" for n, why in summary.incomplete[:3])


class BatchCallbacks:
    """Callbacks of a batch. Those of this base class do nothing."""

    def image(self, number: int, image: str) -> RunCallbacks:
        """Called when image ``number``, from 0 on, begins; returns the callbacks of its run."""
        return RunCallbacks()

    def workers(self) -> RunCallbacks:
        """Return the callbacks for workers that are waited for, lost or left out."""
        return RunCallbacks()

    def finished(self, outcome: Outcome) -> None:
        """Called when an image is done or has failed."""


def run_batch(many: Sequence[RunOptions], watch: BatchCallbacks | None = None) -> BatchSummary:
    """Segment images one after another with the same workers, except those that are done.

    The options may differ in image and outputs only. While the blocks of one image are computed,
    the next one is planned, and the pyramid and the exports of the previous one are written. An
    image that fails does not stop the others.

    Raises
    ------
    InputError
        When two images would be written to one mask, or there are no workers.
    EnvironmentFailure
        When the machine stopped the batch; the same call resumes it.
    """
    refuse_collisions(many)
    model = model_of_run(many[0].model)  # its faults concern all images
    begin = time.perf_counter()
    with environment_errors_classified():
        outcomes = _Batch(many, watch or BatchCallbacks(), model).run()
    return BatchSummary(outcomes, time.perf_counter() - begin)


def refuse_collisions(many: Sequence[RunOptions]) -> None:
    """Raise InputError if the masks of two images would have the same name."""
    if len(many) < 2:
        return
    for output in many[0].outputs:
        if not is_folder(output) and "{name}" not in output:
            raise InputError(
                f"output {output}: is one file for {len(many)} images; give a folder (-o masks/), "
                "or put {name} where the name of each image belongs (-o 'masks/{name}.ome.tif')"
            )
    seen: dict[str, str] = {}
    for options in many:
        name = image_stem(options.image)
        if name in seen:
            raise InputError(
                f"{options.image}: would have the same masks as {seen[name]}, as both are called "
                f"{name}; give them different names, or run them one by one"
            )
        seen[name] = options.image


class _Batch:
    """A batch: one thread plans the next image, the caller's computes, a third one finishes."""

    def __init__(self, many: Sequence[RunOptions], watch: BatchCallbacks, model: Model) -> None:
        self.many, self.watch = many, watch
        self._model = model  # kept, so that all runs share it
        self.outcomes: dict[int, Outcome] = {}
        self.numbers: dict[Job, int] = {}
        self.finishing: set[Future[None]] = set()

    def run(self) -> tuple[Outcome, ...]:
        with ExitStack() as stack:
            # Workers end before the threads, so that an interrupted thread notices.
            jobs = stack.enter_context(ExitStack())
            planner = stack.enter_context(ThreadPoolExecutor(1, "tilepipe-plan"))
            finisher = stack.enter_context(ThreadPoolExecutor(1, "tilepipe-finish"))
            lazy_workers = stack.enter_context(LazyWorkers(self.many[0], self.watch.workers()))
            stack.callback(planner.shutdown, wait=False, cancel_futures=True)
            stack.callback(finisher.shutdown, wait=False, cancel_futures=True)
            prepared = self._prepared(planner, lazy_workers, jobs)
            first = next(prepared, None)
            if first is not None:
                every = chain([first], prepared)
                for job in compute_blocks(lazy_workers.workers, every, self.many[0]):
                    self.finishing.add(finisher.submit(self._finish, job))
            self._wait_for_finishing(0)
        return tuple(self.outcomes[number] for number in range(len(self.many)))

    def _prepared(
        self, planner: ThreadPoolExecutor, lazy_workers: LazyWorkers, jobs: ExitStack
    ) -> Iterator[Job]:
        """Yield the images with blocks to compute; each is planned while its predecessor runs."""

        def plan(number: int) -> Future[Job | None]:
            return planner.submit(self._prepare, number, lazy_workers, jobs)

        following = plan(0)
        for number in range(len(self.many)):
            job = following.result()
            self._wait_for_finishing(FINISHING - 1)
            if number + 1 < len(self.many):
                following = plan(number + 1)
            if job is not None:
                yield job

    def _prepare(self, number: int, lazy_workers: LazyWorkers, jobs: ExitStack) -> Job | None:
        options = self.many[number]
        job = Job(options, lazy_workers, self.watch.image(number, options.image))
        jobs.callback(job.close)
        self.numbers[job] = number
        try:
            done = job.prepare()
        except Exception as error:
            if error is lazy_workers.error:
                raise  # the other images will have no workers either
            self._failed(job, error)
            return None
        if done is not None:
            image = job.options.image
            self._tell(job, Outcome(image, "done before", done, _unreadable(done)))
            return None
        return job

    def _finish(self, job: Job) -> None:
        try:
            summary = job.finish()
        except Exception as error:
            self._failed(job, error)
            return
        self._tell(job, Outcome.of(job.options.image, summary))

    def _failed(self, job: Job, error: Exception) -> None:
        # A failure of the machine would hit the next image too, so it ends the batch.
        cause = environment_failure(error)
        if cause is not None:
            raise cause from error
        reason = str(error)
        if not isinstance(error, TilepipeError):
            reason = f"a bug in tilepipe, please report it: {type(error).__name__}: {reason}"
        self._tell(job, Outcome(job.options.image, "failed", None, reason))

    def _tell(self, job: Job, outcome: Outcome) -> None:
        job.close()
        self.outcomes[self.numbers.pop(job)] = outcome
        self.watch.finished(outcome)

    def _wait_for_finishing(self, left: int) -> None:
        """Wait until no more than ``left`` images are being finished."""
        while len(self.finishing) > left:
            done, self.finishing = wait(self.finishing, return_when="FIRST_COMPLETED")
            for future in done:
                future.result()
