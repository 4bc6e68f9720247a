"""What the ledger says is done, and what a run adds to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tilepipe.engine.block import Receipt
from tilepipe.engine.ledger import read_ledger
from tilepipe.grid import Tiling
from tilepipe.masks.store import ZarrMask
from tilepipe.places import Place, size_of


@dataclass
class Totals:
    """Sums over receipts; as large for a million blocks as for one."""

    counts: list[int] = field(default_factory=list)
    """Pixels of each class."""
    areas: list[float] = field(default_factory=list)
    """Square metres of each class on the ground, where they are measured."""
    answered: int = 0
    unreadable: int = 0
    read: float = 0.0
    """Seconds, as are the next three."""
    wait: float = 0.0
    compute: float = 0.0
    write: float = 0.0

    def add(self, receipt: Receipt, sign: int = 1) -> None:
        """Count a receipt in; with a ``sign`` of -1, out again."""
        self.counts += [0] * (len(receipt.counts) - len(self.counts))
        for label, count in enumerate(receipt.counts):
            self.counts[label] += sign * count
        self.areas += [0.0] * (len(receipt.areas) - len(self.areas))
        for label, area in enumerate(receipt.areas):
            self.areas[label] += sign * area
        self.answered += sign * receipt.answered
        self.unreadable += sign * receipt.unreadable
        self.read += sign * receipt.read
        self.wait += sign * receipt.wait
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
    sizes: dict[int | str, int | None] = field(default_factory=dict)
    """Bytes that pyramid levels and exports had when they were recorded."""
    _done: bytearray = field(default_factory=bytearray)

    @classmethod
    def from_ledger(cls, path: Place, sound: Callable[[Receipt], bool] | None = None) -> Progress:
        """What earlier runs did.

        Parameters
        ----------
        path
            The ledger.
        sound
            Whether what a block wrote is still there as it was; where it is not, the block is not
            done. By default it is taken to be.
        """
        # A block whose pixels have changed since (the image was repaired) counts from there on.
        changed = {
            record["number"]: place
            for place, record in enumerate(read_ledger(path))
            if record.get("kind") == "changed" and isinstance(record.get("number"), int)
        }
        progress = cls()
        for place, record in enumerate(read_ledger(path)):
            # A record of another form is as one whose checksum does not hold: done again.
            with suppress(ValueError, KeyError, TypeError):
                if record["kind"] == "block":
                    receipt = Receipt.from_record(record)
                    progress.levels.clear()
                    progress.exports.clear()
                    if place > changed.get(receipt.number, -1) and (
                        sound is None or sound(receipt)
                    ):
                        progress.add(receipt)
                elif record["kind"] == "changed":
                    progress.levels.clear()
                    progress.exports.clear()
                elif record["kind"] == "level":
                    progress.sizes[record["level"]] = record.get("bytes")
                    progress.levels.add(record["level"])
                elif record["kind"] == "export":
                    progress.sizes[record["name"]] = record.get("bytes")
                    progress.exports.add(record["name"])
                elif record["kind"] == "exporting":
                    progress.ours.add(record["name"])
        return progress

    @classmethod
    def as_found(cls, path: Place, mask: ZarrMask, tiling: Tiling) -> Progress:
        """What earlier runs did, without what is not there any more as they left it.

        By the sizes of files alone, so that it takes a moment: what is gone or cut off between two
        runs (a copy that was broken off, a disk repaired) is computed again, not taken for done.
        """
        lost: set[int] = set()

        def sound(receipt: Receipt) -> bool:
            window = tiling.block_window(receipt.number)
            if receipt.stored in (None, mask.stored_bytes(window)):
                return True
            lost.add(receipt.number)
            return False

        progress = cls.from_ledger(path, sound)
        if not all(progress.is_written(number) for number in lost):  # nor written again since
            progress.levels.clear()
            progress.exports.clear()
        for level in sorted(progress.levels):
            if progress.sizes[level] not in (None, mask.stored_bytes(level=level)):
                progress.levels = {kept for kept in progress.levels if kept < level}
                break
        return progress

    def is_made(self, name: str, path: Place) -> bool:
        """Whether an export is there, as long as it was when it was recorded."""
        if name not in self.exports or not path.exists():
            return False
        return self.sizes[name] in (None, size_of(path))

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
