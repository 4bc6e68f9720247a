"""One image of a run, from its options to its summary: prepare, blocks, finish."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from tilepipe.engine.cluster.connect import (
    Failure,
    connect,
    environment_failure,
    prepare_workers,
    release_workers,
    run_bounded,
)
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.events import BlockReport, RunCallbacks
from tilepipe.engine.hardware import bf16_in_hardware
from tilepipe.engine.inputs import open_input
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import (
    Plan,
    at_model_scale,
    check_environment,
    differences,
    nearest_of,
    relocated,
)
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.engine.planning.cautions import plan_warnings
from tilepipe.engine.planning.planning import (
    Site,
    gpus,
    memory_limit,
    model_reference,
    new_plan,
    survey,
)
from tilepipe.engine.planning.sizing import MemoryModel
from tilepipe.engine.report.bottleneck import Setting, Timings, find_bottleneck
from tilepipe.engine.report.profile import write_profile
from tilepipe.engine.report.record import (
    Summary,
    earlier_verification,
    finished_before,
    nothing_left,
    summarise,
)
from tilepipe.engine.resources import Crew, Estimate
from tilepipe.engine.run.repaired import resume_on_repaired_image
from tilepipe.engine.run.same_image import Look, forget_other_pixels, require_unchanged
from tilepipe.engine.run.verify import verify, verify_plan
from tilepipe.engine.state.integrity import mend, what_stands
from tilepipe.engine.state.ledger import Ledger
from tilepipe.engine.state.outputs import (
    Outputs,
    choose_outputs,
    refuse_strange_exports,
    refuse_strangers,
    remove_previous,
)
from tilepipe.engine.state.progress import Progress
from tilepipe.engine.work import block as work
from tilepipe.engine.work.environment import relevant_to
from tilepipe.errors import (
    DamagedMaskError,
    EnvironmentFailure,
    InputError,
    NonFiniteError,
    TilepipeError,
    UnreadableError,
)
from tilepipe.images import Image
from tilepipe.models.file import load_model
from tilepipe.products.formats import export
from tilepipe.products.like_image import write_like_image
from tilepipe.products.pyramid import pyramid_blocks
from tilepipe.products.store import ZarrMask, create_mask, open_zarr_mask
from tilepipe.storage import StoragePath, make_folder, refuse_links, remove, size_of
from tilepipe.storage.hashing import ABSENT
from tilepipe.text import duration, some

Item = tuple[Any, ...]
"""What a block's task is given: mask, run's id, number, and whether to read around damage."""


@dataclass(frozen=True, slots=True)
class Workforce:
    """Who computes, and what is known of the place where they do."""

    client: Workers
    crew: Crew
    site: Site

    def in_flight(self) -> int:
        """One block more than each worker can have in hand, so that none waits for the client."""
        return self.client.in_flight()


class Connection:
    """The workers, connected to when they are first needed, and then shared by all images.

    ``watch`` is told of those that are lost or left out.
    """

    def __init__(self, options: RunOptions, watch: RunCallbacks) -> None:
        self._options, self._watch = options, watch
        self._stack = ExitStack()
        self._workforce: Workforce | None = None
        self.error: Exception | None = None
        """Why there are no workers."""

    def workforce(self) -> Workforce:
        """The workers.

        Raises
        ------
        InputError
            When the scheduler cannot be reached, or has no workers, or workers that differ.
        """
        if self._workforce is None:
            try:
                connected = connect(self._options, gpus(self._options), self._watch)
                client, crew = self._stack.enter_context(connected)
                self._workforce = Workforce(client, crew, survey(self._options, client, crew))
            except Exception as error:
                self.error = error
                raise
        return self._workforce

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


class Job:
    """One image: `prepare` it, compute its `items`, `finish` it; `close` it in any case."""

    plan: Plan
    estimate: Estimate
    outputs: Outputs
    mask: ZarrMask
    progress: Progress
    run_id: str

    def __init__(self, options: RunOptions, connection: Connection, watch: RunCallbacks) -> None:
        self.options, self.connection, self.watch = options, connection, watch
        self.error: TilepipeError | None = None
        """Why the image was given up."""
        self.seconds: dict[str, float] = {}
        self._begin = self._begin_blocks = time.perf_counter()
        self._stack = ExitStack()
        self._timings = Timings()
        self._out = 0  # blocks that are on their way
        self._all_out = False

    def prepare(self) -> Summary | None:
        """All that comes before the first block; the summary, if nothing is left to do.

        Raises
        ------
        InputError
            When image, model, options or an existing output are at fault.
        """
        options = self.options
        self.model = model = load_model(options.model)
        self.image = image = self._open_image()
        self._stack.callback(image.close)
        self._look = Look.at(image)
        self.outputs = outputs = choose_outputs(options, image, model)
        refuse_links(outputs.store)
        existing = None if options.overwrite else outputs.state.read_plan()
        if existing is not None:
            existing = resume_on_repaired_image(
                existing, outputs.state, options, image, model, self._look, self.watch
            )
        if existing is not None and (changed := differences(existing, options, image, model)):
            raise InputError(
                f"{outputs.store}: was begun with other settings: {'; '.join(changed)}; use the "
                "same ones to resume it, --overwrite to start anew, or another -o"
            )
        if done := self._done_before(existing):
            return done

        site = (workforce := self.connection.workforce()).site
        if existing is None:
            plan, estimate = new_plan(options, image, model, outputs, workforce.crew, site)
        else:
            plan, estimate = self._resumed_plan(existing, workforce)
        for path in outputs.shown:
            make_folder(path.parent)
        if options.overwrite:
            remove_previous(outputs)
        # What is registered from here on ends before the lock is free for another run.
        self._stack.enter_context(outputs.state.locked())
        self.plan, self.estimate = plan, estimate
        self.mask = _open_or_create(outputs, plan, existing, self.watch)
        self.run_id = outputs.state.begin(allow_mixed=options.allow_mixed)
        # Workers let go last: a task that begins now finds that its run has ended.
        release = (workforce.client, work.release_context, self.run_id)
        self._stack.callback(release_workers, *release)
        self._stack.callback(outputs.state.end)
        self.ledger = self._stack.enter_context(Ledger(outputs.state.ledger_file))
        forget_other_pixels(self.ledger, image, plan, self._look, self.watch)
        self.progress = what_stands(plan, outputs, self.mask)
        if self.progress.damage:
            several = some([str(damage) for damage in self.progress.damage])
            self.watch.trouble(f"damaged since it was written: {several}; computed again")
        refuse_strange_exports(outputs, self.progress.ours)
        self.resumed = sum(self.progress.is_done(number) for number in plan.coverage)
        self.watch.begun = True
        self.watch.planned(plan, estimate, self.resumed)
        prepare_workers(workforce.client, work.prepare, str(outputs.store), self.run_id)
        self.seconds["start"] = time.perf_counter() - self._begin
        return None

    def _done_before(self, existing: Plan | None) -> Summary | None:
        """The summary of a run that ended, if this one asks for no more than that one did."""
        options, outputs, image, model = self.options, self.outputs, self.image, self.model
        if options.overwrite:
            return None
        if existing is not None:
            if options.verify:
                return None
            with outputs.state.locked():  # or another run may be about to remove it
                return nothing_left(existing, outputs, options)
        done = finished_before(outputs, options, image, model)
        if done is None:
            refuse_strangers(outputs)
            return None
        masks = [path for path in outputs.made if path.suffix != ".png"]
        if options.verify and masks:
            done.verification = verify(masks[0], windows=options.verify)
            done.write()
        return done

    def _resumed_plan(self, existing: Plan, workforce: Workforce) -> tuple[Plan, Estimate]:
        """The plan of an earlier run, for the files where they are now and the workers of today."""
        options, image, model = self.options, self.image, self.model
        plan = relocated(existing, image, model_reference(options.model))
        if not options.allow_mixed:
            here = workforce.site.environment | model.predictor.versions(plan.runtime)
            here = relevant_to(here, plan.precision) | {"threads": plan.threads}
            check_environment(plan, here)
        memory = MemoryModel(
            at_model_scale(image, plan.image), plan.image.level, model, workforce.crew, plan.device,
            plan.precision, plan.probabilities is not None, plan.runtime,
        )  # fmt: skip
        scale = choose_scale(image, model, options)
        return plan, Estimate(
            memory.total(plan.tiling), memory_limit(options, workforce.site), None,
            plan_warnings(image, model, options, scale),
        )  # fmt: skip

    def items(self) -> Iterator[Item]:
        """The blocks that are not done, one after the other, until the image is given up."""
        self._begin_blocks = time.perf_counter()
        self.watch.submitted()
        for number in self.plan.coverage:
            if self.error is not None:
                break
            if not self.progress.is_done(number):
                self._out += 1
                yield (str(self.outputs.store), self.run_id, number)
        self._all_out = True

    def receive(self, item: Item, outcome: BlockReport | Failure) -> Item | None:
        """Take note of what came of a block; returns what to try instead, if anything.

        Raises
        ------
        TilepipeError
            When the image cannot be gone on with.
        """
        self._out -= 1
        if self.error is not None:
            return None
        number = item[2]
        if isinstance(outcome, BlockReport):
            self.ledger.append(outcome.to_record())
            self.progress.add(outcome)
            self._timings.add(outcome)
            self.watch.block(outcome)
            return None
        error = outcome.error
        self.watch.trouble(f"block {number}: {error}")
        if isinstance(error, UnreadableError) and len(item) == 3:
            self._out += 1
            return (*item, True)
        if isinstance(error, UnreadableError | NonFiniteError):
            self.progress.failed[number] = str(error)
            return None
        if isinstance(error, TilepipeError):
            raise error
        raise TilepipeError(f"block {number}: {type(error).__name__}: {error}") from error

    def late(self, item: Item, seconds: float, worker: str) -> None:
        """Say that a block does not come back."""
        where = f" on worker {worker}" if worker else ""
        self.watch.trouble(
            f"block {item[2]} has been out for {duration(seconds)}{where}: a read of the image or "
            "a write of the mask may hang; look whether their disks answer"
        )

    @property
    def is_computed(self) -> bool:
        """Whether nothing of its blocks is left to do or to wait for."""
        return self._all_out and self._out == 0

    def finish(self) -> Summary:
        """Pyramid, exports, proof, record.

        Raises
        ------
        TilepipeError
            Why the image was given up, or is now.
        """
        if self.error is not None:
            raise self.error
        plan, options, outputs, progress = self.plan, self.options, self.outputs, self.progress
        self.seconds["blocks"] = time.perf_counter() - self._begin_blocks
        with _named_failures(outputs):
            self._refuse_empty()
            self._require_unchanged()
            if plan.like_image is None:  # else the mask on the image's grid has its own
                with self._timed("pyramid"):
                    self._pyramid()
            with self._timed("exports"):
                shown = self._exports()
        # A proof of these same blocks still holds.
        same = self.resumed == plan.blocks
        verification = earlier_verification(outputs, plan) if same else None
        if options.verify:
            self.watch.stage("verifying")
            with self._timed("verify"):
                verification = verify_plan(
                    plan, shown, self.image, self.model, windows=options.verify, seed=0,
                    unreadable=[number for number, _ in progress.incomplete],
                    on_image=plan.like_image is not None,
                )  # fmt: skip
        self._require_unchanged()
        for name in ("read", "wait", "compute", "write"):
            self.seconds[name] = getattr(progress.totals, name)
        self.seconds["total"] = time.perf_counter() - self._begin
        crew = self.connection.workforce().crew
        summary = summarise(
            plan, outputs, progress, options, self.resumed, self.seconds, self.estimate.warnings,
            verification, workers_elsewhere=not crew.in_process,
        )  # fmt: skip
        setting = Setting(
            max(crew.workers, len(self._timings.workers)), crew.slots, crew.in_process, crew.local,
            plan.device == "cuda", plan.precision, bf16_in_hardware() if crew.local else None,
            tissue=plan.region is None and plan.image.bands == 3 and plan.mask.crs is None,
        )  # fmt: skip
        summary.bottleneck = find_bottleneck(self.seconds, self._timings, setting)
        if options.profile:
            self.ledger.flush()
            summary.profile = write_profile(
                outputs.state.ledger_file, self.ledger.since, plan, outputs.record,
                summary.bottleneck,
            )  # fmt: skip
        summary.write()
        self.close()
        if not outputs.keep_store and not progress.incomplete:
            outputs.state.discard()
        return summary

    def close(self) -> None:
        """Let go of image, ledger and lock; what is done stays done."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _pyramid(self) -> None:
        """Compute the levels that are not done, each from the one above it."""
        workforce, plan = self.connection.workforce(), self.plan
        computed = None
        if plan.region is not None:
            computed = [plan.tiling.block_window(number) for number in plan.coverage]
        for level, windows in pyramid_blocks(self.mask, computed).items():
            if level in self.progress.levels:
                continue
            self.watch.stage(f"pyramid level {level}")
            seals: dict[str, str] = {}
            items = ((str(self.outputs.store), self.run_id, level, window) for window in windows)
            for item, outcome in run_bounded(
                workforce.client, work.compute_pyramid_block, items, workforce.in_flight,
                self.options.retries, _seconds(self.options.timeout),
            ):  # fmt: skip
                if isinstance(outcome, Failure):
                    raise outcome.error
                keys = self.mask.chunk_keys(item[3], level)
                seals.update(zip(keys, outcome.split(" "), strict=True))
            # Nothing is written where nothing of the region is.
            keys = self.mask.chunk_keys(level=level)
            chunks = " ".join(seals.get(key, ABSENT) for key in keys)
            record = {"bytes": self.mask.stored_bytes(level=level), "chunks": chunks}
            self.ledger.append({"kind": "level", "level": level, **record})
            self.progress.levels.add(level)

    def _exports(self) -> ZarrMask:
        """Write the exports that are not done; returns the mask that they are made of."""
        plan, mask = self.plan, self.mask
        shown, level = at_model_scale(self.image, plan.image), plan.image.level
        spec, target = plan.like_image, self.outputs.on_image
        if spec is not None and target is not None:
            nearest = nearest_of(shown, plan)
            self._make(target, partial(write_like_image, mask, target, spec, nearest))
            mask, shown, level = open_zarr_mask(target), self.image, 0
        for path in self.outputs.exports:
            self._make(path, partial(export, mask, path, shown, level))
        return mask

    def _make(self, path: StoragePath, write: Callable[[], str]) -> None:
        """Write an export that is not there yet; ``write`` returns its hash."""
        name = self.outputs.name_of(path)
        if self.progress.is_made(name, path):
            return
        self.ledger.append({"kind": "exporting", "name": name})
        self.watch.stage(f"writing {path.name}")
        content = write()
        record = {"bytes": size_of(path), "hash": content}
        self.ledger.append({"kind": "export", "name": name, **record})
        self.progress.exports.add(name)
        self.progress.seals[name] = content

    def _open_image(self) -> Image:
        return open_input(self.options, self.model)

    def _require_unchanged(self) -> None:
        """Look at the image once more; raises InputError where it changed while it was read."""
        self._look = require_unchanged(self.ledger, self._open_image, self.plan, self._look)

    def _refuse_empty(self) -> None:
        if self.progress.answered:
            return
        self.outputs.state.discard()  # a mask of nothing, not to be taken for one
        if self.progress.incomplete:
            raise InputError(f"no pixel got an answer: {self.progress.incomplete[0][1]}")
        nodata = "" if self.image.nodata is None else f" ({self.image.nodata:g})"
        where = "" if self.plan.region is None else " of the region"
        raise InputError(
            f"{self.plan.image.path}: every pixel{where} is nodata{nodata}, so there is nothing to "
            "segment"
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin


def compute(workforce: Workforce, jobs: Iterable[Job], options: RunOptions) -> Iterator[Job]:
    """Compute the blocks of prepared jobs as one stream; yields each job when its last is done.

    The blocks of the next job begin while the last ones of the one before are computed. A job is
    taken from ``jobs`` only when its first block may begin.

    Raises
    ------
    EnvironmentFailure
        When the scheduler or all workers are lost, or a disk is full.
    """
    begun: dict[str, Job] = {}
    again: deque[Item] = deque()
    computed: deque[Job] = deque()

    def settle(job: Job) -> None:
        if job.is_computed and begun.pop(job.run_id, None) is not None:
            computed.append(job)

    def items() -> Iterator[Item]:
        for job in jobs:
            begun[job.run_id] = job
            for item in job.items():
                yield item
                while again:
                    yield again.popleft()
            settle(job)

    def late(item: Item, seconds: float, worker: str) -> None:
        begun[item[1]].late(item, seconds, worker)

    stream = items()
    while True:
        for item, outcome in run_bounded(
            workforce.client, work.compute_block, stream, workforce.in_flight, options.retries,
            _seconds(options.timeout), late,
        ):  # fmt: skip
            job = begun[item[1]]
            try:
                instead = job.receive(item, outcome)
            except EnvironmentFailure:
                raise
            except TilepipeError as error:
                job.error, instead = error, None
            if instead is not None:
                again.append(instead)
            settle(job)
            while computed:
                yield computed.popleft()
        while computed:
            yield computed.popleft()
        if not again:
            return
        stream = iter([again.popleft() for _ in range(len(again))])


def _seconds(minutes: float | None) -> float | None:
    return None if minutes is None else 60 * minutes


def _open_or_create(
    outputs: Outputs, plan: Plan, existing: Plan | None, watch: RunCallbacks
) -> ZarrMask:
    """The run's mask; the plan is frozen last, so that without it nothing is trusted."""
    now = outputs.state.read_plan()
    if (now is None) != (existing is None):
        raise InputError(f"{outputs.store}: another run has begun it meanwhile; start again")
    if existing is None:
        for entry in outputs.store.iterdir():
            if entry != outputs.state.folder:
                remove(entry)
        outputs.state.forget()
        create_mask(outputs.store, plan.mask, plan.probabilities)
    else:
        for sentence in mend(outputs.state, plan):
            watch.trouble(sentence)
    outputs.state.freeze(plan)
    mask = open_zarr_mask(outputs.store)
    mask.remove_partials()  # of writers that were killed
    return mask


@contextmanager
def _named_failures(outputs: Outputs) -> Iterator[None]:
    """Name the disk of what cannot be written."""
    try:
        yield
    except DamagedMaskError as error:
        raise EnvironmentFailure(
            f"{outputs.store}: was damaged while the run went on: look whether its disk is sound; "
            "the same command finds the damaged blocks and computes them again"
        ) from error
    except (OSError, EnvironmentFailure) as error:
        cause = environment_failure(error)
        if cause is None:
            raise
        raise EnvironmentFailure(f"{outputs.store}: {cause}") from error
