"""Verification on the user's own image: other windows of the run's shape must agree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from tilepipe.engine.inputs import open_planned
from tilepipe.engine.plan.coverage import Coverage
from tilepipe.engine.plan.plan import Plan, at_model_scale, describe_differences, nearest_of
from tilepipe.engine.report.verification import Verification
from tilepipe.engine.run.comparison import Comparison
from tilepipe.engine.run.examine import Examination, examine
from tilepipe.engine.run.seams import seam_windows
from tilepipe.engine.run.stage import OpenRun, Stage, Step
from tilepipe.engine.state.folder import AlteredPlanError, RunState, read_document
from tilepipe.engine.state.network import as_planned
from tilepipe.engine.state.outputs import OBJECTS, mask_with_image
from tilepipe.engine.state.progress import Progress
from tilepipe.engine.state.run_record import record_path
from tilepipe.engine.work.device import Device
from tilepipe.engine.work.environment import (
    choose_device,
    environment,
    gpu_of_worker,
    relevant_to,
    require_proof,
)
from tilepipe.errors import CheckError, DamagedMaskError, InputError, UnreadableError
from tilepipe.grid import Window
from tilepipe.images import Image, Level, read_with_valid
from tilepipe.models.file import Model, load_model
from tilepipe.models.precision import Precision
from tilepipe.products.base import Mask
from tilepipe.products.formats import open_mask, suffix_kind
from tilepipe.products.label_path import label_path
from tilepipe.products.store import ZarrMask, require_products
from tilepipe.regions.cells import CellGrid, Placement, Region, touched_cells
from tilepipe.storage import InputRefused, StoragePath, readable, refuse_links

MOST_WINDOWS = 1_000_000


def verify(
    mask: str | StoragePath,
    *,
    windows: int = 16,
    seed: int = 0,
    image: str | None = None,
    model: str | None = None,
    device: str = "auto",
    scrub: bool = False,
) -> Verification:
    """Check that a mask is as written, then run the network on other windows, and compare.

    Parameters
    ----------
    mask
        An output of `run`, in any format.
    windows
        Number of windows.
    seed
        Seed of their random choice.
    image, model
        Paths of image and model, if they have moved since the run.
    scrub
        Read all chunks and exports, and compare their hashes with those that the run recorded.
        Damage is recorded, and the command that made the mask repairs it.

    Raises
    ------
    InputError
        When tilepipe did not make the mask, or image or model are not the run's.
    CheckError
        When the plan is not the one that the run wrote.
    """
    path = readable(mask).absolute()
    with InputRefused():
        if not path.exists():
            raise InputError(f"{path}: does not exist")
    suffix_kind(path)
    refuse_links(path)
    if label_path(path) is None and record_path(mask_with_image(path)).exists():
        path = mask_with_image(path)
    try:
        plan, unreadable = _plan_of(path)
    except AlteredPlanError as error:
        raise CheckError(str(error)) from error
    require_products(path, plan.extras)
    with ExitStack() as stack:
        opened_image, loaded = _open_inputs(path, plan, image, model, stack)
        on = choose_device(device if device != "auto" else plan.device)
        require_proof(loaded, on, Precision(plan.precision))
        found = examine(path, plan, scrub=scrub)
        try:
            opened_mask = open_mask(path)
        except InputError:
            if not found.damage:
                raise
            return _only_damaged(plan, loaded, found)
        stack.callback(opened_mask.close)
        # The store of an incomplete run is still on the model's grid.
        on_image = plan.like_image is not None and not RunState(path).plan_file.exists()
        spec = plan.like_image if on_image and plan.like_image else plan.mask
        if opened_mask.shape != (spec.height, spec.width):
            if found.damage:
                return _only_damaged(plan, loaded, found)
            height, width = opened_mask.shape
            raise InputError(
                f"{path}: has {width} x {height} pixels, and the run in {record_path(path).name} "
                f"wrote {spec.width} x {spec.height} (width x height); give the mask of that run"
            )
        result = verify_plan(
            plan, opened_mask, opened_image, loaded, windows=windows, seed=seed,
            unreadable=unreadable, device=device, on_image=on_image,
        )  # fmt: skip
        if plan.objects is not None and not on_image and isinstance(opened_mask, ZarrMask):
            from tilepipe.engine.run.verify_objects import with_objects

            result = with_objects(result, plan, opened_mask, path / OBJECTS, windows, seed)
    damage = (*found.damage, *result.damage)
    return replace(result, damage=damage, covered=(*found.covered, *result.covered))


def _open_inputs(
    mask: StoragePath, plan: Plan, image: str | None, model: str | None, stack: ExitStack
) -> tuple[Image, Model]:
    """The image and the model of a run, which may have moved; InputError for others."""
    opened_image = open_planned(plan.image, image)
    stack.callback(opened_image.close)
    if opened_image.fingerprint() != plan.image.fingerprint:
        raise InputError(f"{opened_image.path}: is not the image that {mask} was made from")
    loaded = load_model(model or plan.model)
    if loaded.fingerprint != plan.model_fingerprint:
        raise InputError(f"{model or plan.model}: is not the model that {mask} was made with")
    return opened_image, as_planned(plan, loaded, mask)


def _only_damaged(plan: Plan, model: Model, found: Examination) -> Verification:
    """The result for a mask so damaged that no window can be compared."""
    comparison = Comparison(plan, model, [], None)
    comparison.tally.damage = found.damage
    return replace(comparison.result(), covered=tuple(found.covered))


def verify_plan(
    plan: Plan,
    mask: Mask,
    image: Image,
    model: Model,
    *,
    windows: int,
    seed: int,
    unreadable: Sequence[int] = (),
    device: str = "auto",
    on_image: bool = False,
) -> Verification:
    """Compare a mask with the network on ``windows`` windows across the seams of its plan.

    With ``on_image``, the mask is on the image's own grid (`--like-image`), and its pixels are
    compared with the outputs that they should have taken.
    """
    if not 1 <= windows <= MOST_WINDOWS:
        raise InputError(f"windows must be 1 to {MOST_WINDOWS:,}, not {windows}")
    geometry, image = model.geometry, at_model_scale(image, plan.image)
    # The model's own geometry, not the plan's: a plan with a wrong one must not judge itself.
    comparison = Comparison(
        plan, model, [plan.tiling.block_window(n) for n in unreadable],
        nearest_of(image, plan) if on_image else None,
    )  # fmt: skip
    chosen = choose_device(device if device != "auto" else plan.device)
    if plan.network is not None:
        _require_alike(plan, model)
    half = Precision(plan.precision).is_half
    # fp32 is compared with the reference runtime, whichever computed the mask. The bound of half
    # precision belongs to the runtime that computed it.
    tally, runtime = comparison.tally, plan.runtime if half else None
    runner = Device(model, gpu_of_worker(chosen, 0), plan.precision, plan.threads, runtime)
    try:
        places = seam_windows(plan.tiling, geometry.stride_factor, windows, seed, plan.coverage)
        # For an inexact model, that would mistake its inexactness for rounding.
        if half and not model.predictor.inexact:
            tally.tie_bound = _half_precision_bound(places, plan, image, model, runner)

        _compare(comparison, places, runner, image, mask)
        missed = not (tally.pixels or tally.skipped or tally.damage)
        answered = _answered(plan, mask) if missed else None
        if answered is not None:  # an island in nodata that all windows missed
            places = seam_windows(plan.tiling, geometry.stride_factor, windows, seed, answered)
            _compare(comparison, places, runner, image, mask)
    finally:
        runner.close()
    return comparison.result()


def _require_alike(plan: Plan, model: Model) -> None:
    """Refuse to judge int8 by another processor, whose roundings differ by more than ties."""
    here = environment("cpu", plan.threads) | model.predictor.versions(plan.runtime)
    found = describe_differences(plan.environment, relevant_to(here, plan.precision))
    if found:
        raise InputError(
            f"the mask was computed in int8 by another kind of machine ({found}), which rounds "
            "differently; verify it on that kind"
        )


def _compare(
    comparison: Comparison, places: list[Window], runner: Device, image: Image, mask: Mask
) -> None:
    """Compare a mask with the network on windows; those that cannot be read are skipped."""
    tally, geometry = comparison.tally, comparison.model.geometry
    for kept in places:
        window = geometry.window_for(kept)
        try:
            pixels, valid = read_with_valid(image, window, comparison.plan.image.level)
        except UnreadableError:
            tally.skipped += 1
            continue
        logits = runner.logits(pixels, valid, kept.shape)
        try:
            comparison.compare(kept, logits, valid, mask)
        except DamagedMaskError as error:
            tally.damage.append(str(error))


def _answered(plan: Plan, mask: Mask) -> Coverage | None:
    """The part of a mask that has answers, from its smallest level; None if there is none."""
    labels = mask.read(Window(0, 0, *mask.levels[-1]), len(mask.levels) - 1)
    plane = labels if labels.ndim == 2 else labels[0]
    known = ~plan.mask.product.unanswered(plane)
    height, width = plan.image.height, plan.image.width
    size = plane.shape[0], plane.shape[1]
    grid = CellGrid.of(Level(height, width, 1.0, 1.0), plan.tiling.geometry.stride_factor)
    place = Placement(step=(height / size[0], width / size[1]))
    cells = touched_cells(lambda top, bottom: known[top:bottom], size, place, grid)
    if not cells.any():
        return None
    return Coverage(plan.tiling, Region(height, width, grid.cell, cells))


def _half_precision_bound(
    places: list[Window], plan: Plan, image: Image, model: Model, runner: Device
) -> float:
    """The measured difference between half precision and float32 on the same windows.

    The bound is twice the largest difference of a logit, as a share of the logits' range, because
    the logits of two labels may both be off. Both passes read the same window: the effect of
    cutting elsewhere is what `verify` tests, and must not widen its own bound.

    A network that cannot compute in float32 is compared with itself, on windows a stride factor
    apart.
    """
    geometry, on, largest = model.geometry, runner.device, 0.0
    if Precision.FP32 in model.predictor.precisions(on):
        other, shift = Device(model, on, Precision.FP32, plan.threads), 0
    else:
        other, shift = runner, geometry.stride_factor
    try:
        for kept in places[:3]:
            moved = kept.shift(shift, shift)
            common = kept.intersect(moved)
            if common is None:
                continue
            passes = []
            try:
                for place, device in ((kept, runner), (moved, other)):
                    window = geometry.window_for(place)
                    pixels, valid = read_with_valid(image, window, plan.image.level)
                    logits = device.logits(pixels, valid, place.shape)
                    passes.append(logits[(slice(None), *common.slices(place))])
            except UnreadableError:
                continue
            span = float(np.ptp(passes[0])) or 1.0
            largest = max(largest, float(np.abs(passes[0] - passes[1]).max()) / span)
    finally:
        if other is not runner:
            other.close()
    return max(2 * largest, runner.precision.tie_bound)


def _plan_of(mask: StoragePath) -> tuple[Plan, list[int]]:
    """The plan of a mask's run, and the numbers of its blocks with unreadable pixels."""
    state = RunState(mask)
    plan = state.read_plan() if mask.is_dir() else None
    if plan is None and mask.is_dir() and state.folder.is_dir():
        raise InputError(
            f"{state.plan_file}: is missing, so {mask.name} cannot be checked; put the file back, "
            "or start over with `tilepipe run --overwrite`"
        )
    if plan is not None:
        progress = Progress.from_ledger(state.ledger_file)
        known = {damage.value for damage in progress.damage if damage.key == "number"}
        missing = [n for n in plan.coverage if not progress.is_written(n) and n not in known]
        if missing:
            raise InputError(
                f"{mask}: is not finished, {len(missing)} of {plan.blocks} blocks are missing; "
                "repeat the command that began it, then verify"
            )
    record = record_path(mask)
    try:
        document = read_document(record)
        incomplete = [int(block["number"]) for block in document["blocks"]["incomplete"]]
        if plan is None:
            plan = Plan.from_json(json.dumps(document["plan"]))
        elif document["plan"] != json.loads(plan.to_json()):
            incomplete = []  # the record of another run, under the same name
    except (ValueError, KeyError, TypeError):
        incomplete = []
        if plan is None:
            raise InputError(
                f"{mask}: its run record {record.name} is not beside it, so it is unknown how the "
                "mask was made; give the file that tilepipe wrote, with its record"
            ) from None
    return plan, incomplete


class Proof(Stage):
    """The stage that verifies the result (`verify_plan`), each time the option is given."""

    name = "verify"
    clock = "verify"

    def steps(self, run: OpenRun) -> Iterable[Step]:
        """One step; its result goes into the run record, not into the ledger."""
        yield Step("verify", "verifying", record=None)

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Compare other windows with the result."""
        run.verification = verify_plan(
            run.plan, run.result, run.image, run.model, windows=run.options.verify, seed=0,
            unreadable=[number for number, _ in run.progress.incomplete],
            on_image=run.plan.like_image is not None,
        )  # fmt: skip
        if run.plan.objects is None:
            return {}
        from tilepipe.engine.run.verify_objects import with_objects

        run.verification = with_objects(
            run.verification, run.plan, run.mask, run.outputs.objects, run.options.verify, 0
        )
        return {}
