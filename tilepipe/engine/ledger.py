"""What is done, kept with the output: append-only, checksummed records, one a line.

A line is ``crc32 SPACE json``. Each is written by one ``write`` call, so a killed process leaves
at most one torn line, which is dropped on reading; so is any line whose checksum does not hold.
What is dropped is done again, never trusted.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tilepipe.documents import load_json


class Ledger:
    """An open ledger, appended to by one process (the holder of the output's lock)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        torn = path.exists() and not _ends_whole(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if torn:
            # Close the torn line, so that the next record begins on a line of its own.
            os.write(self._file, b"\n")

    def append(self, record: dict[str, Any]) -> None:
        """Add one record; it survives the death of this process once this returns."""
        line = _encode(record)
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(28, "no space left for the ledger", str(self.path))

    def close(self) -> None:
        """Flush to the disk and close."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """The sound records of a ledger, oldest first; none where there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            record = _decode(line)
            if record is not None:
                yield record


def _encode(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":"), sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> dict[str, Any] | None:
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
