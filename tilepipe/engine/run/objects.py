"""The stages that make objects of a mask, and files of them.

What they do is imported when they do it, as most runs make no objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tilepipe.engine.run.stage import OpenRun, Stage, Step
from tilepipe.storage import size_of


class Objects(Stage):
    """Numbers, outlines and measures the objects of the mask, within its store."""

    name = "objects"
    clock = "objects"

    def steps(self, run: OpenRun) -> Iterable[Step]:
        """One step, or none."""
        if run.plan.objects is not None:
            yield self.file_step(run, run.outputs.objects)

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Make the objects, or go on where an earlier run was stopped."""
        from tilepipe.engine.run.object_work import make_objects

        content = make_objects(run)
        return {"bytes": size_of(run.outputs.objects), "hash": content}


class ObjectExports(Stage):
    """Writes a file of the objects for each output that holds them."""

    name = "object exports"
    clock = "exports"

    def steps(self, run: OpenRun) -> Iterable[Step]:
        """A step for each file."""
        for path in run.outputs.object_exports:
            yield self.file_step(run, path)

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Write one file."""
        from tilepipe.engine.run.object_work import write_export

        path = next(p for p in run.outputs.object_exports if run.outputs.name_of(p) == step.key)
        size, content = write_export(run, path)
        return {"bytes": size, "hash": content}
