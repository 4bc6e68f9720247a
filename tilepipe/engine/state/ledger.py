"""The ledger of finished work, kept with the output: append-only records with checksums.

A line is ``crc32 SPACE json``. Each is written by one ``write`` call, so a killed process leaves
at most one torn line. Lines whose checksum does not match are ignored, and their work is repeated.

Object stores cannot append, so there the ledger is a folder of objects, each a batch of lines, in
the order of their names. Work that a killed process had not yet sent is repeated.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tilepipe.errors import EnvironmentFailure
from tilepipe.schema import load_json
from tilepipe.storage import ObjectPath, StoragePath
from tilepipe.storage.objects import ConditionError

BATCH_RECORDS = 64
BATCH_SECONDS = 5.0

_OF_A_BLOCK = b'"kind":"block"'
"""In the line of a block's record, and of no other: in a text, the quotes would be escaped."""


class Ledger:
    """An open ledger, appended to by one process (the holder of the output's lock)."""

    def __init__(self, path: StoragePath) -> None:
        self.path = path
        self._sink = _Batches(path) if isinstance(path, ObjectPath) else _File(path)
        self.since = self._sink.since
        """The position of the first record of this run, for `read_ledger`."""

    def append(self, record: dict[str, Any]) -> None:
        """Add one record. After this call it survives the death of this process.

        On an object store, records of blocks are sent together: after `BATCH_SECONDS`, or when
        there are `BATCH_RECORDS`.
        """
        self._sink.append(encode(record), later=record.get("kind") == "block")

    def flush(self) -> None:
        """Make all records visible to other readers."""
        self._sink.flush()

    def close(self) -> None:
        """Write all records to the disk or store, and close."""
        self._sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _File:
    """A ledger on a disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        torn = path.exists() and not _ends_whole(path)
        self.since = path.stat().st_size if path.exists() else 0  # bytes
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if torn:
            # End the torn line, so that the next record begins on a new one.
            os.write(self._file, b"\n")

    def append(self, line: bytes, *, later: bool) -> None:
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(28, "no space left for the ledger", str(self.path))

    def flush(self) -> None:
        pass  # each record is written at once

    def close(self) -> None:
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1


class _Batches:
    """A ledger on an object store."""

    def __init__(self, path: ObjectPath) -> None:
        self.path = path
        names = [batch.name for batch in path.objects()]
        self._next = 1 + max((int(name) for name in names if name.isdecimal()), default=0)
        self.since = self._next  # batches
        self._run = self._current_run()
        self._lines: list[bytes] = []
        self._since = time.monotonic()

    def append(self, line: bytes, *, later: bool) -> None:
        self._lines.append(line)
        waited = time.monotonic() - self._since
        if not later or len(self._lines) >= BATCH_RECORDS or waited >= BATCH_SECONDS:
            self._send()

    def flush(self) -> None:
        self._send()

    def close(self) -> None:
        self._send()

    def _send(self) -> None:
        if not self._lines:
            return
        content = b"".join(self._lines)
        batch = self.path / f"{self._next:08d}"
        taken_over = EnvironmentFailure(f"{self.path}: another run has taken over; this one ends")
        # A run that was cut off and lost its lease must not write into its successor's ledger.
        if self._current_run() != self._run:
            raise taken_over
        try:
            batch.write_bytes(content, "create")
        except ConditionError:
            if batch.read_bytes() != content:
                raise taken_over from None
            # Otherwise it is ours, sent by a request whose answer was lost.
        self._next += 1
        self._lines.clear()
        self._since = time.monotonic()

    def _current_run(self) -> bytes | None:
        try:
            return self.path.with_name("run.json").read_bytes()
        except FileNotFoundError:
            return None


def read_ledger(
    path: StoragePath, begin: int = 0, end: int | None = None
) -> Iterator[dict[str, Any]]:
    """The valid records of a ledger, oldest first; none if it does not exist.

    ``begin`` and ``end`` are positions such as `Ledger.since`.
    """
    yield from (record for line in _lines(path, begin, end) if (record := decode(line)) is not None)


def read_in_place(
    path: StoragePath, *, blocks: bool = True
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The valid records of a ledger, each with the number of its line.

    Without ``blocks``, records of blocks, which are nearly all, are passed over unread.
    """
    for place, line in enumerate(_lines(path, 0, None)):
        if (blocks or _OF_A_BLOCK not in line) and (record := decode(line)) is not None:
            yield place, record


def _lines(path: StoragePath, begin: int, end: int | None) -> Iterator[bytes]:
    if isinstance(path, ObjectPath):
        for batch in path.objects():
            number = int(batch.name) if batch.name.isdecimal() else 0
            if number >= begin and (end is None or number < end):
                yield from batch.read_bytes().splitlines(keepends=True)
        return
    if not path.exists():
        return
    with path.open("rb") as file:
        at = file.seek(begin)
        for line in file:
            if end is not None and at >= end:
                return
            at += len(line)
            yield line


def encode(record: dict[str, Any]) -> bytes:
    """A record as a line, with its checksum."""
    body = json.dumps(record, separators=(",", ":"), sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None if the line is torn or altered."""
    if len(line) < 11 or not line.endswith(b"\n") or line[8:9] != b" ":
        return None
    body = line[9:-1]
    try:
        if int(line[:8], 16) != zlib.crc32(body):
            return None
        record = load_json(body)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
