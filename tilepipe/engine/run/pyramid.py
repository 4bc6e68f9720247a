"""The stages that complete the mask: its coarser levels, and what depends on all values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tilepipe.engine.run.stage import OpenRun, Stage, Step
from tilepipe.engine.work.block import compute_pyramid_block
from tilepipe.products.pyramid import pyramid_blocks
from tilepipe.products.ranges import write_ranges
from tilepipe.storage.hashing import ABSENT


class Pyramid(Stage):
    """Computes each level from the finer one, on the workers, window by window.

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
        plan, mask, level = run.plan, run.mask, int(step.key)
        computed = None
        if plan.region is not None:
            computed = [plan.tiling.block_window(number) for number in plan.coverage]
        windows = pyramid_blocks(mask, computed)[level]
        seals: dict[str, str] = {}
        for outcome in run.compute(compute_pyramid_block, ((level, w) for w in windows)):
            keys = mask.chunk_keys(outcome.task.label[1], level)
            seals.update(zip(keys, outcome.value.split(" "), strict=True))
        # Windows outside the region are not written.
        chunks = " ".join(seals.get(key, ABSENT) for key in mask.chunk_keys(level=level))
        return {"bytes": mask.stored_bytes(level=level), "chunks": chunks}


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
