"""The stages that complete the mask: its coarser levels, and what depends on all values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tilepipe.engine.run.stage import OpenRun, Stage, Step
from tilepipe.engine.state.coarser import own_parts, written_with_blocks
from tilepipe.engine.work.block import compute_pyramid_block
from tilepipe.grid import Window
from tilepipe.products.pyramid import pyramid_blocks
from tilepipe.products.ranges import write_ranges
from tilepipe.products.sealed import damaged_chunks
from tilepipe.storage.hashing import ABSENT


class Pyramid(Stage):
    """Computes what the blocks have not written of each level, from the finer one, on the workers.

    It has no steps with `--like-image`: the resampled mask has its own pyramid.
    """

    name = "pyramid"
    clock = "pyramid"

    def steps(self, run: OpenRun) -> Iterable[Step]:
        """A step for each level."""
        if run.plan.like_image is not None:
            return
        for level in range(1, len(run.mask.levels)):
            record = {"kind": "level", "level": level}
            yield Step(level, f"pyramid level {level}", record)

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Write one level."""
        mask, level = run.mask, int(step.key)
        seals, computed = _by_blocks(run, level)
        # Units that hold a block's part of the level, unless it is there already.
        windows = pyramid_blocks(mask, computed)[level]
        for outcome in run.compute(compute_pyramid_block, ((level, w) for w in windows)):
            keys = mask.chunk_keys(outcome.task.label[1], level)
            seals.update(zip(keys, outcome.value.split(" "), strict=True))
        # Windows outside the region are not written.
        chunks = " ".join(seals.get(key, ABSENT) for key in mask.chunk_keys(level=level))
        return {"bytes": mask.stored_bytes(level=level), "chunks": chunks}


def _by_blocks(run: OpenRun, level: int) -> tuple[dict[str, str], list[Window]]:
    """The seals of a level's chunks that blocks have written, and the windows of other blocks.

    Chunks are read back, because an earlier run may have written them.
    """
    plan, mask = run.plan, run.mask
    windows = {number: plan.tiling.block_window(number) for number in plan.coverage}
    parts = {number: own_parts(plan, number) for number in windows}
    if any(len(own) < level for own in parts.values()):
        return {}, list(windows.values())
    run.ledger.flush()
    seals = written_with_blocks(run.ledger.path, level)
    there = [(n, own[level - 1], level, seals[n]) for n, own in parts.items() if n in seals]
    lost = {number for number, _ in damaged_chunks(mask, there)}
    found: dict[str, str] = {}
    for number, part, _, sealed in there:
        if number not in lost:
            found.update(zip(mask.chunk_keys(part, level), sealed.split(" "), strict=True))
            del windows[number]
    return found, list(windows.values())


class Ranges(Stage):
    """Stores the range of values that viewers show, of a mask of values.

    It has no steps with `--like-image`: the resampled mask has its own ranges.
    """

    name = "ranges"
    clock = "pyramid"

    def steps(self, run: OpenRun) -> Iterable[Step]:
        """One step, or none."""
        if run.plan.like_image is None and not run.plan.mask.product.has_classes:
            yield self.step("shown", "range of values")

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Write the ranges of all planes."""
        write_ranges(run.mask)
        return {}
