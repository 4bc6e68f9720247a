"""What the ledger says is done, and what a run adds to it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tilepipe.engine.block import Receipt
from tilepipe.engine.ledger import read_ledger


@dataclass
class Progress:
    """Blocks, pyramid levels and exports that are done, and blocks that were given up."""

    receipts: dict[int, Receipt] = field(default_factory=dict)
    levels: set[int] = field(default_factory=set)
    exports: set[str] = field(default_factory=set)
    ours: set[str] = field(default_factory=set)
    """Exports that a run has begun to write at any time: files of these names are tilepipe's."""
    failed: dict[int, str] = field(default_factory=dict)

    @classmethod
    def from_ledger(cls, path: Path) -> Progress:
        """What earlier runs did."""
        progress = cls()
        for record in read_ledger(path):
            # A record of another form is as one whose checksum does not hold: done again.
            with suppress(ValueError, KeyError, TypeError):
                if record["kind"] == "block":
                    progress.add(Receipt.from_record(record))
                elif record["kind"] == "level":
                    progress.levels.add(record["level"])
                elif record["kind"] == "export":
                    progress.exports.add(record["name"])
                elif record["kind"] == "exporting":
                    progress.ours.add(record["name"])
        return progress

    def add(self, receipt: Receipt) -> None:
        """Take note of a written block; it outdates pyramid and exports."""
        self.receipts[receipt.number] = receipt
        self.failed.pop(receipt.number, None)
        self.levels.clear()
        self.exports.clear()

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
