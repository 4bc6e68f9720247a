"""The stages that write the mask on the image's grid, and in other formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tilepipe.engine.plan.plan import nearest_of
from tilepipe.engine.run.stage import OpenRun, Stage, Step
from tilepipe.products.formats import export
from tilepipe.products.image_labels import list_label
from tilepipe.products.like_image import write_like_image
from tilepipe.products.with_image import write_with_image
from tilepipe.storage import size_of


class Resample(Stage):
    """Writes the mask on the grid of the image's level 0, with `--like-image` or as its label."""

    name = "resample"
    clock = "exports"

    def steps(self, run: OpenRun) -> Iterable[Step]:
        """One step, or none."""
        if run.outputs.on_image_grid is not None:
            yield self.file_step(run, run.outputs.on_image_grid)

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Write the resampled mask."""
        spec, outputs = run.plan.like_image, run.outputs
        target = outputs.on_image_grid
        assert spec is not None, "otherwise there is no step"
        assert target is not None, "otherwise there is no step"
        nearest = nearest_of(run.planned_image, run.plan)
        if outputs.with_image is not None:
            content = write_with_image(
                run.mask, target, spec, nearest, run.image, memory_limit=run.options.memory
            )
        else:
            content = write_like_image(run.mask, target, spec, nearest)
            if outputs.label is not None:
                list_label(outputs.label)
        return {"bytes": size_of(target), "hash": content}


class Exports(Stage):
    """Writes a file for each output that is not the OME-Zarr mask itself."""

    name = "exports"
    clock = "exports"

    def steps(self, run: OpenRun) -> Iterable[Step]:
        """A step for each file."""
        for path in run.outputs.mask_exports:
            yield self.file_step(run, path)

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Write one file."""
        path = next(p for p in run.outputs.mask_exports if run.outputs.name_of(p) == step.key)
        content = export(run.result, path, run.image, channels=run.plan.channels)
        return {"bytes": size_of(path), "hash": content}
