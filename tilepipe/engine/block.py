"""The unit of work, on the worker's side: read a window, run the model, write whole chunks.

A task carries coordinates only. Image, model and mask are opened once per process and kept in a
`Workbench`.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.device import Answer, Device, environment, own_device, runtime
from tilepipe.engine.plan import Plan, as_planned, check_environment
from tilepipe.engine.state import RunState
from tilepipe.errors import (
    InputError,
    SurroundingsError,
    TilepipeError,
    UnfitWorkerError,
    UnreadableError,
)
from tilepipe.grid import Window
from tilepipe.images import Image, open_image, read_with_valid
from tilepipe.masks.base import NO_ANSWER
from tilepipe.masks.pyramid import downsample_block
from tilepipe.masks.store import ZarrMask, open_zarr_mask
from tilepipe.models.file import load_model

SMALLEST_PIECE = 64
"""Where a window cannot be read, it is halved down to pieces of this many pixels a side."""


class SupersededError(SurroundingsError):
    """A newer run of the same output has begun; this task belongs to a dead one."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a block's task reports; small, whatever the block."""

    number: int
    counts: tuple[int, ...]
    """Pixels of each class (of each plane: pixels that are 1; of values: pixels with an answer)."""
    answered: int
    """Pixels with an answer."""
    unreadable: int
    """Pixels that stayed 255 because they, or what they depend on, could not be read."""
    read: float
    """Seconds."""
    compute: float
    """Seconds on the device, without waiting for it."""
    write: float
    worker: str
    peak: int
    """Bytes of memory that the worker's process had taken at most."""
    message: str = ""
    """What could not be read, where something could not."""

    def to_record(self) -> dict[str, Any]:
        """The receipt as a ledger record."""
        return {"kind": "block", **asdict(self)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Receipt:
        """The receipt that a ledger record holds."""
        fields = {k: v for k, v in record.items() if k != "kind"}
        return cls(**{**fields, "counts": tuple(fields["counts"])})


class Workbench:
    """What one process opens once: the plan, the image, the model on its device, the mask."""

    def __init__(self, store: str, device: str | None = None) -> None:
        self.state = RunState(Path(store))
        plan = self.state.read_plan()
        if plan is None:
            raise InputError(
                f"{store}: this worker does not see the output; it must be on a disk that the "
                "client and all workers share, under the same path"
            )
        self.plan: Plan = plan
        self.image: Image = as_planned(open_image(plan.image.path), plan.image)
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
        self.mask: ZarrMask = open_zarr_mask(Path(store))
        on = device or plan.device
        if not self.state.allows_mixed():
            check_environment(plan, environment(on, plan.threads) | runtime(model))
        self.device = Device(model, on, plan.precision, plan.threads)
        self.users = 0
        """Tasks that work at it."""
        self.left = False
        """Whether the run has ended, so that the last task closes it."""

    def close(self) -> None:
        """Release the device and the files."""
        self.device.close()
        self.image.close()


_benches: dict[str, Workbench] = {}
_opening = threading.Lock()


def workbench(store: str, run_id: str, worker: Any = None) -> Workbench:
    """The workbench of this process for a run, opened at the first call."""
    with _opening:
        bench = _benches.get(run_id)
        if bench is None:
            # Benches of runs that ended go; another run of these workers keeps its own.
            for old, other in list(_benches.items()):
                if other.state.current_run() != old:
                    _leave(_benches.pop(old))
            state = RunState(Path(store))
            plan = state.read_plan()
            if plan is not None and state.current_run() != run_id:
                raise SupersededError(f"{store}: that run has ended, or a newer one has begun")
            name, bound = _identity(worker or _this_worker())
            device = own_device(plan.device, name, bound=bound) if plan else None
            try:
                bench = Workbench(store, device)
            except InputError as error:
                address = "" if (here := worker or _this_worker()) is None else here.address
                raise UnfitWorkerError(str(error), address) from error
            _benches[run_id] = bench
        return bench


def close_workbench(run_id: str) -> None:
    """Let go of what this process opened for a run; the last task does, where some run."""
    with _opening:
        if run_id in _benches:
            _leave(_benches.pop(run_id))


def _leave(bench: Workbench) -> None:
    bench.left = True
    if bench.users == 0:
        bench.close()


@contextmanager
def _at_work(store: str, run_id: str) -> Iterator[Workbench]:
    """The workbench, not closed as long as the task lasts."""
    bench = workbench(store, run_id)
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
    """Open the workbench, or report why this worker cannot."""
    try:
        workbench(store, run_id, dask_worker)
    except TilepipeError as error:
        return {"error": str(error)}
    return {}


def compute_block(store: str, run_id: str, number: int, salvage: bool = False) -> Receipt:
    """Read, segment and write one block; with ``salvage``, around what cannot be read.

    Raises
    ------
    UnreadableError
        When something in the block's windows cannot be decoded (not with ``salvage``).
    NonFiniteError
        When the network's logits are not finite.
    """
    with _at_work(store, run_id) as bench:
        return _compute(bench, run_id, number, salvage)


def _compute(bench: Workbench, run_id: str, number: int, salvage: bool) -> Receipt:
    tiling, level = bench.plan.tiling, bench.plan.image.level
    block, reach = tiling.block_window(number), tiling.reach(number)

    begin = time.perf_counter()
    unreadable: NDArray[np.bool_] | None = None
    valid: NDArray[np.bool_] | None
    message = ""
    if salvage:
        pixels, valid, unreadable, message = read_around(bench.image, reach, level)
    else:
        pixels, valid = read_with_valid(bench.image, reach, level)
    read = time.perf_counter() - begin

    with bench.device.turn:
        begin = time.perf_counter()
        answer = _answer_block(bench, number, pixels, valid, reach)
    lost = 0
    if unreadable is not None:
        touched = _touched(unreadable, reach, block, bench)
        answer.mask[..., touched] = np.nan if answer.mask.dtype.kind == "f" else NO_ANSWER
        if answer.probabilities is not None:
            answer.probabilities[..., touched] = np.nan
        lost = int(touched.sum())
    compute = time.perf_counter() - begin

    begin = time.perf_counter()
    # An orphan of a dead client must not write into a later run's mask.
    if bench.state.current_run() != run_id:
        raise SupersededError(f"{bench.state.store}: a newer run has taken over")
    bench.mask.write(block, answer.mask)
    if answer.probabilities is not None:
        bench.mask.write_probabilities(block, answer.probabilities)
    write = time.perf_counter() - begin

    counts, answered = _count(answer.mask, bench)
    return Receipt(
        number, counts, answered, lost, read, compute, write,
        str(_identity(_this_worker())[0]), peak_memory(), message,
    )  # fmt: skip


def compute_pyramid_block(store: str, run_id: str, level: int, window: Window) -> int:
    """Write one window of a pyramid level from the level above; returns the level."""
    state = RunState(Path(store))
    if state.current_run() != run_id:
        raise SupersededError(f"{store}: a newer run has taken over")
    downsample_block(open_zarr_mask(Path(store)), level, window)
    return level


def _answer_block(
    bench: Workbench,
    number: int,
    pixels: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    reach: Window,
) -> Answer:
    """The answers of a block's tiles put together, clipped to the block."""
    tiling, wants = bench.plan.tiling, bench.plan.probabilities is not None
    block = tiling.block_window(number)
    whole: Answer | None = None
    for tile in tiling.tiles(number):
        window = tiling.window(tile)
        inside = window.slices(reach)
        kept = tile.intersect(block)
        assert kept is not None, "a tile lies in its block"
        seen = None if valid is None else valid[inside]
        if seen is not None and seen.all():
            seen = None
        answer = bench.device.answer(pixels[inside], seen, tile.shape, wants).result()
        parts = [answer.mask, answer.probabilities]
        clipped = [None if p is None else p[(..., *kept.slices(tile))] for p in parts]
        if kept == block:
            assert clipped[0] is not None
            return Answer(np.ascontiguousarray(clipped[0]), clipped[1])
        if whole is None:
            empty = [
                None if c is None else np.empty((*c.shape[:-2], *block.shape), c.dtype)
                for c in clipped
            ]
            assert empty[0] is not None
            whole = Answer(empty[0], empty[1])
        for target, part in zip((whole.mask, whole.probabilities), clipped, strict=True):
            if target is not None and part is not None:
                target[(..., *kept.slices(block))] = part
    assert whole is not None, "a block has a tile"
    return whole


def read_around(
    image: Image, window: Window, level: int
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], str]:
    """What can be read of a window: pixels, which are valid, which unreadable, the first reason.

    Halves what fails until it is read or no larger than `SMALLEST_PIECE`; pixels that cannot be
    read are 0 and not valid, so that they enter the network as nodata does.
    """
    pixels = np.zeros((*window.shape, image.bands), image.dtype)
    valid = np.ones(window.shape, np.bool_)
    unreadable = np.zeros(window.shape, np.bool_)
    message = ""
    pieces = [window]
    while pieces:
        piece = pieces.pop()
        try:
            pixels[piece.slices(window)], seen = read_with_valid(image, piece, level)
            if seen is not None:
                valid[piece.slices(window)] = seen
        except UnreadableError as error:
            message = message or str(error)
            if max(piece.shape) > SMALLEST_PIECE:
                pieces += _halves(piece)
            else:
                unreadable[piece.slices(window)] = True
    return pixels, valid & ~unreadable, unreadable, message


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
    unreadable: NDArray[np.bool_], reach: Window, block: Window, bench: Workbench
) -> NDArray[np.bool_]:
    """Outputs of a block that depend on unreadable pixels: those within the margin of one."""
    geometry = bench.plan.tiling.geometry
    spread = geometry.margin + geometry.stride_factor
    # A square dilation by running sums, rows first: exact, and independent of its size.
    grown = unreadable
    for axis in (0, 1):
        grown = _dilate(grown, spread, axis)
    return np.ascontiguousarray(grown[block.slices(reach)])


def _dilate(mask: NDArray[np.bool_], distance: int, axis: int) -> NDArray[np.bool_]:
    length = mask.shape[axis]
    sums = np.concatenate(
        [np.zeros_like(mask.take([0], axis), np.int32), mask.cumsum(axis, dtype=np.int32)], axis
    )
    index = np.arange(length)
    high = np.minimum(index + distance + 1, length)
    low = np.maximum(index - distance, 0)
    return np.asarray(sums.take(high, axis) > sums.take(low, axis))


def _count(mask: NDArray[Any], bench: Workbench) -> tuple[tuple[int, ...], int]:
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


def peak_memory() -> int:
    """Bytes of memory that this process has taken at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


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
