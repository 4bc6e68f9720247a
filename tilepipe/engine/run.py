"""A run, from its options to its summary: plan, blocks, pyramid, exports, record."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import psutil

from tilepipe.engine import block as work
from tilepipe.engine.block import Receipt
from tilepipe.engine.cluster import (
    SLOTS,
    Failure,
    connect,
    cores,
    prepare_workers,
    run_bounded,
    surroundings,
)
from tilepipe.engine.device import Device, choose_device, choose_precision, environment
from tilepipe.engine.ledger import Ledger, read_ledger
from tilepipe.engine.options import RunOptions, image_stem
from tilepipe.engine.outputs import Outputs, choose_outputs, remove_previous
from tilepipe.engine.plan import (
    Plan,
    absolute,
    check_fits,
    choose_level,
    differences,
    image_facts,
    mask_spec,
    retarget,
)
from tilepipe.engine.record import Summary, Watch, class_shares
from tilepipe.engine.sizing import Crew, Estimate, MemoryModel, choose_tiling, warm_up
from tilepipe.engine.verify import verify_plan
from tilepipe.errors import InputError, NonFiniteError, TilepipeError, UnreadableError
from tilepipe.images import Image, check_bounded, open_image
from tilepipe.masks.formats import export
from tilepipe.masks.pyramid import pyramid_blocks
from tilepipe.masks.store import ZarrMask, create_mask, open_zarr_mask
from tilepipe.models.file import Model, load_model

DEFAULT_MEMORY_SHARE = 0.5
"""Of the memory that is free when the run is planned."""


@dataclass(frozen=True, slots=True)
class Site:
    """The place where passes run: a device, its threads, and what its results depend on."""

    device: str
    threads: int
    environment: dict[str, Any]


@dataclass
class Progress:
    """What the ledger says is done, and what this run adds."""

    receipts: dict[int, Receipt] = field(default_factory=dict)
    levels: set[int] = field(default_factory=set)
    exports: set[str] = field(default_factory=set)
    failed: dict[int, str] = field(default_factory=dict)

    @classmethod
    def from_ledger(cls, outputs: Outputs) -> Progress:
        """What earlier runs did. A block written anew outdates pyramid and exports."""
        progress = cls()
        for record in read_ledger(outputs.state.ledger_file):
            if record["kind"] == "block":
                progress.add(Receipt.from_record(record))
            elif record["kind"] == "level":
                progress.levels.add(record["level"])
            elif record["kind"] == "export":
                progress.exports.add(record["name"])
        return progress

    def add(self, receipt: Receipt) -> None:
        """Take note of a written block."""
        self.receipts[receipt.number] = receipt
        self.levels.clear()
        self.exports.clear()

    def is_done(self, number: int) -> bool:
        """Whether a block is written and nothing of it was unreadable."""
        receipt = self.receipts.get(number)
        return receipt is not None and receipt.unreadable == 0

    @property
    def incomplete(self) -> tuple[tuple[int, str], ...]:
        """Blocks with pixels that could not be read, and why."""
        partial = {n: r.message for n, r in self.receipts.items() if r.unreadable}
        return tuple(sorted((self.failed | partial).items()))


def make_plan(options: RunOptions, watch: Watch | None = None) -> tuple[Plan, Estimate]:
    """What `run` would do with these options, and what it would cost; writes nothing.

    Raises
    ------
    InputError
        For everything about image, model or options that a run would refuse.
    """
    with ExitStack() as stack:
        image = open_image(options.image)
        stack.callback(image.close)
        model = load_model(options.model)
        check_fits(image, model)
        outputs = choose_outputs(options.outputs, image)
        if options.scheduler is not None:
            client, crew = stack.enter_context(connect(options))
            site = _survey(options, client, crew)
        else:
            crew = Crew(options.workers or 1, in_process=options.workers is None, slots=SLOTS)
            site = _survey(options, None, crew)
        return _new_plan(options, image, model, outputs, crew, site)


def run(options: RunOptions, watch: Watch | None = None) -> Summary:
    """Segment an image, or go on where an earlier run of the same options stopped.

    Raises
    ------
    InputError
        When image, model, options or an existing output are at fault.
    SurroundingsError
        When the machine stopped the run (disk full, scheduler lost); it can be resumed.
    """
    watch = watch or Watch()
    begin = time.perf_counter()
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        image = open_image(options.image)
        stack.callback(image.close)
        model = load_model(options.model)
        check_fits(image, model)
        outputs = choose_outputs(options.outputs, image)
        existing = None if options.overwrite else outputs.state.read_plan()
        if existing is not None and (changed := differences(existing, options, image, model)):
            raise InputError(
                f"{outputs.store}: was begun with other settings: {'; '.join(changed)}; use the "
                "same ones to resume it, --overwrite to start anew, or another -o"
            )
        if existing is None and not options.overwrite:
            done = _finished_before(outputs, options, image, model)
            if done is not None:
                return done
            _refuse_strangers(outputs)

        client, crew = stack.enter_context(connect(options, _gpus(options)))
        stack.callback(_release, client, crew)
        site = _survey(options, client, crew)
        estimate: Estimate
        if existing is None:
            plan, estimate = _new_plan(options, image, model, outputs, crew, site)
        else:
            plan = retarget(existing, image, _model_path(options.model))
            _check_site(plan, site, options)
            memory = MemoryModel(image, plan.image.level, model, crew, plan.device, plan.precision)
            memory = memory.with_probabilities(plan.probabilities is not None)
            estimate = Estimate(memory.total(plan.tiling), _memory_limit(options), None)
        if options.overwrite:
            remove_previous(outputs)

        with outputs.state.locked():
            mask = _open_or_create(outputs, plan, existing)
            run_id = outputs.state.begin()
            stack.callback(outputs.state.end)
            progress = Progress.from_ledger(outputs)
            resumed = sum(progress.is_done(number) for number in plan.tiling)
            watch.planned(plan, estimate, resumed)
            reports = prepare_workers(client, work.prepare, str(outputs.store), run_id)
            _check_environments([r["environment"] for r in reports], plan, options)
            seconds["start"] = time.perf_counter() - begin
            with Ledger(outputs.state.ledger_file) as ledger, _named_surroundings():
                task = _Task(client, crew, options, outputs, run_id, ledger, progress, watch)
                seconds["blocks"] = _timed(lambda: task.blocks(plan))
                _refuse_empty(plan, image, progress, outputs)
                seconds["pyramid"] = _timed(lambda: task.pyramid(mask))
                seconds["exports"] = _timed(lambda: task.exports(mask, image, plan.image.level))

            summary = _summarise(plan, outputs, progress, estimate, options, resumed)
            if options.verify:
                watch.stage("verifying")
                summary.verification = verify_plan(
                    plan, mask, image, model, windows=options.verify, seed=0,
                    unreadable=bool(progress.incomplete), probabilities=mask,
                )  # fmt: skip
            for name in ("read", "compute", "write"):
                seconds[name] = sum(getattr(r, name) for r in progress.receipts.values())
            seconds["total"] = time.perf_counter() - begin
            summary.seconds = seconds
            summary.write()
    if not outputs.keep_store and not progress.incomplete:
        shutil.rmtree(outputs.store)
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
        # One more than a worker can have in hand, so that none waits for the client.
        self.in_flight = crew.workers * (crew.slots + 1)

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
                self.progress.failed.pop(number, None)
                self.watch.block(outcome)
                continue
            error = outcome.error if isinstance(outcome, Failure) else outcome
            self.watch.trouble(f"block {number}: {error}")
            if isinstance(error, UnreadableError) and len(item) == 3:
                unread.append(number)
            elif isinstance(error, UnreadableError | NonFiniteError) or _killed(error):
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

    def exports(self, mask: ZarrMask, image: Image, level: int) -> None:
        """Write the exports that are not done."""
        for path in self.outputs.exports:
            if path.name in self.progress.exports and path.exists():
                continue
            self.watch.stage(f"writing {path.name}")
            export(mask, path, image, level)
            self.ledger.append({"kind": "export", "name": path.name})
            self.progress.exports.add(path.name)


def _new_plan(
    options: RunOptions, image: Image, model: Model, outputs: Outputs, crew: Crew, site: Site
) -> tuple[Plan, Estimate]:
    level, off_scale = choose_level(image, model, options)
    facts = image_facts(image, level, options)
    precision = choose_precision(options.precision, site.device)
    limit = _memory_limit(options)
    memory = MemoryModel(image, level, model, crew, site.device, precision)
    memory = memory.with_probabilities(options.probabilities is not None)
    check_bounded(image, level, limit // 4)
    tiling = choose_tiling(model, facts, memory, limit, options, crew)
    bound = memory.total(tiling)

    device = Device(model, site.device, precision, site.threads)
    try:
        rate = warm_up(device, image, facts, model.geometry)
    except NonFiniteError as error:
        raise NonFiniteError(f"{image.path}: {error}") from error
    finally:
        device.close()
    plan = Plan(
        image=facts,
        model=_model_path(options.model),
        model_fingerprint=model.fingerprint,
        tiling=tiling,
        device=site.device,
        precision=precision,
        threads=site.threads,
        probabilities=options.probabilities,
        mask=mask_spec(image, model, facts, image_stem(str(outputs.store))),
        environment=site.environment,
    )
    seconds = tiling.work / rate / crew.workers if rate else None
    warnings = tuple(w for w in (off_scale,) if w)
    return plan, Estimate(bound, limit, seconds, warnings)


def _survey(options: RunOptions, client: Any | None, crew: Crew) -> Site:
    """The device and the threads of a pass, as the workers have them."""
    if client is None or crew.local:
        device = choose_device(options.device)
        threads = options.threads or max(1, cores() // crew.workers)
        return Site(device, threads, environment(device, threads))
    threads = options.threads or crew.slots
    reports = prepare_workers(client, _survey_worker, options.device, threads)
    _refuse_mixed([r["environment"] for r in reports], options)
    return Site(reports[0]["device"], threads, reports[0]["environment"])


def _survey_worker(device: str, threads: int) -> dict[str, Any]:
    try:
        chosen = choose_device(device)
    except InputError as error:
        return {"error": str(error)}
    return {"device": chosen, "environment": environment(chosen, threads)}


def _refuse_mixed(environments: list[dict[str, Any]], options: RunOptions) -> None:
    for other in environments[1:]:
        if other != environments[0] and not options.allow_mixed:
            raise InputError(
                f"the workers differ ({_difference(environments[0], other)}), and so would their "
                "results in the last digits; use workers of one kind, or --allow-mixed, which "
                "promises equal labels up to ties only"
            )


def _check_site(plan: Plan, site: Site, options: RunOptions) -> None:
    here = {**site.environment, "threads": plan.threads}
    _check_environments([here], plan, options)


def _check_environments(
    environments: list[dict[str, Any]], plan: Plan, options: RunOptions
) -> None:
    for here in environments:
        if here != plan.environment and not options.allow_mixed:
            raise InputError(
                "the run was planned for another kind of worker "
                f"({_difference(plan.environment, here)}), and results would differ in the last "
                "digits; use the same kind, --allow-mixed (equal labels up to ties only), or "
                "--overwrite to start anew"
            )


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {ours.get(key)} and {theirs.get(key)}"
        for key in ours
        if ours.get(key) != theirs.get(key)
    )


def _refuse_strangers(outputs: Outputs) -> None:
    """Refuse to write over what no run of tilepipe left unfinished."""
    store = outputs.store
    if store.exists() and not outputs.state.folder.is_dir():
        raise InputError(f"{store}: exists already; use --overwrite to replace it, or another -o")
    for path in outputs.exports:
        if path.exists():
            raise InputError(
                f"{path}: exists already; use --overwrite to replace it, or another -o"
            )


def _finished_before(
    outputs: Outputs, options: RunOptions, image: Image, model: Model
) -> Summary | None:
    """The summary of a finished run of the same request whose zarr store was only for a while."""
    if outputs.keep_store or not all(path.exists() for path in outputs.exports):
        return None
    try:
        record = json.loads(outputs.record.read_text())
        plan = Plan.from_json(json.dumps(record["plan"]))
        if not record["complete"] or record["outputs"] != [str(p) for p in outputs.shown]:
            return None
        if changed := differences(plan, options, image, model):
            raise InputError(
                f"{outputs.exports[0]}: was made with other settings: {'; '.join(changed)}; use "
                "--overwrite to start anew, or another -o"
            )
        receipts = [
            Receipt(0, tuple(c["pixels"] for c in record["classes"]),
                    record["pixels"]["answered"], 0, 0.0, 0.0, 0.0, "", 0)
        ]  # fmt: skip
        shares, unit = class_shares(plan, receipts)
        return Summary(
            plan, outputs.shown, outputs.record, shares, unit,
            record["pixels"]["answered"], record["pixels"]["no_answer"], 0, (),
            plan.blocks, plan.blocks, record["seconds"], record["peak_memory_bytes"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
    return open_zarr_mask(outputs.store)


def _refuse_empty(plan: Plan, image: Image, progress: Progress, outputs: Outputs) -> None:
    if any(receipt.answered for receipt in progress.receipts.values()):
        return
    shutil.rmtree(outputs.store)  # a mask of nothing, not to be taken for one
    if progress.incomplete:
        raise InputError(f"no pixel got an answer: {progress.incomplete[0][1]}")
    nodata = "" if image.nodata is None else f" ({image.nodata:g})"
    raise InputError(
        f"{plan.image.path}: every pixel is nodata{nodata}, so there is nothing to segment"
    )


def _summarise(
    plan: Plan,
    outputs: Outputs,
    progress: Progress,
    estimate: Estimate,
    options: RunOptions,
    resumed: int,
) -> Summary:
    receipts = list(progress.receipts.values())
    shares, unit = class_shares(plan, receipts)
    answered = sum(r.answered for r in receipts)
    unreadable = sum(r.unreadable for r in receipts)
    unreadable += sum(plan.tiling.block_window(number).area for number in progress.failed)
    peaks = {r.worker: 0 for r in receipts}
    for receipt in receipts:
        peaks[receipt.worker] = max(peaks[receipt.worker], receipt.peak)
    own = work.peak_memory()
    workers = sum(peaks.values()) if options.workers or options.scheduler else 0
    return Summary(
        plan=plan,
        outputs=outputs.shown,
        record=outputs.record,
        classes=shares,
        area_unit=unit,
        answered=answered,
        no_answer=plan.image.height * plan.image.width - answered,
        unreadable=unreadable,
        incomplete=progress.incomplete,
        blocks=plan.blocks,
        resumed=resumed,
        seconds={},
        peak_memory=own + workers,
        warnings=estimate.warnings,
        options=asdict(replace(options, outputs=tuple(str(p) for p in outputs.shown))),
    )


def _memory_limit(options: RunOptions) -> int:
    if options.memory is not None:
        return options.memory
    return int(psutil.virtual_memory().available * DEFAULT_MEMORY_SHARE)


def _model_path(name: str) -> str:
    from tilepipe.models.file import shipped_models

    return name if name in shipped_models() else absolute(name)


def _gpus(options: RunOptions) -> int:
    import torch

    if options.device == "cpu" or options.scheduler is not None:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _killed(error: BaseException) -> bool:
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)


def _release(client: Any, crew: Crew) -> None:
    # Worker processes of ours end with their cluster; this process goes on.
    if crew.in_process:
        work.close_workbenches()


@contextmanager
def _named_surroundings() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = surroundings(error)
        if cause is None:
            raise
        raise cause from error


def _timed(part: Any) -> float:
    begin = time.perf_counter()
    part()
    return time.perf_counter() - begin
