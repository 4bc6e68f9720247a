"""Detecting that an image has changed: before, during and after a run.

An image's fingerprint is made of samples, so a file that is overwritten in place may keep it. Then
its size, its time of change or its inode differs (`ImageState`), and the hash in every block's
report shows which blocks were read from other pixels than the image has now.
"""

from __future__ import annotations

from collections.abc import Callable
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
"""Blocks that are read at a time, as many as a worker handles."""


@dataclass(frozen=True, slots=True)
class ImageState:
    """The content of an image, by samples, and its files, by size, time and inode."""

    fingerprint: str
    identity: str
    files: tuple[tuple[StoragePath, str], ...]
    """Each file with its own identity, the image itself first."""

    @classmethod
    def at(cls, image: Image) -> ImageState:
        """The state of an image that was just opened."""
        with noting_files() as files:
            fingerprint = image.fingerprint()
        return cls(fingerprint, identity(files), tuple((file, identity([file])) for file in files))

    def has_only_lost_parts(self) -> bool:
        """Whether the only change since is that parts of a mosaic are missing.

        What was read of them before is still valid, and what was not is unreadable.
        """
        other = [file for file, known in self.files if identity([file]) != known]
        return bool(other) and self.files[0][0] not in other and not any(f.exists() for f in other)


def forget_other_pixels(
    ledger: Ledger, image: Image, plan: Plan, state: ImageState, watch: RunCallbacks
) -> None:
    """Before a run resumes, forget the blocks that were read from other pixels.

    Reads the image again only if its files are not those of the last run.
    """
    found = [r.get("identity") for r in read_ledger(ledger.path) if r.get("kind") == "image"]
    if found and found[-1] == state.identity:
        return
    if found:
        watch.stage("comparing the image, whose file was written to or moved, with what was read")
        changed = changed_blocks(image, plan, done_reports(ledger.path))
        forget(ledger, changed)
        if changed:
            watch.on_warning(f"the image has changed; blocks computed again: {len(changed)}")
    ledger.append({"kind": "image", "identity": state.identity})


def require_unchanged(
    ledger: Ledger, opened: Callable[[], Image], plan: Plan, state: ImageState
) -> ImageState:
    """Before a run ends, check the image once more, and forget blocks of another one.

    ``opened`` opens the image again, because a file that is still open may be gone from the disk.
    Returns the present state of the image, of which ``state`` is the one that the run found. Raises
    InputError if pixels that were read have changed, or the image can no longer be opened.
    """
    ledger.flush()
    try:
        image = opened()
    except InputError:
        if state.has_only_lost_parts():
            return state
        raise
    try:
        now = ImageState.at(image)
        if now == state:
            return now
        path = plan.image.path
        if now.fingerprint != state.fingerprint:
            # Whichever image the next run finds, it is compared before anything is trusted.
            ledger.append({"kind": "image", "identity": ""})
            raise InputError(
                f"{path}: changed while the run read it, so the mask belongs to no single image; "
                "put the first image back and repeat the command, or use --overwrite to segment "
                "the new one"
            )
        changed = changed_blocks(image, plan, done_reports(ledger.path))
    finally:
        image.close()
    forget(ledger, changed)
    ledger.append({"kind": "image", "identity": now.identity})
    if changed:
        raise InputError(
            f"{path}: changed under {len(changed)} of {plan.blocks} blocks while the run read it; "
            "when nothing writes to it any more, repeat the command to compute these again"
        )
    return now


def done_reports(ledger: StoragePath) -> list[BlockReport]:
    """The last report of each block that could be read whole."""
    progress = Progress.from_ledger(ledger)
    records = (record for record in read_ledger(ledger) if record.get("kind") == "block")
    reports = {report.number: report for report in map(BlockReport.from_record, records)}
    return [report for report in reports.values() if progress.is_done(report.number)]


def changed_blocks(image: Image, plan: Plan, reports: list[BlockReport]) -> list[int]:
    """The blocks whose pixels have changed since, or cannot be compared."""
    shown = at_model_scale(image, plan.image)

    def is_same(report: BlockReport) -> bool:
        try:
            reach = plan.coverage.reach(report.number)
            pixels = read_with_valid(shown, reach, plan.image.level)
        except UnreadableError:
            return False
        return report.pixels_hash == hash_pixels(*pixels)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        same = pool.map(is_same, reports)
        return [report.number for report, s in zip(reports, same, strict=True) if not s]


def forget(ledger: Ledger, numbers: list[int]) -> None:
    """Record that blocks must be computed again."""
    for number in numbers:
        ledger.append({"kind": "changed", "number": number})
