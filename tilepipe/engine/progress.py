"""What the ledger says is done, and what a run adds to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilepipe.engine.block import Receipt
from tilepipe.engine.ledger import read_ledger
from tilepipe.places import Place


@dataclass
class Totals:
    """Sums over receipts; as large for a million blocks as for one."""

    counts: list[int] = field(default_factory=list)
    """Pixels of each class."""
    answered: int = 0
    unreadable: int = 0
    read: float = 0.0
    """Seconds, as are the next two."""
    compute: float = 0.0
    write: float = 0.0

    def add(self, receipt: Receipt, sign: int = 1) -> None:
        """Count a receipt in; with a ``sign`` of -1, out again."""
        self.counts += [0] * (len(receipt.counts) - len(self.counts))
        for label, count in enumerate(receipt.counts):
            self.counts[label] += sign * count
        self.answered += sign * receipt.answered
        self.unreadable += sign * receipt.unreadable
        self.read += sign * receipt.read
        self.compute += sign * receipt.compute
        self.write += sign * receipt.write


@dataclass
class Progress:
    """Blocks, pyramid levels and exports that are done, and blocks that were given up.

    Of a block that is done one byte is kept, so that what a client holds does not grow with the
    image; receipts are kept of those blocks only of which something could not be read.
    """

    totals: Totals = field(default_factory=Totals)
    peaks: dict[str, int] = field(default_factory=dict)
    """Bytes of memory that each worker had taken at most."""
    partial: dict[int, Receipt] = field(default_factory=dict)
    """Blocks that are written, but for what could not be read."""
    failed: dict[int, str] = field(default_factory=dict)
    """Blocks that were given up, and why."""
    levels: set[int] = field(default_factory=set)
    exports: set[str] = field(default_factory=set)
    ours: set[str] = field(default_factory=set)
    """Exports that a run has begun to write at any time: files of these names are tilepipe's."""
    _done: bytearray = field(default_factory=bytearray)

    @classmethod
    def from_ledger(cls, path: Place) -> Progress:
        """What earlier runs did."""
        progress = cls()
        for record in read_ledger(path):
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
        number = receipt.number
        self.levels.clear()
        self.exports.clear()
        self.peaks[receipt.worker] = max(self.peaks.get(receipt.worker, 0), receipt.peak)
        if self.is_done(number):
            return  # told twice: the same block, the same counts
        earlier = self.partial.pop(number, None)
        if earlier is not None:
            self.totals.add(earlier, -1)
        self.failed.pop(number, None)
        self.totals.add(receipt)
        if receipt.unreadable:
            self.partial[number] = receipt
            return
        if number >= len(self._done):
            self._done.extend(bytes(number + 1 - len(self._done)))
        self._done[number] = 1

    def is_done(self, number: int) -> bool:
        """Whether a block is written and nothing of it was unreadable."""
        return number < len(self._done) and bool(self._done[number])

    def is_written(self, number: int) -> bool:
        """Whether a block is written, if not all of it could be read."""
        return self.is_done(number) or number in self.partial

    @property
    def answered(self) -> int:
        """Pixels with an answer."""
        return self.totals.answered

    @property
    def incomplete(self) -> tuple[tuple[int, str], ...]:
        """Blocks with pixels that could not be read, and why."""
        partial = {number: receipt.message for number, receipt in self.partial.items()}
        return tuple(sorted((self.failed | partial).items()))
