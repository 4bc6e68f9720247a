"""The stage that writes STAC items: where on the Earth the outputs of a run lie."""

from __future__ import annotations

from collections.abc import Iterable

from tilepipe.engine.run.stage import FileStage, OpenRun
from tilepipe.storage import StoragePath, is_url
from tilepipe.storage.hashing import hash_of


class Items(FileStage):
    """Writes STAC items, which list all other outputs as their assets."""

    name = "items"
    clock = "exports"

    def paths(self, run: OpenRun) -> Iterable[StoragePath]:
        """The items that the user wants."""
        return run.outputs.items

    def write(self, run: OpenRun, path: StoragePath) -> str:
        """Write one item."""
        from tilepipe.objects.formats.stac import acquisition_date, write_stac_item

        outputs, image = run.outputs, run.plan.image.path
        listed = [each for each in outputs.requested if each not in outputs.items]
        date = None if is_url(image) else acquisition_date(image)
        write_stac_item(listed, run.result.grid, run.model, path, date=date)
        return hash_of(path)
