"""The fastest window that fits the memory."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.coverage import Coverage, can_be_framed
from tilepipe.engine.plan.plan import ImageFacts
from tilepipe.engine.planning.cost import PassCost
from tilepipe.engine.planning.memory import MemoryModel
from tilepipe.engine.resources import Resources
from tilepipe.errors import InputError
from tilepipe.grid import (
    CHUNK,
    LARGEST_BLOCK,
    Geometry,
    Tiling,
    candidate_tilings,
    paper_tiling,
    round_up,
)
from tilepipe.images.source import TooLargeError
from tilepipe.regions.cells import Region
from tilepipe.text import gigabytes

if TYPE_CHECKING:
    from tilepipe.models.specs import Model


LARGEST_KEEP = 2048
"""Larger windows would save at most 9 % of the work, and make progress coarse."""
USUAL_BLOCK = 2048
"""Side up to which several windows share a block."""
BLOCKS_EACH = 8
"""The fewest blocks of a worker for which windows share one."""


def check_room(
    model: Model, facts: ImageFacts, memory: MemoryModel, limit: int, resources: Resources
) -> None:
    """Raise InputError if not even the smallest window fits the memory limit.

    It is a `TooLargeError` if the image's own tiles or strips are too large.
    """
    least = smallest(model, facts)
    if not memory.fits(least, limit):
        raise _no_room(facts, least, memory, limit, resources)


def smallest(model: Model, facts: ImageFacts) -> Tiling:
    """The tiling that needs the least memory."""
    size, geometry = (facts.height, facts.width), model.geometry
    if model.predictor.fixed:
        return paper_tiling(*size, geometry, geometry.input)
    return min(
        candidate_tilings(*size, geometry, LARGEST_KEEP),
        key=lambda t: t.input[0] * t.input[1] + t.block[0] * t.block[1],
    )


def _no_room(
    facts: ImageFacts, smallest: Tiling, memory: MemoryModel, limit: int, resources: Resources
) -> InputError:
    needs = f"{memory.needs(smallest)}, and --memory is {gigabytes(limit)}"
    rows, columns = memory.chunk
    decoding = resources.slots * (resources.workers if resources.local else 1) * memory.decoding()
    if rows * columns > CHUNK * CHUNK and memory.total(smallest) - decoding <= limit:
        return TooLargeError(
            f"{facts.path} can only be decoded {columns} x {rows} pixels (width x height) at a "
            f"time, for which a run needs {needs}; convert it to a chunked image first: tilepipe "
            f"convert {facts.path} IMAGE.ome.zarr"
        )
    height, width = smallest.input
    return InputError(
        f"{facts.path}: the smallest window, {width} x {height} (width x height), needs {needs}; "
        "allow that much" + (", or use fewer --workers" if resources.workers > 1 else "")
    )


def choose_tiling(
    model: Model,
    facts: ImageFacts,
    memory: MemoryModel,
    limit: int,
    options: RunOptions,
    resources: Resources,
    region: Region | None = None,
    *,
    framed: bool = True,
    cost: PassCost | None = None,
) -> Tiling:
    """The given window, or the exact one whose passes take the least time and fit the memory.

    In a region, tiles count that touch it. With ``framed``, tiles are cut to the region, and the
    window is the largest of them. ``cost`` is that of a pass; None: a guess.

    Raises InputError when the given window is invalid, or nothing fits; the message says what
    would.
    """
    geometry, size = model.geometry, (facts.height, facts.width)
    if options.window != "auto":
        return _given_tiling(model, facts, memory, limit, options.window)
    if model.predictor.fixed:
        return _given_tiling(model, facts, memory, limit, geometry.input)
    cost = cost or PassCost.guess(geometry.shrink)
    if region is not None and framed:
        found = _framing(
            size, geometry, region, resources.workers, lambda t: memory.fits(t, limit), cost
        )
        if found is not None:
            return found
    ranked = _ranked if region is None else _ranked.__wrapped__
    for tiling in ranked(size, geometry, region, resources.workers, cost):
        if memory.fits(tiling, limit):
            blocks = [tiling] if region is not None else _larger_blocks(tiling, resources.workers)
            return next((each for each in blocks if memory.fits(each, limit)), tiling)
    raise _no_room(facts, smallest(model, facts), memory, limit, resources)


@lru_cache(maxsize=8)  # images of a batch are often of one size
def _ranked(
    size: tuple[int, int],
    geometry: Geometry,
    region: Region | None,
    workers: int,
    cost: PassCost,
) -> list[Tiling]:
    """The tilings of an image of this size, those with the least time first."""
    return sorted(
        candidate_tilings(*size, geometry, LARGEST_KEEP),
        key=lambda t: (_makespan(t, region, workers, cost), t.input, t.block),
    )


def _larger_blocks(tiling: Tiling, workers: int) -> Iterator[Tiling]:
    """The same windows in blocks of several, the largest first: less is read more than once.

    There remain so many blocks that each worker has a few, to read one while it computes another.
    """
    times = product(*(range(1, USUAL_BLOCK // side + 1) for side in tiling.block))
    for down, across in sorted(times, key=lambda each: -each[0] * each[1]):
        block = tiling.block[0] * down, tiling.block[1] * across
        larger = replace(tiling, block=block)
        enough = len(larger) >= BLOCKS_EACH * workers
        if enough and larger.forward_passes == tiling.forward_passes:
            yield larger


def _given_tiling(
    model: Model, facts: ImageFacts, memory: MemoryModel, limit: int, side: int
) -> Tiling:
    """The tiling with windows of ``side`` pixels; InputError if it is invalid or does not fit."""
    geometry = model.geometry
    if model.predictor.fixed and side != geometry.input:
        raise InputError(
            f"window {side}: model {model.name} is used with windows of {geometry.input} only; "
            "leave --window out"
        )
    if not geometry.is_valid(side):
        nearest = geometry.input_for(max(geometry.stride_factor, geometry.kept(side)))
        raise InputError(
            f"window {side}: model {model.name} takes {geometry.smallest_input} and every "
            f"{geometry.stride_factor} pixels more; the nearest below is {nearest}"
        )
    tiling = paper_tiling(facts.height, facts.width, geometry, side)
    if not memory.fits(tiling, limit):
        raise InputError(
            f"window {side}: needs {memory.needs(tiling)}, and --memory is {gigabytes(limit)}; "
            "allow more memory, or leave the window to tilepipe (--window auto)"
        )
    return tiling


def _makespan(tiling: Tiling, region: Region | None, workers: int, cost: PassCost) -> float:
    """Seconds of the busiest worker: with few blocks, some workers would be idle."""
    blocks = Coverage(tiling, region)
    passes = cost.total(blocks.windows) / len(blocks) * -(-len(blocks) // workers)
    return passes + cost.fresh(blocks.windows)


def _framing(
    size: tuple[int, int],
    geometry: Geometry,
    region: Region,
    workers: int,
    fits: Callable[[Tiling], bool],
    cost: PassCost,
) -> Tiling | None:
    """The blocks and largest window with the least time on a region; None if nothing fits.

    Tiles are cut to the region within each block, so the window, which only bounds them, may be as
    large as fits, and only the block is left to choose.
    """
    chosen, best = None, math.inf
    tops = [min(LARGEST_KEEP, round_up(n, region.cell)) for n in size]
    for side in range(CHUNK, round_up(min(max(size), LARGEST_BLOCK), CHUNK) + 1, CHUNK):
        block = min(side, round_up(size[0], CHUNK)), min(side, round_up(size[1], CHUNK))
        most = min(block[0], tops[0]), min(block[1], tops[1])
        sides = range(region.cell, max(most) + 1, region.cell)
        tilings = [
            Tiling(*size, block, (min(keep, most[0]), min(keep, most[1])), geometry)
            for keep in sides
        ]
        tilings = [tiling for tiling in tilings if can_be_framed(region, tiling)]
        fitting = bisect_left(tilings, True, key=lambda tiling: not fits(tiling))
        if fitting:
            coverage = Coverage(tilings[fitting - 1], region, framed=True)
            rounds = -(-len(coverage) // workers) / len(coverage)
            # Or the worker that has the most expensive block.
            rounds = max(rounds, coverage.most_work / coverage.work)
            span = cost.total(coverage.windows) * rounds + cost.fresh(coverage.windows)
            if span < best:
                chosen, best = tilings[fitting - 1], span
    return chosen
