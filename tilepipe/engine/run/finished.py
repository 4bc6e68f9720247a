"""Whether an earlier run already made everything that this one would make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.planning.differences import differences
from tilepipe.engine.report.record import (
    Summary,
    recorded_verification,
    summarise,
    summary_from_record,
)
from tilepipe.engine.report.verification import Verification
from tilepipe.engine.run.same_image import ImageState
from tilepipe.engine.run.stage import OpenRun, Stage, is_done
from tilepipe.engine.run.verify import verify
from tilepipe.engine.state.folder import read_document
from tilepipe.engine.state.integrity import is_in_order
from tilepipe.engine.state.outputs import Outputs, refuse_strangers
from tilepipe.engine.state.progress import Progress
from tilepipe.engine.state.run_record import profile_paths
from tilepipe.errors import InputError
from tilepipe.images import Image
from tilepipe.models.file import Model
from tilepipe.products.store import open_zarr_mask
from tilepipe.storage import size_of


@dataclass(frozen=True, slots=True)
class Request:
    """The options of a run with its opened image, its model and its outputs."""

    options: RunOptions
    image: Image
    model: Model
    outputs: Outputs
    image_state: ImageState
    """The state of the image when it was opened."""


def find_finished(request: Request, plan: Plan | None, stages: Sequence[Stage]) -> Summary | None:
    """The summary of an earlier run, if it already made all that the request needs.

    ``plan`` is the one in the output's store, if there is one that agrees with the request, and
    ``stages`` are those of the run. Raises InputError for anything else in the place of an output.
    """
    options, outputs = request.options, request.outputs
    if options.overwrite:
        return None
    if plan is not None:
        if options.verify:
            return None
        with outputs.state.locked():  # or another run could remove it meanwhile
            return _from_store(request, plan, stages)
    summary = _from_exports(request)
    if summary is None:
        refuse_strangers(outputs)
        return None
    masks = outputs.masks(channels=options.channels)
    if options.verify and masks:
        summary.verification = verify(masks[0], windows=options.verify)
        summary.write()
    return summary


def is_complete(run: OpenRun, stages: Sequence[Stage]) -> bool:
    """Whether the ledger has all blocks, and all steps of the stages, as done."""
    return all(run.progress.is_done(number) for number in run.plan.coverage) and all(
        is_done(run, step)
        for stage in stages
        for step in stage.steps(run)
        if step.record is not None
    )


def earlier_verification(run: OpenRun) -> Verification | None:
    """The verification by an earlier run of the same plan, from its record."""
    record = read_document(run.outputs.record)
    same = record.get("plan") == json.loads(run.plan.to_json())
    return recorded_verification(record) if same else None


def _from_store(request: Request, plan: Plan, stages: Sequence[Stage]) -> Summary | None:
    """The summary of a run whose store and exports are complete, or None."""
    outputs = request.outputs
    if not is_in_order(outputs.state, plan):
        return None
    mask = open_zarr_mask(outputs.store)
    progress = Progress.as_found(outputs.state.ledger_file, mask, plan.tiling)
    run = OpenRun(
        request.options, plan, outputs, request.image, request.model, mask=mask, progress=progress
    )
    if not is_complete(run, stages):
        return None
    record = read_document(outputs.record)
    if record.get("plan") != json.loads(plan.to_json()):
        return None
    summary = summarise(plan, outputs, progress, request.options)
    try:
        summary.recall(record)
    except (ValueError, KeyError, TypeError):
        return None
    if request.options.profile:
        summary.profile = tuple(p for p in profile_paths(outputs.record) if p.exists())
    return summary


def _from_exports(request: Request) -> Summary | None:
    """The summary of a finished run of the same request, whose store was temporary, or None."""
    outputs = request.outputs
    if outputs.keep_store or not all(path.exists() for path in outputs.derived):
        return None
    record = read_document(outputs.record)
    summary = summary_from_record(record, outputs)
    if summary is None or not _has_files_of_stages(record, request):
        return None
    if damaged := [str(path) for path in record.get("damaged") or ()]:
        raise InputError(
            f"{damaged[0]}: is damaged, as `verify --scrub` found; use --overwrite to replace it"
        )
    summary.files_of_stages = record.get("files_of_stages", {})
    changed = differences(
        summary.plan, request.options, request.image, request.model, request.outputs
    )
    if changed:
        raise InputError(
            f"{outputs.derived[0]}: was made with other settings: {'; '.join(changed)}; use "
            "--overwrite to start over, or another -o"
        )
    return summary


def _has_files_of_stages(record: dict[str, Any], request: Request) -> bool:
    """Whether the run of a record had all stages that are asked for, and their files are there."""
    try:
        had, files = record["options"].get("stages", ()), record.get("files_of_stages", {})
        return set(request.options.stages) <= set(had) and all(
            size_of(request.outputs.path_of(name)) == size for name, size in files.items()
        )
    except (AttributeError, TypeError, ValueError):
        return False
