"""The stages that make objects of a mask, and files of them.

What they do is imported when they do it, as most runs make no objects.
"""

from __future__ import annotations

from collections.abc import Iterable

from tilepipe.engine.run.stage import FileStage, OpenRun
from tilepipe.storage import StoragePath


class Objects(FileStage):
    """Numbers, outlines and measures the objects of the mask, within its store."""

    name = "objects"
    clock = "objects"

    def paths(self, run: OpenRun) -> Iterable[StoragePath]:
        """One, or none."""
        return [] if run.plan.objects is None else [run.outputs.objects]

    def write(self, run: OpenRun, path: StoragePath) -> str:
        """Make the objects, or go on where an earlier run was stopped."""
        from tilepipe.engine.run.object_work import make_objects

        return make_objects(run, path)


class ObjectExports(FileStage):
    """Writes a file of the objects for each output that holds them."""

    name = "object exports"
    clock = "exports"

    def paths(self, run: OpenRun) -> Iterable[StoragePath]:
        """The files that are made of the mask's objects."""
        return run.outputs.object_exports

    def write(self, run: OpenRun, path: StoragePath) -> str:
        """Write one file."""
        from tilepipe.engine.run.object_work import write_export

        return write_export(run, path)
