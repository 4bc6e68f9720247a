"""The stages that write the mask on the image's grid, and in other formats."""

from __future__ import annotations

from collections.abc import Iterable

from tilepipe.engine.plan.plan import nearest_of
from tilepipe.engine.run.stage import FileStage, OpenRun
from tilepipe.products.formats import export
from tilepipe.products.image_labels import list_label
from tilepipe.products.like_image import write_like_image
from tilepipe.products.with_image import write_with_image
from tilepipe.storage import StoragePath


class Resample(FileStage):
    """Writes the mask on the grid of the image's level 0, with `--like-image` or as its label."""

    name = "resample"
    clock = "exports"

    def paths(self, run: OpenRun) -> Iterable[StoragePath]:
        """One, or none."""
        target = run.outputs.on_image_grid
        return [] if target is None else [target]

    def write(self, run: OpenRun, path: StoragePath) -> str:
        """Write the resampled mask."""
        spec, outputs = run.plan.like_image, run.outputs
        assert spec is not None, "otherwise there is no step"
        nearest = nearest_of(run.planned_image, run.plan)
        if outputs.with_image is not None:
            return write_with_image(
                run.mask, path, spec, nearest, run.image, memory_limit=run.options.memory
            )
        content = write_like_image(run.mask, path, spec, nearest)
        if outputs.label is not None:
            list_label(outputs.label)
        return content


class Exports(FileStage):
    """Writes a file for each output that is not the OME-Zarr mask itself."""

    name = "exports"
    clock = "exports"

    def paths(self, run: OpenRun) -> Iterable[StoragePath]:
        """The files that are made of the mask's pixels."""
        return run.outputs.mask_exports

    def write(self, run: OpenRun, path: StoragePath) -> str:
        """Write one file."""
        return export(run.result, path, run.image, channels=run.plan.channels)
