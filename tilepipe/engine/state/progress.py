"""What is done, according to the ledger, and what a run adds to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tilepipe.engine.events import BlockReport
from tilepipe.engine.state.damage import Damage
from tilepipe.engine.state.ledger import read_in_place, read_ledger
from tilepipe.engine.state.totals import Totals
from tilepipe.grid import Tiling, Window
from tilepipe.products.sealed import can_be_decoded, damaged_chunks, sizes_differ
from tilepipe.products.store import ZarrMask
from tilepipe.storage import StoragePath, size_of
from tilepipe.storage.hashing import hash_of

_ALL_LEVELS = 1 << 30
"""Used as a level: outdates everything made from the whole mask, but no level."""


@dataclass(frozen=True, slots=True)
class Made:
    """A pyramid level, an export, or another stage's result, as it was recorded."""

    at: int
    """The number of its record; a later change makes it stale."""
    size: int | None
    """Its size in bytes, if recorded."""
    seal: str
    """The seals of a level's chunks, or the hash of an export; empty in older ledgers."""
    is_file: bool = False
    """Whether it is a file (or a zarr folder) of the name by which it is recorded."""


@dataclass
class Progress:
    """Blocks, pyramid levels and exports that are done, and blocks that were given up.

    A finished block takes one byte, so memory does not grow with the image. Reports are kept only
    of blocks with unreadable pixels.
    """

    totals: Totals = field(default_factory=Totals)
    peaks: dict[str, int] = field(default_factory=dict)
    """The peak memory of each worker in bytes."""
    partial: dict[int, BlockReport] = field(default_factory=dict)
    """Blocks that are written except for unreadable pixels."""
    failed: dict[int, str] = field(default_factory=dict)
    """Blocks that were given up, and why."""
    ours: set[str] = field(default_factory=set)
    """Exports that any run began to write: files of these names belong to tilepipe."""
    damage: list[Damage] = field(default_factory=list)
    """Results that are no longer as they were written, and were not made again since."""
    unsealed: int = 0
    """Blocks for which older versions recorded no seals."""
    _done: bytearray = field(default_factory=bytearray)
    _made: dict[int | str, Made] = field(default_factory=dict)
    _changed: dict[int, int] = field(default_factory=dict)
    """When each level last changed. Level 1 changes with every block."""
    _clock: int = 0

    @classmethod
    def from_ledger(
        cls, path: StoragePath, sound: Callable[[BlockReport], bool] | None = None
    ) -> Progress:
        """The progress of earlier runs.

        ``sound`` decides whether the chunks of a block are still as they were written; a block
        whose chunks are not is not done. By default all are.
        """
        # Reports before such a record no longer count: the image or the chunks have changed since.
        changed = {
            record["number"]: place
            for place, record in read_in_place(path, blocks=False)
            if record.get("kind") in ("changed", "damaged")
            and isinstance(record.get("number"), int)
        }
        progress = cls()
        for place, record in read_in_place(path):
            # Records of another form are ignored, like those whose checksum does not match.
            with suppress(ValueError, KeyError, TypeError):
                if record["kind"] != "block":
                    progress._replay(record)
                    continue
                report = BlockReport.from_record(record)
                progress.outdate(1)
                if place > changed.get(report.number, -1) and (sound is None or sound(report)):
                    progress.add(report)
        still = (one for one in progress.damage if not progress.has(one))
        progress.damage = list(dict.fromkeys(still))
        return progress

    def _replay(self, record: dict[str, Any]) -> None:
        """Apply a ledger record that is not the report of a block."""
        kind, size = record["kind"], record.get("bytes")
        if kind in ("changed", "damaged"):
            if "name" in record:
                self.discard(record["name"])
            else:
                self.outdate(record.get("level", 1))
            if kind == "damaged":
                self.damage.append(Damage.from_record(record))
        elif kind == "level":
            self.note(record["level"], size, str(record.get("chunks", "")))
        elif kind in ("export", "stage"):
            seal = str(record.get("hash", ""))
            self.note(record["name"], size, seal, is_file=kind == "export")
        elif kind == "exporting":
            self.ours.add(record["name"])

    @classmethod
    def as_found(
        cls, path: StoragePath, mask: ZarrMask, tiling: Tiling, *, read: bool = False
    ) -> Progress:
        """The progress of earlier runs, as far as their results are still as they were written.

        Anything lost or altered since (by an incomplete copy, or a failing disk) is computed again;
        `damage` lists it. With ``read``, every chunk is read and its hash compared, or decoded if
        an older version recorded none. Otherwise only file sizes are compared, which is quick.
        """
        altered: dict[tuple[int, str], str] = {}
        for block, key in _altered_blocks(path, mask, tiling) if read else ():
            altered.setdefault(block, key)
        lost: dict[int, str] = {}
        unsealed: set[int] = set()

        def sound(report: BlockReport) -> bool:
            window, chunk = tiling.block_window(report.number), ""
            unsealed.discard(report.number)
            if not report.chunks:
                unsealed.add(report.number)
                is_sound = report.chunk_bytes in (None, mask.stored_bytes(window))
                is_sound = is_sound and (not read or can_be_decoded(mask, window))
            elif read:
                chunk = altered.get((report.number, report.chunks), "")
                is_sound = not chunk
            else:
                is_sound = not sizes_differ(mask, report.chunks, window)
            if not is_sound:
                lost[report.number] = chunk
            return is_sound

        progress = cls.from_ledger(path, sound)
        # A block that was written again since counts as its later report.
        found = [Damage("number", number, chunk) for number, chunk in sorted(lost.items())]
        progress.damage += [damage for damage in found if not progress.has(damage)]
        progress.unsealed = len(unsealed)
        if progress.damage:
            progress.outdate(1)
        for level in sorted(progress.levels):
            damaged = progress._level_damage(mask, level, read=read)
            if damaged is not None:
                progress.damage.append(Damage("level", level, damaged))
                progress.outdate(level)
                break
        return progress

    @property
    def levels(self) -> set[int]:
        """Pyramid levels that are made and not stale."""
        return {key for key in self._made if isinstance(key, int) and self.is_fresh(key)}

    @property
    def exports(self) -> set[str]:
        """Files that are made and not stale, by their names relative to the store."""
        return {str(key) for key, made in self._made.items() if made.is_file and self.is_fresh(key)}

    def is_fresh(self, key: int | str) -> bool:
        """Whether a level, export or other result is made and not stale."""
        if key not in self._made:
            return False
        above = key if isinstance(key, int) else _ALL_LEVELS
        changes = (at for level, at in self._changed.items() if level <= above)
        return self._made[key].at > max(changes, default=0)

    def note(self, key: int | str, size: int | None, seal: str, *, is_file: bool = False) -> None:
        """Record that a level (by its number) or another result (by its name) is made."""
        self._clock += 1
        self._made[key] = Made(self._clock, size, seal, is_file)

    def outdate(self, level: int) -> None:
        """Record that a level has changed or must be made again, and all that depends on it."""
        self._clock += 1
        self._changed[level] = self._clock

    def outdate_exports(self) -> None:
        """Record that everything made from the whole mask must be made again."""
        self.outdate(_ALL_LEVELS)

    def discard(self, name: str) -> None:
        """Record that an export must be made again."""
        self._made.pop(name, None)

    def seal(self, key: int | str) -> str | None:
        """The seals of a level, or the hash of an export; None if it was never made."""
        return self._made[key].seal if key in self._made else None

    def has(self, what: Damage) -> bool:
        """Whether a block, level or export is done."""
        if what.key == "number":
            return isinstance(what.value, int) and self.is_written(what.value)
        return what.value in (self.levels if what.key == "level" else self.exports)

    def _level_damage(self, mask: ZarrMask, level: int, *, read: bool) -> str | None:
        """A damaged chunk of a level; "" if it is unknown which; None if all are sound."""
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
        """Read an export, and record it as damaged if it is not as it was written."""
        if self.is_made(name, path) and self.seal(name) not in ("", hash_of(path)):
            self.discard(name)
            self.damage.append(Damage("name", name))

    def is_made(self, name: str, path: StoragePath) -> bool:
        """Whether an export is there, with the size that was recorded."""
        if not self.is_fresh(name) or not path.exists():
            return False
        return self._made[name].size in (None, size_of(path))

    def add(self, report: BlockReport) -> None:
        """Add the report of a written block; pyramid and exports become stale."""
        number = report.number
        self.outdate(1)
        self.peaks[report.worker] = max(self.peaks.get(report.worker, 0), report.peak)
        if self.is_done(number):
            return  # reported twice
        earlier = self.partial.pop(number, None)
        if earlier is not None:
            self.totals.add(earlier, -1)
        self.failed.pop(number, None)
        self.totals.add(report)
        if report.unreadable:
            self.partial[number] = report
            return
        if number >= len(self._done):
            self._done.extend(bytes(number + 1 - len(self._done)))
        self._done[number] = 1

    def is_done(self, number: int) -> bool:
        """Whether a block is written and could be read whole."""
        return number < len(self._done) and bool(self._done[number])

    def is_written(self, number: int) -> bool:
        """Whether a block is written, perhaps with unreadable pixels."""
        return self.is_done(number) or number in self.partial

    @property
    def answered(self) -> int:
        """The number of pixels with an answer."""
        return self.totals.answered

    @property
    def incomplete(self) -> tuple[tuple[int, str], ...]:
        """Blocks with unreadable pixels, and why."""
        partial = {number: report.message for number, report in self.partial.items()}
        return tuple(sorted((self.failed | partial).items()))


def _altered_blocks(
    path: StoragePath, mask: ZarrMask, tiling: Tiling
) -> Iterator[tuple[tuple[int, str], str]]:
    """Blocks, by number and seals, with a chunk that does not match its seal, and that chunk."""

    def reports() -> Iterator[tuple[tuple[int, str], Window, int, str]]:
        for record in read_ledger(path):
            with suppress(ValueError, KeyError, TypeError):
                if record["kind"] == "block" and record.get("chunks"):
                    report = BlockReport.from_record(record)
                    name = report.number, report.chunks
                    yield name, tiling.block_window(report.number), 0, report.chunks

    yield from damaged_chunks(mask, reports())
