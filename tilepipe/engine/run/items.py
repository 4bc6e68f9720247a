"""The stage that writes STAC items: where on the Earth the outputs of a run lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tilepipe.engine.run.stage import OpenRun, Stage, Step
from tilepipe.storage import is_url, size_of
from tilepipe.storage.hashing import hash_of


class Items(Stage):
    """Writes STAC items, which list all other outputs as their assets."""

    name = "items"
    clock = "exports"

    def steps(self, run: OpenRun) -> Iterable[Step]:
        """A step for each item."""
        for path in run.outputs.items:
            yield self.file_step(run, path)

    def execute(self, run: OpenRun, step: Step) -> Mapping[str, Any]:
        """Write one item."""
        from tilepipe.objects.formats.stac import acquisition_date, write_stac_item

        outputs, image = run.outputs, run.plan.image.path
        path = next(p for p in outputs.items if outputs.name_of(p) == step.key)
        listed = [each for each in outputs.requested if each not in outputs.items]
        date = None if is_url(image) else acquisition_date(image)
        write_stac_item(listed, run.result.grid, run.model, path, date=date)
        return {"bytes": size_of(path), "hash": hash_of(path)}
