"""A run, from its options to its summary: plan, blocks, pyramid, exports, record."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tilepipe.engine import block as work
from tilepipe.engine.block import Receipt
from tilepipe.engine.cluster import (
    Failure,
    connect,
    prepare_workers,
    release_workers,
    run_bounded,
    surroundings,
)
from tilepipe.engine.device import runtime
from tilepipe.engine.ledger import Ledger
from tilepipe.engine.options import RunOptions
from tilepipe.engine.outputs import (
    Outputs,
    choose_outputs,
    refuse_strange_exports,
    refuse_strangers,
    remove_previous,
)
from tilepipe.engine.plan import (
    Plan,
    as_planned,
    check_environment,
    check_fits,
    differences,
    nearest_of,
    retarget,
    warnings_of,
)
from tilepipe.engine.planning import gpus, memory_limit, model_reference, new_plan, survey
from tilepipe.engine.progress import Progress
from tilepipe.engine.record import (
    Summary,
    Watch,
    earlier_verification,
    finished_before,
    summarise,
)
from tilepipe.engine.scale import choose_scale
from tilepipe.engine.sizing import Crew, Estimate, MemoryModel
from tilepipe.engine.verify import verify, verify_plan
from tilepipe.errors import (
    InputError,
    NonFiniteError,
    SurroundingsError,
    TilepipeError,
    UnreadableError,
)
from tilepipe.images import Image, open_image
from tilepipe.masks.formats import export
from tilepipe.masks.like_image import write_like_image
from tilepipe.masks.pyramid import pyramid_blocks
from tilepipe.masks.store import ZarrMask, create_mask, open_zarr_mask
from tilepipe.models.file import load_model


def run(options: RunOptions, watch: Watch | None = None) -> Summary:
    """Segment an image, or go on where an earlier run of the same options stopped.

    Raises
    ------
    InputError
        When image, model, options or an existing output are at fault.
    SurroundingsError
        When the machine stopped the run (disk full, scheduler lost); it can be resumed.
    """
    try:
        return _run(options, watch or Watch())
    except (OSError, MemoryError, RuntimeError) as error:
        # At any moment, also before the first block and after the last.
        cause = surroundings(error)
        if cause is None:
            raise
        raise cause from error


def _run(options: RunOptions, watch: Watch) -> Summary:
    begin = time.perf_counter()
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        image = open_image(options.image)
        stack.callback(image.close)
        model = load_model(options.model)
        check_fits(image, model)
        outputs = choose_outputs(options, image, model)
        existing = None if options.overwrite else outputs.state.read_plan()
        if existing is not None and (changed := differences(existing, options, image, model)):
            raise InputError(
                f"{outputs.store}: was begun with other settings: {'; '.join(changed)}; use the "
                "same ones to resume it, --overwrite to start anew, or another -o"
            )
        if existing is None and not options.overwrite:
            done = finished_before(outputs, options, image, model)
            if done is not None:
                masks = [path for path in outputs.made if path.suffix != ".png"]
                if options.verify and masks:
                    done.verification = verify(masks[0], windows=options.verify)
                    done.write()
                return done
            refuse_strangers(outputs)

        client, crew = stack.enter_context(connect(options, gpus(options), watch))
        site = survey(options, client, crew)
        if existing is None:
            plan, estimate = new_plan(options, image, model, outputs, crew, site)
        else:
            plan = retarget(existing, image, model_reference(options.model))
            if not options.allow_mixed:
                here = {**site.environment, **runtime(model), "threads": plan.threads}
                check_environment(plan, here)
            memory = MemoryModel(
                as_planned(image, plan.image), plan.image.level, model, crew, plan.device,
                plan.precision, plan.probabilities is not None,
            )  # fmt: skip
            scale = choose_scale(image, model, options)
            estimate = Estimate(
                memory.total(plan.tiling), memory_limit(options, site), None,
                warnings_of(scale.warning, model),
            )  # fmt: skip
        if options.overwrite:
            remove_previous(outputs)

        # What is registered on `current` ends before the lock is free for another run.
        with outputs.state.locked(), ExitStack() as current:
            mask = _open_or_create(outputs, plan, existing)
            run_id = outputs.state.begin(allow_mixed=options.allow_mixed)
            # Workers let go last: a task that begins now finds that its run has ended.
            current.callback(release_workers, client, work.close_workbench, run_id)
            current.callback(outputs.state.end)
            progress = Progress.from_ledger(outputs.state.ledger_file)
            refuse_strange_exports(outputs, progress.ours)
            resumed = sum(progress.is_done(number) for number in plan.tiling)
            watch.planned(plan, estimate, resumed)
            prepare_workers(client, work.prepare, str(outputs.store), run_id)
            seconds["start"] = time.perf_counter() - begin
            with Ledger(outputs.state.ledger_file) as ledger, _named_surroundings(outputs):
                task = _Task(client, crew, options, outputs, run_id, ledger, progress, watch)
                seconds["blocks"] = _timed(lambda: task.blocks(plan))
                _refuse_empty(plan, image, progress, outputs)
                if plan.like_image is None:  # else the mask on the image's grid has its own
                    seconds["pyramid"] = _timed(lambda: task.pyramid(mask))
                begin_exports = time.perf_counter()
                mask = task.exports(mask, image, plan)
                seconds["exports"] = time.perf_counter() - begin_exports

            # A proof of these same blocks still holds.
            verification = earlier_verification(outputs, plan) if resumed == plan.blocks else None
            if options.verify:
                watch.stage("verifying")
                begin_verify = time.perf_counter()
                verification = verify_plan(
                    plan, mask, image, model, windows=options.verify, seed=0,
                    unreadable=[number for number, _ in progress.incomplete],
                    on_image=plan.like_image is not None,
                )  # fmt: skip
                seconds["verify"] = time.perf_counter() - begin_verify
            for name in ("read", "compute", "write"):
                seconds[name] = sum(getattr(r, name) for r in progress.receipts.values())
            seconds["total"] = time.perf_counter() - begin
            summary = summarise(
                plan, outputs, progress, options, resumed, seconds, estimate.warnings, verification,
                workers_elsewhere=not crew.in_process,
            )  # fmt: skip
            summary.write()
    if not outputs.keep_store and not progress.incomplete:
        outputs.state.discard()
    return summary


class _Task:
    """One run's parts, with what they share."""

    def __init__(
        self,
        client: Any,
        crew: Crew,
        options: RunOptions,
        outputs: Outputs,
        run_id: str,
        ledger: Ledger,
        progress: Progress,
        watch: Watch,
    ) -> None:
        self.client, self.retries, self.outputs = client, options.retries, outputs
        self.store, self.run_id = str(outputs.store), run_id
        self.ledger, self.progress, self.watch = ledger, progress, watch
        self.in_flight = client.in_flight

    def blocks(self, plan: Plan) -> None:
        """Compute what is not done; then, piece by piece, what could not be read whole."""
        todo = (
            (self.store, self.run_id, number)
            for number in plan.tiling
            if not self.progress.is_done(number)
        )
        self.watch.submitted()
        unread = self._compute(todo)
        if unread:
            self.watch.stage("reading around what cannot be read")
            self._compute([(self.store, self.run_id, number, True) for number in unread])

    def _compute(self, items: Any) -> list[int]:
        unread: list[int] = []
        for item, outcome in run_bounded(
            self.client, work.compute_block, items, self.in_flight, self.retries
        ):
            number = item[2]
            if isinstance(outcome, Receipt):
                self.ledger.append(outcome.to_record())
                self.progress.add(outcome)
                self.watch.block(outcome)
                continue
            error = outcome.error if isinstance(outcome, Failure) else outcome
            self.watch.trouble(f"block {number}: {error}")
            if isinstance(error, UnreadableError) and len(item) == 3:
                unread.append(number)
            elif isinstance(error, UnreadableError | NonFiniteError):
                self.progress.failed[number] = str(error)
            elif isinstance(error, TilepipeError):
                raise error
            else:
                raise TilepipeError(f"block {number}: {type(error).__name__}: {error}") from error
        return unread

    def pyramid(self, mask: ZarrMask) -> None:
        """Compute the levels that are not done, each from the one above it."""
        for level, windows in pyramid_blocks(mask).items():
            if level in self.progress.levels:
                continue
            self.watch.stage(f"pyramid level {level}")
            items = ((self.store, self.run_id, level, window) for window in windows)
            for _, outcome in run_bounded(
                self.client, work.compute_pyramid_block, items, self.in_flight, self.retries
            ):
                if isinstance(outcome, Failure):
                    raise outcome.error
            self.ledger.append({"kind": "level", "level": level})
            self.progress.levels.add(level)

    def exports(self, mask: ZarrMask, image: Image, plan: Plan) -> ZarrMask:
        """Write the exports that are not done; returns the mask that they are made of."""
        shown, level = as_planned(image, plan.image), plan.image.level
        spec, target = plan.like_image, self.outputs.on_image
        if spec is not None and target is not None:
            nearest = nearest_of(shown, plan)
            self._make(target, partial(write_like_image, mask, target, spec, nearest))
            mask, shown, level = open_zarr_mask(target), image, 0
        for path in self.outputs.exports:
            self._make(path, partial(export, mask, path, shown, level))
        return mask

    def _make(self, path: Path, write: Callable[[], object]) -> None:
        name = self.outputs.name_of(path)
        if name in self.progress.exports and path.exists():
            return
        self.ledger.append({"kind": "exporting", "name": name})
        self.watch.stage(f"writing {path.name}")
        write()
        self.ledger.append({"kind": "export", "name": name})
        self.progress.exports.add(name)


def _open_or_create(outputs: Outputs, plan: Plan, existing: Plan | None) -> ZarrMask:
    """The run's mask; the plan is frozen last, so that without it nothing is trusted."""
    now = outputs.state.read_plan()
    if (now is None) != (existing is None):
        raise InputError(f"{outputs.store}: another run has begun it meanwhile; start again")
    if existing is None:
        for entry in outputs.store.iterdir():
            if entry != outputs.state.folder:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        outputs.state.ledger_file.unlink(missing_ok=True)
        create_mask(outputs.store, plan.mask, plan.probabilities)
    outputs.state.freeze(plan)
    mask = open_zarr_mask(outputs.store)
    mask.remove_partials()  # of writers that were killed
    return mask


def _refuse_empty(plan: Plan, image: Image, progress: Progress, outputs: Outputs) -> None:
    if progress.answered:
        return
    outputs.state.discard()  # a mask of nothing, not to be taken for one
    if progress.incomplete:
        raise InputError(f"no pixel got an answer: {progress.incomplete[0][1]}")
    nodata = "" if image.nodata is None else f" ({image.nodata:g})"
    raise InputError(
        f"{plan.image.path}: every pixel is nodata{nodata}, so there is nothing to segment"
    )


@contextmanager
def _named_surroundings(outputs: Outputs) -> Iterator[None]:
    """Name the disk of what cannot be written."""
    try:
        yield
    except (OSError, SurroundingsError) as error:
        cause = surroundings(error)
        if cause is None:
            raise
        raise SurroundingsError(f"{outputs.store}: {cause}") from error


def _timed(part: Any) -> float:
    begin = time.perf_counter()
    part()
    return time.perf_counter() - begin
