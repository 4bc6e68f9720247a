"""The chunks of a mask's coarser levels that were written together with blocks."""

from __future__ import annotations

from contextlib import suppress

from tilepipe.engine.events import BlockReport
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.storage import StoragePath


def written_with_blocks(path: StoragePath, level: int) -> dict[int, str]:
    """The seals of a level's chunks that were written with each block, by the block's number.

    Only of those to which nothing has happened since, as far as the ledger tells.
    """
    found: dict[int, str] = {}
    for record in read_ledger(path):
        # Records of another form are ignored, as in `Progress`.
        with suppress(ValueError, KeyError, TypeError):
            if record["kind"] == "block":
                report = BlockReport.from_record(record)
                found.pop(report.number, None)
                if level <= len(report.coarser):
                    found[report.number] = report.coarser[level - 1]
            elif record["kind"] in ("changed", "damaged") and "name" not in record:
                if "number" in record:
                    found.pop(record["number"], None)
                elif record.get("level", 1) <= level:
                    found.clear()
    return found
