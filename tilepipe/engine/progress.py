"""What the ledger says is done, and what a run adds to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tilepipe.engine.block import Receipt
from tilepipe.engine.ledger import read_ledger
from tilepipe.grid import Tiling
from tilepipe.masks.store import ZarrMask


@dataclass
class Progress:
    """Blocks, pyramid levels and exports that are done, and blocks that were given up."""

    receipts: dict[int, Receipt] = field(default_factory=dict)
    levels: set[int] = field(default_factory=set)
    exports: set[str] = field(default_factory=set)
    ours: set[str] = field(default_factory=set)
    """Exports that a run has begun to write at any time: files of these names are tilepipe's."""
    failed: dict[int, str] = field(default_factory=dict)
    sizes: dict[int | str, int | None] = field(default_factory=dict)
    """Bytes that pyramid levels and exports had when they were recorded."""

    @classmethod
    def from_ledger(cls, path: Path) -> Progress:
        """What earlier runs did."""
        progress = cls()
        for record in read_ledger(path):
            if record["kind"] == "block":
                progress.add(Receipt.from_record(record))
            elif record["kind"] == "level":
                progress.levels.add(record["level"])
                progress.sizes[record["level"]] = record.get("bytes")
            elif record["kind"] == "export":
                progress.exports.add(record["name"])
                progress.sizes[record["name"]] = record.get("bytes")
            elif record["kind"] == "changed":  # the image was repaired there
                progress.receipts.pop(record["number"], None)
            elif record["kind"] == "exporting":
                progress.ours.add(record["name"])
        return progress

    def add(self, receipt: Receipt) -> None:
        """Take note of a written block; it outdates pyramid and exports."""
        self.receipts[receipt.number] = receipt
        self.failed.pop(receipt.number, None)
        self.levels.clear()
        self.exports.clear()

    def forget_lost(self, mask: ZarrMask, tiling: Tiling) -> int:
        """Forget blocks and levels of which chunks are not there as they were; how many blocks.

        By the sizes of files alone, so that it takes a moment: what is gone or cut off between two
        runs (a copy that was broken off, a disk repaired) is computed again, not taken for done.
        """
        lost = [
            number
            for number, receipt in self.receipts.items()
            if receipt.stored not in (None, mask.stored_bytes(tiling.block_window(number)))
        ]
        for number in lost:
            del self.receipts[number]
        if lost:
            self.levels.clear()
            self.exports.clear()
        for level in sorted(self.levels):
            if self.sizes[level] not in (None, mask.stored_bytes(level=level)):
                self.levels = {sound for sound in self.levels if sound < level}
                break
        return len(lost)

    def is_made(self, name: str, path: Path) -> bool:
        """Whether an export is there, as long as it was when it was recorded."""
        if name not in self.exports or not path.exists():
            return False
        return path.is_dir() or self.sizes[name] in (None, path.stat().st_size)

    def is_done(self, number: int) -> bool:
        """Whether a block is written and nothing of it was unreadable."""
        receipt = self.receipts.get(number)
        return receipt is not None and receipt.unreadable == 0

    @property
    def answered(self) -> int:
        """Pixels with an answer."""
        return sum(receipt.answered for receipt in self.receipts.values())

    @property
    def incomplete(self) -> tuple[tuple[int, str], ...]:
        """Blocks with pixels that could not be read, and why."""
        partial = {n: r.message for n, r in self.receipts.items() if r.unreadable}
        return tuple(sorted((self.failed | partial).items()))
