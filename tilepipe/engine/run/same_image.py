"""Whether the image that lies there is the one that was read: looked at before, after, and between.

A fingerprint tells images apart by samples. A file that is written to in place, while a run reads
it or between two runs, may keep its fingerprint. But then its size, its time of change or its inode
is another (`Look`). Every block's receipt holds a hash of the pixels that the block read; with
these, what was read of the image as it is now is told from what was read of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tilepipe.engine.events import BlockReport, RunCallbacks
from tilepipe.engine.plan.plan import Plan, at_model_scale
from tilepipe.engine.state.ledger import Ledger, read_ledger
from tilepipe.engine.state.progress import Progress
from tilepipe.engine.work.block import hash_pixels
from tilepipe.errors import InputError, UnreadableError
from tilepipe.images import Image, read_with_valid
from tilepipe.images.fingerprints import noting_files
from tilepipe.storage import StoragePath
from tilepipe.storage.hashing import identity

AT_ONCE = 3
"""Blocks that are read at a time, as a worker has in hand."""


@dataclass(frozen=True, slots=True)
class Look:
    """An image's content, by samples, and its files, by what their file system says of them."""

    fingerprint: str
    identity: str
    files: tuple[tuple[StoragePath, str], ...]
    """Each file, with its own identity; that of the image itself is the first."""

    @classmethod
    def at(cls, image: Image) -> Look:
        """At an image that was just opened."""
        with noting_files() as files:
            fingerprint = image.fingerprint()
        return cls(fingerprint, identity(files), tuple((file, identity([file])) for file in files))

    def has_only_lost_parts(self) -> bool:
        """Whether all that happened since is that parts of a mosaic are gone.

        What was read of them before still holds, and what was not is unreadable.
        """
        other = [file for file, known in self.files if identity([file]) != known]
        return bool(other) and self.files[0][0] not in other and not any(f.exists() for f in other)


def forget_other_pixels(
    ledger: Ledger, image: Image, plan: Plan, look: Look, watch: RunCallbacks
) -> None:
    """Before a run goes on: forget blocks that were read of the image when it was another.

    Reads the image again only where its files are not those that the last run found.
    """
    found = [r.get("identity") for r in read_ledger(ledger.path) if r.get("kind") == "image"]
    if found and found[-1] != look.identity:
        watch.stage("comparing the image, whose file was written to or moved, with what was read")
        progress = Progress.from_ledger(ledger.path)
        changed = list(changed_blocks(image, plan, done_receipts(ledger.path, progress)))
        _forget(ledger, changed)
        if changed:
            watch.on_warning(f"the image has changed; blocks computed again: {len(changed)}")
    if not found or found[-1] != look.identity:
        ledger.append({"kind": "image", "identity": look.identity})


def require_unchanged(ledger: Ledger, opened: Callable[[], Image], plan: Plan, look: Look) -> Look:
    """Before a run is called complete: look at the image once more.

    Parameters
    ----------
    ledger
        Of the run. Blocks that were read of another image are forgotten in it.
    opened
        Opens the image anew: what is open already may be a file that is gone by now.
    plan
        Of the run.
    look
        The image as the run found it.

    Returns
    -------
    Look
        The image as it is now.

    Raises
    ------
    InputError
        When it changed, or cannot be opened any more.
    """
    ledger.flush()
    try:
        image = opened()
    except InputError:
        if look.has_only_lost_parts():
            return look
        raise
    try:
        now = Look.at(image)
        if now == look:
            return now
        path = plan.image.path
        if now.fingerprint != look.fingerprint:
            # By whatever files it comes back: what was read is compared before it is trusted.
            ledger.append({"kind": "image", "identity": ""})
            raise InputError(
                f"{path}: changed while the run read it, so the mask is that of no one image; put "
                "the first image back and give the same command again, or use --overwrite to "
                "segment the new one"
            )
        progress = Progress.from_ledger(ledger.path)
        changed = list(changed_blocks(image, plan, done_receipts(ledger.path, progress)))
    finally:
        image.close()
    _forget(ledger, changed)
    ledger.append({"kind": "image", "identity": now.identity})
    if changed:
        raise InputError(
            f"{path}: changed under {len(changed)} of {plan.blocks} blocks while the run read it; "
            "give the same command again when nobody writes to it: it computes these anew"
        )
    return now


def done_receipts(ledger: StoragePath, progress: Progress) -> list[BlockReport]:
    """The last receipt of each block of which everything could be read."""
    records = (record for record in read_ledger(ledger) if record.get("kind") == "block")
    receipts = {receipt.number: receipt for receipt in map(BlockReport.from_record, records)}
    return [receipt for receipt in receipts.values() if progress.is_done(receipt.number)]


def changed_blocks(image: Image, plan: Plan, receipts: Iterable[BlockReport]) -> Iterator[int]:
    """The blocks whose pixels are not, or cannot be shown to be, what they were."""
    shown = at_model_scale(image, plan.image)

    def same(receipt: BlockReport) -> bool:
        try:
            reach = plan.coverage.reach(receipt.number)
            pixels = read_with_valid(shown, reach, plan.image.level)
        except UnreadableError:
            return False
        return receipt.pixels_hash == hash_pixels(*pixels)

    several = list(receipts)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for receipt, is_same in zip(several, pool.map(same, several), strict=True):
            if not is_same:
                yield receipt.number


def _forget(ledger: Ledger, numbers: Iterable[int]) -> None:
    for number in numbers:
        ledger.append({"kind": "changed", "number": number})
