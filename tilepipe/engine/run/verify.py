"""Proof on the user's own image: other windows of the run's shape must give the same labels."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.inputs import open_planned
from tilepipe.engine.plan.coverage import Coverage
from tilepipe.engine.plan.plan import Plan, at_model_scale, nearest_of
from tilepipe.engine.report.verification import Verification
from tilepipe.engine.run.examine import Examination, examine
from tilepipe.engine.state.folder import AlteredPlanError, RunState
from tilepipe.engine.state.outputs import record_path
from tilepipe.engine.state.progress import Progress
from tilepipe.engine.work.device import Device
from tilepipe.engine.work.environment import choose_device, gpu_of_worker
from tilepipe.errors import CheckError, DamagedMaskError, InputError, UnreadableError
from tilepipe.grid import Tiling, Window, round_down, round_up
from tilepipe.images import Image, Level, read_with_valid
from tilepipe.images.validity import Validity, in_any_band
from tilepipe.models.file import Model, load_model
from tilepipe.models.precision import Precision
from tilepipe.products.base import NO_ANSWER, Mask
from tilepipe.products.formats import open_mask, suffix_kind
from tilepipe.products.like_image import Nearest
from tilepipe.products.store import ZarrMask
from tilepipe.regions.cells import CellGrid, Placement, Region, touched_cells
from tilepipe.schema import load_json
from tilepipe.storage import InputRefused, StoragePath, readable, refuse_links

MOST_WINDOWS = 1_000_000

CLEAR = 32
"""Pixels by which windows of a region hold the place that they are chosen for: they are moved."""


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
    """Prove a mask: look whether it is as written, run the network on other windows, and compare.

    Parameters
    ----------
    mask
        An output of `run`, in any format.
    windows, seed
        How many windows, and which.
    image, model
        Where they are now, if not where the run found them.
    scrub
        Read all chunks and exports, and compare their hashes with those that the run recorded.
        What is damaged is noted, so that the run's own command computes it again.

    Raises
    ------
    InputError
        When the mask was not made by tilepipe, or image or model are not the run's.
    CheckError
        When the plan is not the one that the run wrote.
    """
    path = readable(mask).absolute()
    with InputRefused():
        if not path.exists():
            raise InputError(f"{path}: there is no such mask")
    suffix_kind(path)
    refuse_links(path)
    try:
        plan, unreadable = _plan_of(path)
    except AlteredPlanError as error:
        raise CheckError(str(error)) from error
    with ExitStack() as stack:
        opened_image = open_planned(plan.image, image)
        stack.callback(opened_image.close)
        if opened_image.fingerprint() != plan.image.fingerprint:
            raise InputError(f"{opened_image.path}: is not the image that {path} was made from")
        loaded = load_model(model or plan.model)
        if loaded.fingerprint != plan.model_fingerprint:
            raise InputError(f"{model or plan.model}: is not the model that {path} was made with")
        found = examine(path, plan, scrub=scrub)
        try:
            opened_mask = open_mask(path)
        except InputError:
            if not found.damage:
                raise
            return _only_damaged(plan, loaded, found)
        stack.callback(opened_mask.close)
        # The store of a run that is not complete is still on the model's grid.
        on_image = plan.like_image is not None and not RunState(path).plan_file.exists()
        spec = plan.like_image if on_image and plan.like_image else plan.mask
        if opened_mask.shape != (spec.height, spec.width):
            if found.damage:
                return _only_damaged(plan, loaded, found)
            raise InputError(
                f"{path}: has {opened_mask.shape[0]} x {opened_mask.shape[1]} pixels, and the run "
                f"in {record_path(path).name} wrote {spec.height} x {spec.width}; give its mask"
            )
        result = verify_plan(
            plan, opened_mask, opened_image, loaded, windows=windows, seed=seed,
            unreadable=unreadable, device=device, on_image=on_image,
        )  # fmt: skip
    damage = (*found.damage, *result.damage)
    return replace(result, damage=damage, covered=(*found.covered, *result.covered))


def _only_damaged(plan: Plan, model: Model, found: Examination) -> Verification:
    """The result where a mask is so damaged that no window of it can be compared."""
    tally = _Tally(plan, model, [], None)
    tally.damage = found.damage
    return replace(tally.result(), covered=tuple(found.covered))


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

    ``on_image`` says that the mask was brought back to the grid of the image: its pixels are then
    compared with those of the network's answers that they were to take.
    """
    if not 1 <= windows <= MOST_WINDOWS:
        raise InputError(f"windows must be 1 to {MOST_WINDOWS:,}, not {windows}")
    geometry, image = model.geometry, at_model_scale(image, plan.image)
    # The model's own geometry, not the plan's: a plan that got it wrong must not judge itself.
    tally = _Tally(
        plan, model, [plan.tiling.block_window(n) for n in unreadable],
        nearest_of(image, plan) if on_image else None,
    )  # fmt: skip
    chosen = choose_device(device if device != "auto" else plan.device)
    half = Precision(plan.precision).is_half
    # fp32 is judged with the reference runtime, whatever computed it: what can be proved with
    # another one holds twice. The bound of half precision is that of the runtime that computed it.
    runtime = plan.runtime if half else None
    runner = Device(model, gpu_of_worker(chosen, 0), plan.precision, plan.threads, runtime)
    stored = mask if plan.probabilities and isinstance(mask, ZarrMask) else None
    try:
        places = seam_windows(plan.tiling, geometry.stride_factor, windows, seed, plan.coverage)
        # For a model that is not exact, that would take its inexactness for rounding.
        if half and not model.predictor.inexact:
            tally.tie_bound = _half_precision_bound(places, plan, image, model, runner)

        def compare(places: list[Window]) -> None:
            for kept in places:
                window = geometry.window_for(kept)
                try:
                    pixels, valid = read_with_valid(image, window, plan.image.level)
                except UnreadableError:
                    tally.skipped += 1
                    continue
                logits = runner.logits(pixels, valid, kept.shape)
                try:
                    tally.compare(kept, logits, valid, mask, stored)
                except DamagedMaskError as error:
                    tally.damage.append(str(error))

        compare(places)
        missed = not (tally.pixels or tally.skipped or tally.damage)
        answered = _answered(plan, mask) if missed else None
        if answered is not None:  # an island in nodata that all windows missed
            compare(seam_windows(plan.tiling, geometry.stride_factor, windows, seed, answered))
    finally:
        runner.close()
    return tally.result()


def _answered(plan: Plan, mask: Mask) -> Coverage | None:
    """Where a mask has answers, as its smallest level tells; None where it has none."""
    labels = mask.read(Window(0, 0, *mask.levels[-1]), len(mask.levels) - 1)
    plane = labels if labels.ndim == 2 else labels[0]
    known = ~np.isnan(plane) if plane.dtype.kind == "f" else plane != NO_ANSWER
    height, width = plan.image.height, plan.image.width
    size = plane.shape[0], plane.shape[1]
    grid = CellGrid.of(Level(height, width, 1.0, 1.0), plan.tiling.geometry.stride_factor)
    place = Placement(step=(height / size[0], width / size[1]))
    cells = touched_cells(lambda top, bottom: known[top:bottom], size, place, grid)
    if not cells.any():
        return None
    return Coverage(plan.tiling, Region(height, width, grid.cell, cells))


def seam_windows(
    tiling: Tiling, factor: int, count: int, seed: int, coverage: Coverage | None = None
) -> list[Window]:
    """Kept outputs of ``count`` windows, centred on seams and corners of tiles and blocks.

    Each is moved by whole stride factors, so that none is a window of the run: where an image has
    no seams, at least the windows are cut elsewhere. Of a region, each holds some.
    """
    choose = random.Random(seed)
    seams = _seams(tiling, 0), _seams(tiling, 1)
    rows = _in_turn(seams[0], tiling.height, choose)
    columns = _in_turn(seams[1], tiling.width, choose)
    height, width = (max(factor, round_down(keep, factor)) for keep in tiling.keep)
    region = None if coverage is None else coverage.region
    inside = None if region is None else np.argwhere(region.cells)
    windows = []
    for i in range(count):
        # In turn: a corner, a horizontal seam, a vertical one.
        own: set[tuple[int, int]] | None = None
        if coverage is None or region is None or inside is None:
            centre_y = next(rows) if i % 3 != 2 else choose.randrange(tiling.height)
            centre_x = next(columns) if i % 3 != 1 else choose.randrange(tiling.width)
        else:
            row, column = inside[choose.randrange(len(inside))] * region.cell
            part, own = _part_of(coverage, int(row), int(column))
            middle = region.cell // 2
            edges = [part.y, part.stop_y] if i % 3 != 2 else []
            centre_y = _near(edges, int(row) + middle, height)
            edges = [part.x, part.stop_x] if i % 3 != 1 else []
            centre_x = _near(edges, int(column) + middle, width)
        y = _start(centre_y, height, tiling.height, factor)
        x = _start(centre_x, width, tiling.width, factor)
        is_own = (y, x) in own if own is not None else y in (0, *seams[0]) and x in (0, *seams[1])
        if is_own:
            # Cut elsewhere, but not off an image that is smaller than the stride factor.
            moves = [m for m in (-factor, factor) if y + m + height > 0 and y + m < tiling.height]
            if region is not None:  # nor off the region
                moves = [m for m in moves if _holds(region, Window(y + m, x, height, width))]
            y += choose.choice(moves or [0])
        windows.append(Window(y, x, height, width))
    return windows


def _in_turn(seams: list[int], size: int, choose: random.Random) -> Iterator[int]:
    """The seams in random order, each once before any comes again; without any, anywhere."""
    while True:
        yield from choose.sample(seams, len(seams)) or [choose.randrange(size)]


def _part_of(coverage: Coverage, row: int, column: int) -> tuple[Window, set[tuple[int, int]]]:
    """What the tile that a pixel comes from is for, and where the tiles of its block begin."""
    block, across = coverage.tiling.block, coverage.tiling.shape[1]
    tiles = coverage.tiles(row // block[0] * across + column // block[1])
    pixel = Window(row, column, 1, 1)
    part = next(part for _, part in tiles if part.contains(pixel))
    return part, {(tile.y, tile.x) for tile, _ in tiles}


def _near(seams: list[int], place: int, keep: int) -> int:
    """The seam nearest to a place, if a window centred on it holds that place; or the place."""
    seam = min(seams, key=lambda seam: abs(seam - place), default=place)
    return seam if abs(seam - place) < keep // 2 - CLEAR else place


def _holds(region: Region, window: Window) -> bool:
    common = window.intersect(Window(0, 0, region.height, region.width))
    return common is not None and bool(region.inside(common).any())


def _start(centre: int, keep: int, size: int, factor: int) -> int:
    # Within the image, or, where that is no larger than the window, from its edge on.
    last = max(0, round_up(size, factor) - keep)
    return min(max(round_down(centre - keep // 2, factor), 0), last)


def _seams(tiling: Tiling, axis: int) -> list[int]:
    size, step = (tiling.height, tiling.width)[axis], tiling.shape[1] if axis == 0 else 1
    seams: set[int] = set()
    for number in range(0, tiling.shape[axis] * step, step):
        for tile in tiling.tiles(number):
            seams.add((tile.y, tile.x)[axis])
    return sorted(seam for seam in seams if 0 < seam < size)


class _Tally:
    """Sums over the windows compared."""

    def __init__(
        self, plan: Plan, model: Model, unreadable: list[Window], nearest: Nearest | None
    ) -> None:
        self.plan, self.model, self.unreadable, self.nearest = plan, model, unreadable, nearest
        self.windows = self.skipped = self.pixels = self.differing = self.ties = 0
        self.tie_bound = Precision(plan.precision).tie_bound
        self.largest_gap = 0.0
        self.largest_difference: float | None = None
        self.tolerance: float | None = None
        self.damage: list[str] = []

    def result(self) -> Verification:
        return Verification(
            self.windows, self.skipped, self.pixels, self.differing, self.ties, self.tie_bound,
            self.largest_gap, self.largest_difference, self.tolerance, self.model.predictor.inexact,
            tuple(dict.fromkeys(self.damage)), self._covered(),
        )  # fmt: skip

    def _covered(self) -> tuple[str, ...]:
        share = self.pixels / self.plan.coverage.pixels
        return (f"windows: {share:.1%} of what was asked for was computed anew and compared",)

    def compare(
        self,
        kept: Window,
        logits: NDArray[np.float64],
        valid: Validity | None,
        mask: Mask,
        stored: ZarrMask | None,
    ) -> None:
        """Compare one window's logits, (outputs, rows, columns), with what the mask says."""
        image = Window(0, 0, self.plan.image.height, self.plan.image.width)
        inside = kept.intersect(image)
        if inside is None:
            return
        logits = logits[(slice(None), *inside.slices(kept))]
        answered = np.ones(inside.shape, np.bool_)
        if valid is not None:
            margin = self.model.geometry.margin
            kept_valid = valid[margin : margin + kept.height, margin : margin + kept.width]
            answered = in_any_band(kept_valid[inside.slices(kept)])
        # In blocks where something could not be read, silence is no contradiction.
        excused = self._excused(inside)
        asked = self.plan.coverage.inside(inside)
        if asked is not None:
            answered = answered & asked
        span = float(np.ptp(logits)) or 1.0
        if self.nearest is not None:
            place = self.nearest.under(inside)
            if place is None:
                return
            rows, columns = self.nearest.taken(place)
            down, across = (rows - inside.y)[:, None], columns - inside.x
            logits, answered = logits[:, down, across], answered[down, across]
            excused, inside = excused[down, across], place
        written = mask.read(inside)
        self.windows += 1
        if self.plan.mask.kind == "values":
            self._compare_values(logits, written, answered, excused)
            return
        gaps = np.stack(
            [
                _gap(logits, labels, plane, self.model) / span
                for plane, labels in enumerate(written if written.ndim == 3 else [written])
            ]
        )
        no_answer = written == NO_ANSWER
        if written.ndim == 2:
            no_answer = no_answer[None]
        # An answer where there should be none, or none where there should be one, is no tie.
        wrong = np.where(answered & ~no_answer, gaps, np.where(answered == no_answer, np.inf, 0))
        wrong = np.where(no_answer & excused, 0, wrong)
        differ = wrong > 0
        self.pixels += int((answered & ~no_answer[0]).sum())
        self.ties += int((differ & (wrong <= self.tie_bound)).sum())
        self.differing += int((wrong > self.tie_bound).sum())
        gapped = wrong[differ & np.isfinite(wrong)]
        self.largest_gap = max(self.largest_gap, float(gapped.max(initial=0.0)))
        if stored is not None:
            probabilities = stored.read_probabilities(inside)
            self._compare_probabilities(logits, probabilities, answered, excused)

    def _excused(self, window: Window) -> NDArray[np.bool_]:
        """Which pixels of a window lie in blocks of which something could not be read."""
        excused = np.zeros(window.shape, np.bool_)
        for block in self.unreadable:
            common = block.intersect(window)
            if common is not None:
                excused[common.slices(window)] = True
        return excused

    def _compare_values(
        self,
        logits: NDArray[np.float64],
        written: NDArray[Any],
        answered: NDArray[np.bool_],
        excused: NDArray[np.bool_],
    ) -> None:
        values = written if written.ndim == 3 else written[None]
        given = ~np.isnan(values)
        both = given & answered
        self.pixels += int(both[0].sum())
        silent = answered & ~given & excused
        self.differing += int(((given != answered) & ~silent).sum())
        span = float(np.ptp(logits)) or 1.0
        difference = np.abs(logits - values)[both].max(initial=0.0) / span
        self.largest_difference = max(self.largest_difference or 0.0, float(difference))
        self.tolerance = max(self.tie_bound, 1e-6)

    def _compare_probabilities(
        self,
        logits: NDArray[np.float64],
        written: NDArray[Any],
        answered: NDArray[np.bool_],
        excused: NDArray[np.bool_],
    ) -> None:
        missing = np.isnan(written).any(0) & answered & ~excused
        self.differing += int(missing.sum())
        ours = _probabilities(logits, self.model)
        given = ~np.isnan(written)
        self.differing += int((given.any(0) & ~answered).sum())
        both = given & answered
        difference = np.abs(ours - written)[both].max(initial=0.0)
        self.largest_difference = max(self.largest_difference or 0.0, float(difference))
        # Rounding of the stored form, and what the logits may differ by (a softmax has slope <= 1/4
        # for each of two logits).
        rounding = 2**-11 if self.plan.probabilities == "float16" else 0.51 / 254
        passes = self.tie_bound * float(np.ptp(logits))
        self.tolerance = max(self.tolerance or 0.0, rounding + passes)


def _gap(
    logits: NDArray[np.float64], labels: NDArray[Any], plane: int, model: Model
) -> NDArray[np.float64]:
    """How far each written label is from winning: 0 where it does."""
    if model.output.activation == "sigmoid":
        threshold = model.output.thresholds[plane]
        above = logits[plane] - np.log(threshold / (1 - threshold))
        return np.asarray(np.where((above > 0) == (labels == 1), 0.0, np.abs(above) + 1e-300))
    # 255 is dealt with by the caller; here it only must not index out of range.
    known = np.minimum(labels, len(logits) - 1).astype(np.intp)
    mine = np.take_along_axis(logits, known[None], 0)[0]
    gap = logits.max(0) - mine
    return np.asarray(np.where(labels < len(logits), gap, np.inf))  # what is no class never wins


def _probabilities(logits: NDArray[np.float64], model: Model) -> NDArray[np.float64]:
    if model.output.activation == "sigmoid":
        shares = 1 / (1 + np.exp(-logits))
        return np.concatenate((1 - shares, shares)) if len(shares) == 1 else np.asarray(shares)
    shares = np.exp(logits - logits.max(0))
    return np.asarray(shares / shares.sum(0))


def _half_precision_bound(
    places: list[Window], plan: Plan, image: Image, model: Model, runner: Device
) -> float:
    """How far half precision is from float32 over the same windows, measured here.

    The largest difference of a logit over the logits' range; both labels' logits may be off by as
    much, hence twice. The two passes are of one window, cut alike: what comes of cutting elsewhere
    is what `verify` looks for, and must not widen the bound it is judged by.

    A network that cannot compute in float32 has nothing to be compared with: its own outputs from
    windows a stride factor apart are compared instead.
    """
    geometry, on, largest = model.geometry, str(runner.device), 0.0
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
    """The plan that a mask was made by, and the blocks of which the run left pixels unread."""
    state = RunState(mask)
    plan = state.read_plan() if mask.is_dir() else None
    if plan is None and mask.is_dir() and state.folder.is_dir():
        raise InputError(
            f"{state.plan_file}: is gone, so nothing says what {mask.name} should be; put the file "
            "back, or make the mask anew with `tilepipe run --overwrite`"
        )
    if plan is not None:
        progress = Progress.from_ledger(state.ledger_file)
        known = {damage.value for damage in progress.damage if damage.key == "number"}
        missing = [n for n in plan.coverage if not progress.is_written(n) and n not in known]
        if missing:
            raise InputError(
                f"{mask}: is not finished, {len(missing)} of {plan.blocks} blocks are missing; "
                "give the command that began it again, then verify"
            )
    record = record_path(mask)
    try:
        document = load_json(record.read_text())
        incomplete = [int(block["number"]) for block in document["blocks"]["incomplete"]]
        if plan is None:
            plan = Plan.from_json(json.dumps(document["plan"]))
        elif document["plan"] != json.loads(plan.to_json()):
            incomplete = []  # the record of another run, under the same name
    except (OSError, ValueError, KeyError, TypeError):
        incomplete = []
        if plan is None:
            raise InputError(
                f"{mask}: nothing says how it was made: its run record {record.name} is not "
                "beside it; give the file that tilepipe wrote, with its record"
            ) from None
    return plan, incomplete
