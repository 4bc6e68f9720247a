"""A block on a worker: read a window, run the model, write whole chunks.

A task carries coordinates only. What it needs is opened once per process (`WorkerContext`).
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.events import BlockReport
from tilepipe.engine.hardware import peak_memory
from tilepipe.engine.plan.coverage import Coverage
from tilepipe.engine.state.coarser import own_parts
from tilepipe.engine.work.areas import class_areas
from tilepipe.engine.work.context import WorkerContext, borrowed, identity, this_worker
from tilepipe.engine.work.device import Prediction
from tilepipe.engine.work.salvage import affected, read_readable
from tilepipe.grid import CHUNK, Patch, Window, WindowGrid
from tilepipe.images import read_with_valid
from tilepipe.images.validity import Validity, all_valid, in_any_band
from tilepipe.products.product import Product
from tilepipe.products.pyramid import downsample_block, write_parts

STRIP_ROWS = 64
"""Rows that are counted at a time: counting takes eight bytes per pixel."""


def compute_block(store: str, run_id: str, number: int, salvage: bool = False) -> BlockReport:
    """Read, segment and write one block.

    Raises
    ------
    UnreadableError
        When part of the block cannot be decoded; with ``salvage``, it gets no answer instead.
    NonFiniteError
        When the network's logits are not finite.
    """
    with borrowed(store, run_id) as context:
        return _compute(context, run_id, number, salvage)


def compute_pyramid_block(store: str, run_id: str, level: int, window: Window) -> str:
    """Write one window of a pyramid level from the finer one; returns the seals of its chunks."""
    with borrowed(store, run_id) as context:
        context.require_current(run_id)
        downsample_block(context.mask, level, window)
        context.mask.flush(window, level)
        return context.mask.take_seals(window, level)


def hash_pixels(pixels: NDArray[Any], valid: Validity | None) -> str:
    """A hash of the pixels that were read for a block, 16 hexadecimal digits."""
    digest = hashlib.blake2b(
        np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data, digest_size=8
    )
    if valid is not None and not valid.all():
        digest.update(np.packbits(valid).data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The pixels that were read for a block."""

    values: NDArray[Any]
    valid: Validity | None
    unreadable: NDArray[np.bool_] | None
    """Pixels that could not be decoded; None if all could."""
    message: str
    """Why they could not be decoded."""

    @classmethod
    def read(cls, context: WorkerContext, window: Window, *, salvage: bool) -> _Pixels:
        level = context.plan.image.level
        if salvage:
            return cls(*read_readable(context.image, window, level))
        return cls(*read_with_valid(context.image, window, level), None, "")


def _compute(context: WorkerContext, run_id: str, number: int, salvage: bool) -> BlockReport:
    plan, mask = context.plan, context.mask
    block, reach = plan.tiling.block_window(number), plan.coverage.reach(number)
    begun, begin = time.time(), time.perf_counter()
    pixels = _Pixels.read(context, reach, salvage=salvage)
    read = time.perf_counter() - begin

    begin = time.perf_counter()
    submitted = _submit_block(context, number, pixels, reach)
    # While the device computes.
    pixels_hash = hash_pixels(pixels.values, pixels.valid)
    answer = _collect_block(context, block, submitted)
    wait = max(0.0, time.perf_counter() - begin - answer.seconds)
    lost = _clear_unreadable(context, block, reach, pixels, answer)

    waiting = time.perf_counter()
    with context.writing:
        begin = time.perf_counter()
        # An orphan of a dead client must not write into a later run's mask.
        context.require_current(run_id)
        mask.write(block, *answer.arrays)
        mask.flush(block)  # before the ledger records the block as done
        coarser = _write_coarser(context, number, answer)
        write = time.perf_counter() - begin
    wait += begin - waiting

    counts, answered = _count(mask.spec.product, answer.mask, len(mask.spec.classes))
    return BlockReport(
        number=number, counts=counts, answered=answered, unreadable=lost, read=read,
        compute=answer.seconds, write=write, worker=str(identity(this_worker())[0]),
        peak=peak_memory(), message=pixels.message, chunk_bytes=mask.stored_bytes(block),
        pixels_hash=pixels_hash, begin=begun, wait=wait, chunks=mask.take_seals(block),
        areas=class_areas(answer.mask, block, plan), coarser=coarser,
    )  # fmt: skip


def _write_coarser(context: WorkerContext, number: int, answer: Prediction) -> tuple[str, ...]:
    """Write the coarser chunks that depend on a block alone; returns their seals by level."""
    mask, parts = context.mask, own_parts(context.plan, number)
    write_parts(mask, parts, answer.arrays)
    for level, part in enumerate(parts, 1):
        mask.flush(part, level)
    return tuple(mask.take_seals(part, level) for level, part in enumerate(parts, 1))


def _clear_unreadable(
    context: WorkerContext, block: Window, reach: Window, pixels: _Pixels, answer: Prediction
) -> int:
    """Clear the answers that depend on unreadable pixels, and return how many pixels that is."""
    if pixels.unreadable is None:
        return 0
    cleared = affected(pixels.unreadable, reach, block, context.plan)
    inside = context.plan.coverage.inside(block)
    if inside is not None:
        cleared &= inside
    _clear(context.products, answer.arrays, cleared)
    return int(cleared.sum())


Submitted = list[tuple[Patch, "Future[Prediction]"]]
"""Tiles of a block that are computed."""


def _submit_block(context: WorkerContext, number: int, pixels: _Pixels, reach: Window) -> Submitted:
    """Submit a block's tiles to the device.

    A tile is skipped if no pixel that it is used for is in the region and valid in some band.
    """
    valid, coverage, products = pixels.valid, context.plan.coverage, context.products
    submitted: Submitted = []
    with context.device.submit_lock:
        # All at once: while a GPU computes one, the next is copied to it.
        for patch in coverage.patches(number):
            there = None if valid is None else valid[patch.use.slices(reach)]
            if there is not None and not (_within(coverage, patch.use) & in_any_band(there)).any():
                continue
            window = patch.read.slices(reach)
            there = None if valid is None else all_valid(valid[window])
            future = context.device.answer(pixels.values[window], there, patch.keep.shape, products)
            submitted.append((patch, future))
    return submitted


def _collect_block(context: WorkerContext, block: Window, submitted: Submitted) -> Prediction:
    """The predictions of a block's tiles, put together and clipped to the block."""
    coverage, products = context.plan.coverage, context.products
    classes = len(context.plan.mask.classes)
    if len(submitted) == 1 and submitted[0][0].use == block:
        patch, future = submitted[0]
        answer = future.result()
        used = patch.use.slices(patch.keep)
        arrays = tuple(np.ascontiguousarray(array[(..., *used)]) for array in answer.arrays)
        seconds = answer.seconds
    else:
        arrays = tuple(product.nothing(classes, block.shape) for product in products)
        seconds = 0.0
        for patch, future in submitted:
            answer = future.result()
            seconds += answer.seconds
            for whole, own in zip(arrays, answer.arrays, strict=True):
                whole[(..., *patch.use.slices(block))] = own[(..., *patch.use.slices(patch.keep))]
    # Outside the region there is no answer, even where a tile reached further. Strip by strip,
    # because the plan's memory has no room for a whole block of this.
    for strip in WindowGrid(block, (CHUNK, block.width)):
        inside = coverage.inside(strip)
        if inside is not None:
            at = (..., *strip.slices(block))
            _clear(products, tuple(array[at] for array in arrays), ~inside)
    return Prediction(arrays, seconds)


def _within(coverage: Coverage, window: Window) -> NDArray[np.bool_] | np.bool_:
    """The pixels of a window that are inside the region."""
    inside = coverage.inside(window)
    return np.True_ if inside is None else inside


def _clear(
    products: tuple[Product, ...], arrays: tuple[NDArray[Any], ...], where: NDArray[np.bool_]
) -> None:
    """Clear the answers of some pixels."""
    for product, array in zip(products, arrays, strict=True):
        array[..., where] = product.fill


def _count(product: Product, stored: NDArray[Any], classes: int) -> tuple[tuple[int, ...], int]:
    """The numbers of pixels of each class, and of pixels with an answer."""
    counts, answered = np.zeros(classes, np.int64), 0
    for row in range(0, stored.shape[-2], STRIP_ROWS):
        strip = stored[..., row : row + STRIP_ROWS, :]
        counts += product.sums(strip, classes)
        unanswered = product.unanswered(strip if product.flat else strip[0])
        answered += int(unanswered.size - np.count_nonzero(unanswered))
    return tuple(counts.tolist()), answered
