"""The chunks of a mask's coarser levels that are written together with blocks."""

from __future__ import annotations

from contextlib import suppress

from tilepipe.engine.events import BlockReport
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.grid import Window
from tilepipe.products.pyramid import within
from tilepipe.storage import StoragePath


def own_parts(plan: Plan, number: int) -> list[Window]:
    """The parts of levels 1, 2 ... that a block writes, because they depend on it alone.

    All blocks have parts of the same levels: of two for blocks of 2048, and of none for those of
    1536, which share chunks of level 1 with their neighbours.
    """
    if plan.like_image is not None:
        return []  # the resampled mask has its own pyramid
    levels, tiling = plan.mask.levels, plan.tiling
    # Of all blocks, the first one has the fewest: later ones may end with the image.
    fewest = len(within(tiling.block_window(0), levels))
    return within(tiling.block_window(number), levels)[:fewest]


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
