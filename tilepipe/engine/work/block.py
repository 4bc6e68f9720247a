"""The unit of work, on the worker's side: read a window, run the model, write whole chunks.

A task carries coordinates only. Image, model and mask are opened once per process and kept in a
`WorkerContext`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.events import BlockReport
from tilepipe.engine.hardware import peak_memory
from tilepipe.engine.inputs import open_planned
from tilepipe.engine.plan.coverage import Coverage
from tilepipe.engine.plan.plan import Plan, at_model_scale, check_environment
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.work.areas import class_areas
from tilepipe.engine.work.device import Device, Prediction
from tilepipe.engine.work.environment import environment, gpu_of_worker, relevant_to
from tilepipe.errors import (
    EnvironmentFailure,
    InputError,
    TilepipeError,
    UnfitWorkerError,
    UnreadableError,
)
from tilepipe.grid import CHUNK, Window
from tilepipe.images import Image, read_with_valid
from tilepipe.images.validity import Validity, all_valid, in_any_band
from tilepipe.models.file import Model, load_model
from tilepipe.products.base import NO_ANSWER
from tilepipe.products.pyramid import downsample_block
from tilepipe.products.store import ZarrMask, open_zarr_mask
from tilepipe.storage import as_path

SMALLEST_PIECE = 64
"""Where a window cannot be read, it is halved down to pieces of this many pixels a side."""


class SupersededError(EnvironmentFailure):
    """A newer run of the same output has begun; this task belongs to a dead one."""


class WorkerContext:
    """What one process opens once: the plan, the image, the model on its device, the mask."""

    def __init__(self, store: str, device: str | None = None) -> None:
        self.state = RunState(as_path(store))
        plan = self.state.read_plan()
        if plan is None:
            raise InputError(
                f"{store}: this worker does not see the output; it must be on a disk that the "
                "client and all workers share, under the same path"
            )
        self.plan: Plan = plan
        self.image: Image = at_model_scale(open_planned(plan.image), plan.image)
        if self.image.fingerprint() != plan.image.fingerprint:
            raise InputError(
                f"{plan.image.path}: is not the image that the run began with, as this worker "
                "sees it; it must be the same file on every worker"
            )
        model = load_model(plan.model)
        if model.fingerprint != plan.model_fingerprint:
            raise InputError(
                f"{plan.model}: is not the model that the run began with, as this worker sees it"
            )
        self.mask: ZarrMask = open_zarr_mask(as_path(store))
        on = device or plan.device
        if not self.state.allows_mixed():
            here = environment(on, plan.threads) | model.predictor.versions(plan.runtime)
            check_environment(plan, relevant_to(here, plan.precision))
        self.device = _devices.take(model, on, plan)
        self.users = 0
        """Tasks that work at it."""
        self.left = False
        """Whether the run has ended, so that the last task closes it."""

    def close(self) -> None:
        """Release the device and the files."""
        _devices.give_back(self.device)
        self.image.close()


class _Devices:
    """The devices of this process; runs of one model share one, so that passes take turns."""

    def __init__(self) -> None:
        self._open: dict[tuple[Any, ...], Device] = {}
        self._users: dict[int, int] = {}

    def take(self, model: Model, on: str, plan: Plan) -> Device:
        """The device for a plan, prepared if no other run holds it."""
        key = (model.fingerprint, on, plan.precision, plan.threads, plan.runtime)
        device = self._open.get(key)
        if device is None:
            device = self._open[key] = Device(model, on, plan.precision, plan.threads, plan.runtime)
        self._users[id(device)] = self._users.get(id(device), 0) + 1
        return device

    def give_back(self, device: Device) -> None:
        """Close a device that no other run holds."""
        self._users[id(device)] -= 1
        if self._users[id(device)] == 0:
            del self._users[id(device)]
            self._open = {key: other for key, other in self._open.items() if other is not device}
            device.close()


_devices = _Devices()
_contexts: dict[str, WorkerContext] = {}
_opening = threading.Lock()


def worker_context(store: str, run_id: str, worker: Any = None) -> WorkerContext:
    """The worker_context of this process for a run, opened at the first call."""
    with _opening:
        bench = _contexts.get(run_id)
        if bench is None:
            # Benches of runs that ended go; another run of these workers keeps its own.
            for old, other in list(_contexts.items()):
                if other.state.current_run() != old:
                    _release(_contexts.pop(old))
            state = RunState(as_path(store))
            plan = state.read_plan()
            if plan is not None and state.current_run() != run_id:
                raise SupersededError(f"{store}: that run has ended, or a newer one has begun")
            name, bound = _identity(worker or _this_worker())
            device = gpu_of_worker(plan.device, name, bound=bound) if plan else None
            try:
                bench = WorkerContext(store, device)
            except InputError as error:
                address = "" if (here := worker or _this_worker()) is None else here.address
                raise UnfitWorkerError(str(error), address) from error
            _contexts[run_id] = bench
        return bench


def release_context(run_id: str) -> None:
    """Let go of what this process opened for a run; the last task does, where some run."""
    with _opening:
        if run_id in _contexts:
            _release(_contexts.pop(run_id))


def _release(bench: WorkerContext) -> None:
    bench.left = True
    if bench.users == 0:
        bench.close()


@contextmanager
def _borrowed(store: str, run_id: str) -> Iterator[WorkerContext]:
    """The worker_context, not closed as long as the task lasts."""
    bench = worker_context(store, run_id)
    with _opening:
        bench.users += 1
    try:
        yield bench
    finally:
        with _opening:
            bench.users -= 1
            if bench.left and bench.users == 0:
                bench.close()


def prepare(store: str, run_id: str, dask_worker: Any = None) -> dict[str, str]:
    """Open the worker_context, or report why this worker cannot."""
    try:
        worker_context(store, run_id, dask_worker)
    except TilepipeError as error:
        return {"error": str(error)}
    return {}


def compute_block(store: str, run_id: str, number: int, salvage: bool = False) -> BlockReport:
    """Read, segment and write one block; with ``salvage``, around what cannot be read.

    Raises
    ------
    UnreadableError
        When something in the block's windows cannot be decoded (not with ``salvage``).
    NonFiniteError
        When the network's logits are not finite.
    """
    with _borrowed(store, run_id) as bench:
        return _compute(bench, run_id, number, salvage)


def _compute(bench: WorkerContext, run_id: str, number: int, salvage: bool) -> BlockReport:
    tiling, level, coverage = bench.plan.tiling, bench.plan.image.level, bench.plan.coverage
    block, reach = tiling.block_window(number), coverage.reach(number)

    begun, begin = time.time(), time.perf_counter()
    unreadable: NDArray[np.bool_] | None = None
    valid: Validity | None
    message = ""
    if salvage:
        pixels, valid, unreadable, message = read_around(bench.image, reach, level)
    else:
        pixels, valid = read_with_valid(bench.image, reach, level)
    seen = hash_pixels(pixels, valid)
    read = time.perf_counter() - begin

    waiting = time.perf_counter()
    answer = _answer_block(bench, number, pixels, valid, reach)
    wait = max(0.0, time.perf_counter() - waiting - answer.seconds)
    lost = 0
    if unreadable is not None:
        touched = _touched(unreadable, reach, block, bench)
        inside = coverage.inside(block)
        if inside is not None:
            touched &= inside
        _silence(answer, touched)
        lost = int(touched.sum())

    begin = time.perf_counter()
    # An orphan of a dead client must not write into a later run's mask.
    if bench.state.current_run() != run_id:
        raise SupersededError(f"{bench.state.store}: a newer run has taken over")
    bench.mask.write(block, answer.mask)
    if answer.probabilities is not None:
        bench.mask.write_probabilities(block, answer.probabilities)
    bench.mask.flush(block)  # before the ledger says that it is done
    write = time.perf_counter() - begin

    counts, answered = _count(answer.mask, bench)
    return BlockReport(
        number, counts, answered, lost, read, answer.seconds, write,
        str(_identity(_this_worker())[0]), peak_memory(), message, bench.mask.stored_bytes(block),
        seen, begun, wait, bench.mask.take_seals(block),
        class_areas(answer.mask, block, bench.plan),
    )  # fmt: skip


def compute_pyramid_block(store: str, run_id: str, level: int, window: Window) -> str:
    """Write one window of a pyramid level from the level above; returns the seals of its chunks."""
    with _borrowed(store, run_id) as bench:
        if bench.state.current_run() != run_id:
            raise SupersededError(f"{store}: a newer run has taken over")
        downsample_block(bench.mask, level, window)
        bench.mask.flush(window, level)
        return bench.mask.take_seals(window, level)


def _answer_block(
    bench: WorkerContext,
    number: int,
    pixels: NDArray[Any],
    valid: Validity | None,
    reach: Window,
) -> Prediction:
    """The answers of a block's tiles put together, clipped to the block.

    Tiles that nobody asks anything of are not computed: nothing of their part of the block is both
    inside the region and ``valid`` (of the shape of ``reach``) in any band.
    """
    plan, coverage = bench.plan, bench.plan.coverage
    block = plan.tiling.block_window(number)
    whole: Prediction | None = None
    wants, submitted = plan.probabilities is not None, []
    with bench.device.submit_lock:
        # All at once: while a GPU computes one, the next is copied to it.
        for tile, part in coverage.tiles(number):
            seen = None if valid is None else valid[part.slices(reach)]
            if seen is not None and not (_within(coverage, part) & in_any_band(seen)).any():
                continue
            window = plan.tiling.window(tile).slices(reach)
            seen = None if valid is None else all_valid(valid[window])
            future = bench.device.answer(pixels[window], seen, tile.shape, wants)
            submitted.append((tile, part, future))
    seconds = 0.0
    for tile, part, future in submitted:
        answer = future.result()
        seconds += answer.seconds
        kept = part.slices(tile)
        if part == block:
            shares = answer.probabilities
            whole = Prediction(
                np.ascontiguousarray(answer.mask[(..., *kept)]),
                None if shares is None else shares[(..., *kept)],
            )
            break
        if whole is None:
            whole = _no_answer(plan, block)
        for target, own in (
            (whole.mask, answer.mask), (whole.probabilities, answer.probabilities),
        ):  # fmt: skip
            if target is not None and own is not None:
                target[(..., *part.slices(block))] = own[(..., *kept)]
    if whole is None:
        return _no_answer(plan, block)
    # Outside there is no answer, also where a tile reached further. Strip by strip, as memory is
    # planned for a block without this.
    for y in range(block.y, block.stop_y, CHUNK):
        strip = Window(y, block.x, min(CHUNK, block.stop_y - y), block.width)
        inside = coverage.inside(strip)
        if inside is not None:
            at = (..., *strip.slices(block))
            shares = None if whole.probabilities is None else whole.probabilities[at]
            _silence(Prediction(whole.mask[at], shares), ~inside)
    return Prediction(whole.mask, whole.probabilities, seconds)


def _within(coverage: Coverage, window: Window) -> NDArray[np.bool_] | np.bool_:
    """Which pixels of a window are inside the region."""
    inside = coverage.inside(window)
    return np.True_ if inside is None else inside


def _no_answer(plan: Plan, block: Window) -> Prediction:
    """A block of which nothing is known."""
    spec = plan.mask
    planes = () if spec.kind == "labels" else (spec.planes,)
    shares = None
    if plan.probabilities is not None:
        shares = np.full((len(spec.classes), *block.shape), np.nan, np.float32)
    return Prediction(np.full((*planes, *block.shape), spec.fill, spec.dtype), shares)


def _silence(answer: Prediction, where: NDArray[np.bool_]) -> None:
    """Take the answer of some pixels of a block away."""
    answer.mask[..., where] = np.nan if answer.mask.dtype.kind == "f" else NO_ANSWER
    if answer.probabilities is not None:
        answer.probabilities[..., where] = np.nan


def read_around(
    image: Image, window: Window, level: int
) -> tuple[NDArray[Any], Validity, NDArray[np.bool_], str]:
    """What can be read of a window: pixels, where they are valid, which unreadable, and why not.

    Cuts what fails along the borders of the image's chunks, then in halves, until it is read or no
    larger than `SMALLEST_PIECE`. Pixels that cannot be read are 0 and not valid, so that they enter
    the network as nodata does.
    """
    pixels = np.zeros((*window.shape, image.bands), image.dtype)
    valid: Validity = np.ones((*window.shape, 1), np.bool_)
    unreadable = np.zeros(window.shape, np.bool_)
    message = ""
    pieces = [window]
    while pieces:
        piece = pieces.pop()
        try:
            pixels[piece.slices(window)], seen = read_with_valid(image, piece, level)
            if seen is not None:
                if seen.shape[2] > valid.shape[2]:
                    valid = valid.repeat(seen.shape[2], axis=2)
                valid[piece.slices(window)] = seen
        except UnreadableError as error:
            message = message or str(error)
            if parts := _cut(image, piece, level):
                pieces += parts
            else:
                unreadable[piece.slices(window)] = True
    return pixels, valid & ~unreadable[..., None], unreadable, message


def hash_pixels(pixels: NDArray[Any], valid: Validity | None) -> str:
    """A hash of what was read of a window, 16 hexadecimal digits."""
    digest = hashlib.blake2b(
        np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data, digest_size=8
    )
    if valid is not None and not valid.all():
        digest.update(np.packbits(valid).data)
    return digest.hexdigest()


def _cut(image: Image, piece: Window, level: int) -> list[Window]:
    """A piece in two: along a border of chunks, so that one of them costs no other; else halves."""
    size, chunk = image.levels[level], image.chunks[level]
    across = _border(piece.y, piece.stop_y, size.height, chunk[0])
    if across is not None:
        above = Window(piece.y, piece.x, across - piece.y, piece.width)
        return [above, Window(across, piece.x, piece.stop_y - across, piece.width)]
    down = _border(piece.x, piece.stop_x, size.width, chunk[1])
    if down is not None:
        left = Window(piece.y, piece.x, piece.height, down - piece.x)
        return [left, Window(piece.y, down, piece.height, piece.stop_x - down)]
    return _halves(piece) if max(piece.shape) > SMALLEST_PIECE else []


def _border(start: int, stop: int, size: int, chunk: int) -> int | None:
    """The border of chunks nearest the middle of a range, mirrored outside the image, or None."""
    inside = range(chunk, size, chunk)
    last = 2 * (size - 1)
    lines = [*inside, *(1 - line for line in inside), *(last + 1 - line for line in inside)]
    found = [line for line in lines if start < line < stop]
    return min(found, key=lambda line: abs(2 * line - start - stop), default=None)


def _halves(piece: Window) -> list[Window]:
    if piece.height >= piece.width:
        half = piece.height // 2
        return [
            Window(piece.y, piece.x, half, piece.width),
            Window(piece.y + half, piece.x, piece.height - half, piece.width),
        ]
    half = piece.width // 2
    return [
        Window(piece.y, piece.x, piece.height, half),
        Window(piece.y, piece.x + half, piece.height, piece.width - half),
    ]


def _touched(
    unreadable: NDArray[np.bool_], reach: Window, block: Window, bench: WorkerContext
) -> NDArray[np.bool_]:
    """Outputs of a block that depend on unreadable pixels: those within the margin of one."""
    geometry = bench.plan.tiling.geometry
    spread = geometry.margin + geometry.stride_factor
    # A square dilation by running sums, rows first: exact, and independent of its size.
    grown = unreadable
    for axis in (0, 1):
        grown = _dilate(grown, spread, axis)
    # What is read may not hold all of the block, where the region does not.
    touched = np.zeros(block.shape, np.bool_)
    common = block.intersect(reach)
    if common is not None:
        touched[common.slices(block)] = grown[common.slices(reach)]
    return touched


def _dilate(mask: NDArray[np.bool_], distance: int, axis: int) -> NDArray[np.bool_]:
    length = mask.shape[axis]
    sums = np.concatenate(
        [np.zeros_like(mask.take([0], axis), np.int32), mask.cumsum(axis, dtype=np.int32)], axis
    )
    index = np.arange(length)
    high = np.minimum(index + distance + 1, length)
    low = np.maximum(index - distance, 0)
    return np.asarray(sums.take(high, axis) > sums.take(low, axis))


def _count(mask: NDArray[Any], bench: WorkerContext) -> tuple[tuple[int, ...], int]:
    kind = bench.plan.mask.kind
    if kind == "labels":
        # Strip by strip: bincount makes eight bytes of each label.
        counts = np.zeros(NO_ANSWER + 1, np.int64)
        for row in range(0, len(mask), 64):
            counts += np.bincount(mask[row : row + 64].ravel(), minlength=NO_ANSWER + 1)
        classes = tuple(int(c) for c in counts[: len(bench.plan.mask.classes)])
        return classes, int(mask.size - counts[NO_ANSWER])
    if kind == "planes":
        return (
            tuple(int((plane == 1).sum()) for plane in mask),
            int((mask[0] != NO_ANSWER).sum()),
        )
    answered = [int((~np.isnan(plane)).sum()) for plane in mask]
    return tuple(answered), answered[0]


def _this_worker() -> Any:
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _identity(worker: Any) -> tuple[Any, bool]:
    """The name of a Dask worker, and whether dask-cuda bound it to a GPU."""
    if worker is None:
        return 0, False
    plugins = worker.plugins.values()
    return worker.name, any(type(p).__module__.startswith("dask_cuda") for p in plugins)
