"""An image that was repaired between two runs: which blocks it leaves as they are.

A repair changes the image's fingerprint, and so would have the run refused as one of another
image. But every block's receipt holds a hash of the pixels that the block read. Where parts of the
image could not be read, the image is read once more and compared: what is the same stays, and what
is not is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tilepipe.engine.block import Receipt, hash_pixels
from tilepipe.engine.ledger import Ledger, read_ledger
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan import Plan, as_planned, image_facts
from tilepipe.engine.progress import Progress
from tilepipe.engine.record import Watch
from tilepipe.engine.scale import choose_scale
from tilepipe.engine.state import RunState
from tilepipe.errors import UnreadableError
from tilepipe.images import Image, read_with_valid
from tilepipe.models.file import Model

AT_ONCE = 3
"""Blocks that are read at a time, as a worker has in hand."""


def adopt_repaired(
    plan: Plan, state: RunState, options: RunOptions, image: Image, model: Model, watch: Watch
) -> Plan:
    """The plan for the image as it is now, where it is the run's image, repaired.

    Otherwise the plan as it is. Blocks whose pixels have changed are forgotten in the ledger; if
    they are more than half of those compared, this is another image, and nothing is forgotten.
    """
    fingerprint = image.fingerprint()
    if fingerprint == plan.image.fingerprint:
        return plan
    facts = image_facts(image, choose_scale(image, model, options))
    if replace(facts, path="", fingerprint="") != replace(plan.image, path="", fingerprint=""):
        return plan
    progress = Progress.from_ledger(state.ledger_file)
    if not progress.partial:
        return plan
    watch.stage("comparing the image, which has changed, with what was read of it")
    records = (r for r in read_ledger(state.ledger_file) if r["kind"] == "block")
    receipts = {receipt.number: receipt for receipt in map(Receipt.from_record, records)}
    sound = [receipt for receipt in receipts.values() if progress.is_done(receipt.number)]
    changed = list(_changed(as_planned(image, plan.image), plan, sound))
    if 2 * len(changed) > len(sound):
        return plan
    adopted = replace(plan, image=replace(plan.image, fingerprint=fingerprint))
    with state.locked():
        # The ledger first: stopped in between, all is compared again.
        with Ledger(state.ledger_file) as ledger:
            for number in changed:
                ledger.append({"kind": "changed", "number": number})
        state.freeze(adopted)
    return adopted


def _changed(image: Image, plan: Plan, receipts: list[Receipt]) -> Iterator[int]:
    """The blocks whose pixels are not, or cannot be shown to be, what they were."""

    def same(receipt: Receipt) -> bool:
        try:
            pixels = read_with_valid(image, plan.coverage.reach(receipt.number), plan.image.level)
        except UnreadableError:
            return False
        return receipt.seen == hash_pixels(*pixels)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for receipt, is_same in zip(receipts, pool.map(same, receipts), strict=True):
            if not is_same:
                yield receipt.number
