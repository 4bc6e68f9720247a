"""One image of a run, from its options to its summary: preparation, blocks, later stages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Self

from tilepipe.engine.cluster.connect import connect
from tilepipe.engine.cluster.failures import environment_failure
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.hardware import bf16_in_hardware
from tilepipe.engine.inputs import model_of_run, model_reference, open_input
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import Plan, at_model_scale, check_environment, relocated
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.engine.planning.cautions import plan_warnings
from tilepipe.engine.planning.differences import differences
from tilepipe.engine.planning.int8 import MOST_CHANGE
from tilepipe.engine.planning.memory import MemoryModel
from tilepipe.engine.planning.planning import new_plan
from tilepipe.engine.planning.survey import gpus, memory_limit, require_precision, survey
from tilepipe.engine.report.bottleneck import Setting, find_bottleneck
from tilepipe.engine.report.profile import write_profile
from tilepipe.engine.report.record import Summary, summarise
from tilepipe.engine.report.stopwatch import Stopwatch
from tilepipe.engine.resources import Estimate, Resources
from tilepipe.engine.run.blocks import Blocks
from tilepipe.engine.run.exports import Exports, Resample
from tilepipe.engine.run.finished import Request, earlier_verification, find_finished, is_complete
from tilepipe.engine.run.items import Items
from tilepipe.engine.run.objects import ObjectExports, Objects
from tilepipe.engine.run.pyramid import Pyramid, Ranges
from tilepipe.engine.run.repair import resume_on_repaired_image
from tilepipe.engine.run.same_image import ImageState, forget_other_pixels, require_unchanged
from tilepipe.engine.run.stage import OpenRun, Stage, run_stages, stage_named
from tilepipe.engine.run.verify import Proof
from tilepipe.engine.state.integrity import drop_altered_exports, mend
from tilepipe.engine.state.ledger import Ledger
from tilepipe.engine.state.network import as_planned, keep_network
from tilepipe.engine.state.outputs import (
    Outputs,
    choose_outputs,
    refuse_strange_exports,
    remove_previous,
)
from tilepipe.engine.state.progress import Progress
from tilepipe.engine.work.context import prepare, release_context
from tilepipe.engine.work.environment import relevant_to
from tilepipe.errors import DamagedMaskError, EnvironmentFailure, InputError
from tilepipe.models.precision import Precision
from tilepipe.objects.formats.registry import objects_format
from tilepipe.products.store import ZarrMask, create_mask, open_zarr_mask
from tilepipe.storage import as_path, make_folder, refuse_links, remove, write_whole
from tilepipe.text import some


class LazyWorkers:
    """The workers, connected when they are first needed, and then shared by all images.

    ``callbacks`` reports workers that are lost or left out.
    """

    def __init__(self, options: RunOptions, callbacks: RunCallbacks) -> None:
        self._options, self._callbacks = options, callbacks
        self._stack = ExitStack()
        self._connected: tuple[Workers, Resources] | None = None
        self._resizing = threading.Lock()
        self._now = 0
        self._slots: dict[object, int] = {}
        """The blocks at once of each image under way."""
        self.error: Exception | None = None
        """Why there are no workers."""

    @property
    def workers(self) -> Workers:
        """The workers; see `connected`."""
        return self.connected()[0]

    @property
    def resources(self) -> Resources:
        """The workers' resources; see `connected`."""
        return self.connected()[1]

    @property
    def slots(self) -> int:
        """The blocks that a worker handles at once, now; plans are made for `Resources.slots`."""
        return self._now or self.resources.slots

    def connected(self) -> tuple[Workers, Resources]:
        """The workers and their resources.

        Raises InputError when the scheduler cannot be reached, or has no workers, or workers that
        differ.
        """
        if self._connected is None:
            options = self._options
            try:
                connection = connect(options, gpus(options), self._callbacks)
                workers, resources = self._stack.enter_context(connection)
                self._connected = workers, survey(options, workers, resources)
            except Exception as error:
                self.error = error
                raise
        return self._connected

    @contextmanager
    def holding(self, slots: int) -> Iterator[None]:
        """While an image lasts, let the worker inside this process handle so many blocks at once.

        Of the images that last at the same time, the one that may have fewest decides.
        """
        mine = object()
        with self._resizing:
            self._slots[mine] = slots
            self._resize()
        try:
            yield
        finally:
            with self._resizing:
                del self._slots[mine]
                self._resize()

    def _resize(self) -> None:
        workers, resources = self.connected()
        if not (resources.in_process and resources.most_slots and self._slots):
            return
        slots = min(self._slots.values())
        if slots != self.slots:
            workers.client.resize(slots)
            workers.refresh()  # or as many tasks as before would be passed on
            self._now = slots

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


class Job:
    """One image: `prepare` it, compute its `blocks`, `finish` it, and always `close` it."""

    run: OpenRun
    blocks: Blocks

    def __init__(
        self, options: RunOptions, lazy_workers: LazyWorkers, callbacks: RunCallbacks
    ) -> None:
        self.options, self.lazy_workers, self.callbacks = options, lazy_workers, callbacks
        self._stopwatch = Stopwatch()
        self._stack = ExitStack()
        self._stages = stages_of(options)

    def prepare(self) -> Summary | None:
        """Do everything that comes before the first block.

        Returns
        -------
        Summary or None
            The summary of an earlier run, if nothing is left to do.

        Raises
        ------
        InputError
            When image, model, options or an existing output are at fault.
        """
        request = self._open()
        existing = self._existing_plan(request)
        done = find_finished(request, existing, self._stages)
        if done is not None:
            return done
        workers, resources = self.lazy_workers.connected()
        network = None
        if existing is None:
            if self.options.precision in MOST_CHANGE:
                self.callbacks.stage("trying the precision on tiles of the image")
            plan, estimate, settled = new_plan(
                self.options, request.image, request.model, request.outputs, resources, workers
            )
            request, network = replace(request, model=settled.model), settled.network
        else:
            model = as_planned(existing, request.model, request.outputs.store)
            request = replace(request, model=model)
            plan, estimate = _resumed_plan(existing, request, resources)
        self._begin(request, plan, existing, estimate, workers, network)
        self._stack.enter_context(self.lazy_workers.holding(estimate.slots))
        workers.ask(prepare, str(request.outputs.store), self.run.run_id)
        self._stopwatch.seconds["start"] = self._stopwatch.total
        self.blocks = Blocks(self.run)
        return None

    def finish(self) -> Summary:
        """Run the stages after the blocks, and write the run record.

        Raises TilepipeError when the image was or is given up; the message gives the reason.
        """
        if self.blocks.error is not None:
            raise self.blocks.error
        run = self.run
        self._stopwatch.seconds["blocks"] = self.blocks.seconds
        with _failures_named(run.outputs):
            self._refuse_empty()
            self._require_unchanged()
            # An earlier verification of these same blocks still holds.
            if self.resumed == run.plan.blocks:
                run.verification = earlier_verification(run)
            run_stages(run, self._stages)
        self._require_unchanged()
        summary = self._summarise()
        temporary = not run.outputs.keep_store and not run.progress.incomplete
        if temporary:
            keep_network(run.outputs.state, run.outputs.record)
        summary.write()
        self.close()
        if temporary:
            run.outputs.state.discard()
        return summary

    def close(self) -> None:
        """Close image, ledger and lock; finished work is kept."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> Request:
        model = model_of_run(self.options.model)
        image = open_input(self.options, model)
        self._stack.callback(image.close)
        state = ImageState.at(image)
        outputs = choose_outputs(self.options, image, model)
        if self._began_without_objects(outputs):
            self.options = replace(self.options, objects="none")
            outputs = choose_outputs(self.options, image, model)
        refuse_links(outputs.store)
        return Request(self.options, image, model, outputs, state)

    def _began_without_objects(self, outputs: Outputs) -> bool:
        """Whether the run to resume makes no objects, as those of older versions, and need not."""
        options = self.options
        named = any(objects_format(as_path(path)) is not None for path in options.outputs)
        if options.overwrite or options.objects != "auto" or named or not outputs.has_objects:
            return False
        plan = outputs.state.read_plan()
        return plan is not None and plan.objects is None

    def _existing_plan(self, request: Request) -> Plan | None:
        """The plan of an earlier run, if any; refuses one that the request differs from."""
        state = request.outputs.state
        plan = None if self.options.overwrite else state.read_plan()
        if plan is None:
            return None
        plan = resume_on_repaired_image(plan, request, self.callbacks)
        changed = differences(plan, self.options, request.image, request.model, request.outputs)
        if changed:
            raise InputError(
                f"{request.outputs.store}: was begun with other settings: {'; '.join(changed)}; "
                "use the same ones to resume it, --overwrite to start over, or another -o"
            )
        return plan

    def _begin(
        self,
        request: Request,
        plan: Plan,
        existing: Plan | None,
        estimate: Estimate,
        workers: Workers,
        network: bytes | None,
    ) -> None:
        """Lock the output, and find out what is done."""
        outputs, options, callbacks = request.outputs, self.options, self.callbacks
        for path in outputs.requested:
            make_folder(path.parent)
        if options.overwrite:
            remove_previous(outputs)
        # Everything that is opened from here on closes before the lock is released.
        self._stack.enter_context(outputs.state.locked())
        mask = _open_or_create(outputs, plan, existing, network, callbacks)
        run_id = outputs.state.begin(allow_mixed=options.allow_mixed)
        # Workers are released last: a task that starts then finds that its run has ended.
        self._stack.callback(workers.release, release_context, run_id)
        self._stack.callback(outputs.state.end)
        ledger = self._stack.enter_context(Ledger(outputs.state.ledger_file))
        self._image_state = request.image_state
        forget_other_pixels(ledger, request.image, plan, self._image_state, callbacks)
        self.run = run = OpenRun(
            options, plan, outputs, request.image, request.model, mask,
            Progress.as_found(outputs.state.ledger_file, mask, plan.tiling),
            callbacks, self._stopwatch,
        )  # fmt: skip
        run.ledger, run.run_id, run.workers = ledger, run_id, workers
        resources = self.lazy_workers.resources
        run.memory = estimate.memory_limit
        run.slots = resources.slots * (resources.workers if resources.local else 1)
        run.in_process = resources.in_process
        if not is_complete(run, self._stages):
            # A resumed run builds on what is there, and so reads all of it.
            run.progress = Progress.as_found(ledger.path, mask, plan.tiling, read=True)
            drop_altered_exports(run.progress, outputs)
        if run.progress.damage:
            several = some([str(damage) for damage in run.progress.damage])
            callbacks.on_warning(f"damaged since it was written: {several}; computed again")
        refuse_strange_exports(outputs, run.progress.ours)
        self.estimate = estimate
        self.resumed = sum(run.progress.is_done(number) for number in plan.coverage)
        callbacks.begun = True
        callbacks.planned(plan, estimate, self.resumed)

    def _require_unchanged(self) -> None:
        """Raise InputError if the image has changed while it was read."""
        run = self.run
        self._image_state = require_unchanged(
            run.ledger, lambda: open_input(self.options, run.model), run.plan, self._image_state
        )

    def _refuse_empty(self) -> None:
        run = self.run
        if run.progress.answered:
            return
        run.outputs.state.discard()  # an empty mask must not be mistaken for a result
        if run.progress.incomplete:
            raise InputError(f"no pixel got an answer: {run.progress.incomplete[0][1]}")
        nodata = "" if run.image.nodata is None else f" ({run.image.nodata:g})"
        where = "" if run.plan.region is None else " of the region"
        raise InputError(
            f"{run.plan.image.path}: every pixel{where} is nodata{nodata}, so there is nothing to "
            "segment"
        )

    def _summarise(self) -> Summary:
        run, resources = self.run, self.lazy_workers.resources
        plan, seconds = run.plan, self._stopwatch.seconds
        for name in ("read", "wait", "compute", "write"):
            seconds[name] = getattr(run.progress.totals, name)
        seconds["total"] = self._stopwatch.total
        summary = summarise(plan, run.outputs, run.progress, self.options)
        summary.resumed = self.resumed
        summary.seconds = seconds
        summary.warnings = self.estimate.warnings
        summary.verification = run.verification
        if plan.objects is not None:
            from tilepipe.engine.run.object_work import summary_of

            summary.objects = summary_of(run)
        if not resources.in_process:
            summary.peak_memory += sum(run.progress.peaks.values())
        setting = Setting(
            workers=max(resources.workers, len(self.blocks.workers)),
            slots=self.lazy_workers.slots,
            in_process=resources.in_process,
            local=resources.local,
            gpu=plan.device != "cpu",
            precision=plan.precision,
            bf16=bf16_in_hardware() if resources.local else None,
            offered=self.estimate.offer and self.estimate.offer.option,
            tissue=plan.region is None and plan.image.bands == 3 and plan.mask.crs is None,
        )
        summary.bottleneck = find_bottleneck(seconds, self.blocks.totals, setting)
        if self.options.profile:
            run.ledger.flush()
            summary.profile = write_profile(
                run.ledger.path, run.ledger.since, plan, run.outputs.record, summary.bottleneck
            )
        return summary


def stages_of(options: RunOptions) -> list[Stage]:
    """The stages after the blocks, in order."""
    others = [stage_named(name) for name in options.stages]
    proof = [Proof()] if options.verify else []
    own = [Pyramid(), Ranges(), Resample(), Exports(), Objects(), ObjectExports(), Items()]
    return [*own, *others, *proof]


def _resumed_plan(plan: Plan, request: Request, resources: Resources) -> tuple[Plan, Estimate]:
    """The plan of an earlier run, with the current paths, if the current workers may resume it."""
    options, image, model = request.options, request.image, request.model
    plan = relocated(plan, image, model_reference(options.model))
    require_precision(options, model, resources, Precision(plan.precision), plan.runtime)
    if not options.allow_mixed:
        here = resources.environment | model.predictor.versions(plan.runtime)
        here = relevant_to(here, plan.precision) | {"threads": plan.threads}
        check_environment(plan, here)
    memory = MemoryModel(
        at_model_scale(image, plan.image), plan.image.level, model, resources, plan.device,
        plan.precision, plan.extras, plan.runtime,
    )  # fmt: skip
    warnings = plan_warnings(image, model, options, choose_scale(image, model, options))
    limit = memory_limit(options, resources)
    slots = memory.slots(plan.tiling, limit)
    bound = memory.with_slots(slots).total(plan.tiling)
    return plan, Estimate(bound, limit, None, warnings, slots=slots)


def _open_or_create(
    outputs: Outputs,
    plan: Plan,
    existing: Plan | None,
    network: bytes | None,
    callbacks: RunCallbacks,
) -> ZarrMask:
    """The run's mask. The plan is frozen last, because a mask without a plan is not trusted."""
    now = outputs.state.read_plan()
    if (now is None) != (existing is None):
        raise InputError(f"{outputs.store}: another run has just started writing it; try again")
    if existing is None:
        for entry in outputs.store.iterdir():
            if entry != outputs.state.folder:
                remove(entry)
        outputs.state.forget()
        create_mask(outputs.store, plan.mask, plan.extras)
        if network is not None:
            write_whole(outputs.state.network_file, network)
    else:
        for sentence in mend(outputs.state, plan):
            callbacks.on_warning(sentence)
    outputs.state.freeze(plan)
    mask = open_zarr_mask(outputs.store)
    mask.remove_partials()  # left by writers that were killed
    return mask


@contextmanager
def _failures_named(outputs: Outputs) -> Iterator[None]:
    """Name the mask in errors about writing it."""
    try:
        yield
    except DamagedMaskError as error:
        raise EnvironmentFailure(
            f"{outputs.store}: was damaged during the run: check that its disk is healthy; the "
            "same command finds the damaged blocks and computes them again"
        ) from error
    except (OSError, EnvironmentFailure) as error:
        cause = environment_failure(error)
        if cause is None:
            raise
        raise EnvironmentFailure(f"{outputs.store}: {cause}") from error
