"""What the ledger says is done, and what a run adds to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from tilepipe.engine.events import BlockReport
from tilepipe.engine.state.damage import Damage
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.engine.state.totals import Totals
from tilepipe.grid import Tiling, Window
from tilepipe.products.sealed import can_be_decoded, damaged_chunks, sizes_differ
from tilepipe.products.store import ZarrMask
from tilepipe.storage import StoragePath, size_of
from tilepipe.storage.hashing import hash_of

_ALL_LEVELS = 1 << 30
"""In place of a level: what is made of the whole mask is outdated, and no level is."""


@dataclass(frozen=True, slots=True)
class Made:
    """A pyramid level, an export, or a result of another stage, as it was recorded."""

    at: int
    """When, counted in records: what changed later outdates it."""
    size: int | None
    """Bytes that it had."""
    seal: str
    """The seals of a level's chunks, or the hash of an export; empty in older ledgers."""
    is_file: bool = False
    """Whether it is a file (or a zarr folder) under the name by which it is known."""


@dataclass
class Progress:
    """Blocks, pyramid levels and exports that are done, and blocks that were given up.

    Of a block that is done one byte is kept, so that what a client holds does not grow with the
    image; reports are kept of those blocks only of which something could not be read.
    """

    totals: Totals = field(default_factory=Totals)
    peaks: dict[str, int] = field(default_factory=dict)
    """Bytes of memory that each worker had taken at most."""
    partial: dict[int, BlockReport] = field(default_factory=dict)
    """Blocks that are written, but for what could not be read."""
    failed: dict[int, str] = field(default_factory=dict)
    """Blocks that were given up, and why."""
    ours: set[str] = field(default_factory=set)
    """Exports that a run has begun to write at any time: files of these names are tilepipe's."""
    damage: list[Damage] = field(default_factory=list)
    """What was done, but is not there any more as it was written, and was not made again since."""
    unsealed: int = 0
    """Blocks of which older versions recorded no seals."""
    _done: bytearray = field(default_factory=bytearray)
    _made: dict[int | str, Made] = field(default_factory=dict)
    _changed: dict[int, int] = field(default_factory=dict)
    """When each level changed last, with all that is made of it; level 1 changes with a block."""
    _clock: int = 0

    @classmethod
    def from_ledger(
        cls, path: StoragePath, sound: Callable[[BlockReport], bool] | None = None
    ) -> Progress:
        """What earlier runs did.

        Parameters
        ----------
        path
            The ledger.
        sound
            Whether what a block wrote is still there as it was; where it is not, the block is not
            done. By default it is taken to be.
        """
        # A block whose pixels have changed since (the image was repaired), or that was found to be
        # damaged, counts from there on.
        changed = {
            record["number"]: place
            for place, record in enumerate(read_ledger(path))
            if record.get("kind") in ("changed", "damaged")
            and isinstance(record.get("number"), int)
        }
        progress = cls()
        for place, record in enumerate(read_ledger(path)):
            # A record of another form is as one whose checksum does not hold: done again.
            with suppress(ValueError, KeyError, TypeError):
                if record["kind"] == "block":
                    receipt = BlockReport.from_record(record)
                    progress.outdate(1)
                    if place > changed.get(receipt.number, -1) and (
                        sound is None or sound(receipt)
                    ):
                        progress.add(receipt)
                elif record["kind"] in ("changed", "damaged"):
                    if "name" in record:
                        progress.discard(record["name"])
                    else:
                        progress.outdate(record.get("level", 1))
                    if record["kind"] == "damaged":
                        progress.damage.append(Damage.from_record(record))
                elif record["kind"] == "level":
                    seals = str(record.get("chunks", ""))
                    progress.note(record["level"], record.get("bytes"), seals)
                elif record["kind"] in ("export", "stage"):
                    content = str(record.get("hash", ""))
                    is_file = record["kind"] == "export"
                    progress.note(record["name"], record.get("bytes"), content, is_file=is_file)
                elif record["kind"] == "exporting":
                    progress.ours.add(record["name"])
        open_ones = (one for one in progress.damage if not progress.has(one))
        progress.damage = list(dict.fromkeys(open_ones))
        return progress

    @classmethod
    def as_found(
        cls, path: StoragePath, mask: ZarrMask, tiling: Tiling, *, read: bool = False
    ) -> Progress:
        """What earlier runs did, without what is not there any more as they left it.

        What is gone, cut off or altered between two runs (by a copy that was broken off, a disk
        that lost bits) is computed again, not taken for done; `damage` says what that is.

        Parameters
        ----------
        path
            The ledger.
        mask, tiling
            Of the run.
        read
            Read every chunk, and compare its hash; decode it where an older version recorded none.
            Otherwise compare the sizes of files alone, which takes a moment.
        """
        altered: dict[tuple[int, str], str] = {}
        for block, key in _altered_blocks(path, mask, tiling) if read else ():
            altered.setdefault(block, key)
        lost: dict[int, str] = {}
        unsealed: set[int] = set()

        def sound(receipt: BlockReport) -> bool:
            window, chunk = tiling.block_window(receipt.number), ""
            unsealed.discard(receipt.number)
            if not receipt.chunks:
                unsealed.add(receipt.number)
                is_sound = receipt.chunk_bytes in (None, mask.stored_bytes(window))
                is_sound = is_sound and (not read or can_be_decoded(mask, window))
            elif read:
                chunk = altered.get((receipt.number, receipt.chunks), "")
                is_sound = not chunk
            else:
                is_sound = not sizes_differ(mask, receipt.chunks, window)
            if not is_sound:
                lost[receipt.number] = chunk
            return is_sound

        progress = cls.from_ledger(path, sound)
        # A block that was written again since is what the later receipt says.
        found = [Damage("number", number, chunk) for number, chunk in sorted(lost.items())]
        progress.damage += [damage for damage in found if not progress.has(damage)]
        progress.unsealed = len(unsealed)
        if progress.damage:
            progress.outdate(1)
        for level in sorted(progress.levels):
            chunk = progress._level_damage(mask, level, read=read)
            if chunk is not None:
                progress.damage.append(Damage("level", level, chunk))
                progress.outdate(level)
                break
        return progress

    @property
    def levels(self) -> set[int]:
        """Pyramid levels that are made of what is there now."""
        return {key for key in self._made if isinstance(key, int) and self.is_fresh(key)}

    @property
    def exports(self) -> set[str]:
        """Files that are made of what is there now, by their names from the store on."""
        return {str(key) for key, made in self._made.items() if made.is_file and self.is_fresh(key)}

    def is_fresh(self, key: int | str) -> bool:
        """Whether a level or export is made, and nothing that it is made of changed since."""
        if key not in self._made:
            return False
        above = key if isinstance(key, int) else _ALL_LEVELS
        changes = (at for level, at in self._changed.items() if level <= above)
        return self._made[key].at > max(changes, default=0)

    def note(self, key: int | str, size: int | None, seal: str, *, is_file: bool = False) -> None:
        """Take note that a level (by its number) or anything else (by its name) is made."""
        self._clock += 1
        self._made[key] = Made(self._clock, size, seal, is_file)

    def outdate(self, level: int) -> None:
        """Take note that a level changed, or must be made again, and so all that is made of it."""
        self._clock += 1
        self._changed[level] = self._clock

    def outdate_exports(self) -> None:
        """Take note that what is made of the whole mask must be made again."""
        self.outdate(_ALL_LEVELS)

    def discard(self, name: str) -> None:
        """Take note that an export must be made again."""
        self._made.pop(name, None)

    def seal(self, key: int | str) -> str | None:
        """The seals of a level, or the hash of an export; None for what was never made."""
        return self._made[key].seal if key in self._made else None

    def has(self, what: Damage) -> bool:
        """Whether a block, level or export is done."""
        if what.key == "number":
            return isinstance(what.value, int) and self.is_written(what.value)
        return what.value in (self.levels if what.key == "level" else self.exports)

    def _level_damage(self, mask: ZarrMask, level: int, *, read: bool) -> str | None:
        """A chunk of a level that is not what was written ("": one of them); None: all are."""
        made = self._made[level]
        seals = made.seal
        if seals and read:
            damaged = damaged_chunks(mask, [(level, None, level, seals)])
            return next((key for _, key in damaged), None)
        if seals:
            return "" if sizes_differ(mask, seals, level=level) else None
        if made.size not in (None, mask.stored_bytes(level=level)):
            return ""
        return None if not read or can_be_decoded(mask, level=level) else ""

    def drop_altered(self, name: str, path: StoragePath) -> None:
        """Read an export, and do not count it as made where it is not what was written."""
        if self.is_made(name, path) and self.seal(name) not in ("", hash_of(path)):
            self.discard(name)
            self.damage.append(Damage("name", name))

    def is_made(self, name: str, path: StoragePath) -> bool:
        """Whether an export is there, as long as it was when it was recorded."""
        if not self.is_fresh(name) or not path.exists():
            return False
        return self._made[name].size in (None, size_of(path))

    def add(self, receipt: BlockReport) -> None:
        """Take note of a written block; it outdates pyramid and exports."""
        number = receipt.number
        self.outdate(1)
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


def _altered_blocks(
    path: StoragePath, mask: ZarrMask, tiling: Tiling
) -> Iterator[tuple[tuple[int, str], str]]:
    """Number and seals of blocks of which a chunk is not what its seal says, and that chunk."""

    def receipts() -> Iterator[tuple[tuple[int, str], Window, int, str]]:
        for record in read_ledger(path):
            with suppress(ValueError, KeyError, TypeError):
                if record["kind"] == "block" and record.get("chunks"):
                    receipt = BlockReport.from_record(record)
                    name = receipt.number, receipt.chunks
                    yield name, tiling.block_window(receipt.number), 0, receipt.chunks

    yield from damaged_chunks(mask, receipts())
