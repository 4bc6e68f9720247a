"""Reading bytes at a place in a file, from several threads at once."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tilepipe.errors import EnvironmentFailure
from tilepipe.storage import ObjectPath, StoragePath, as_path, require_ordinary

BLOCK_BYTES = 128 * 1024
"""Bytes of an object that are fetched at a time, where a library reads it in small pieces."""

BLOCKS = 64
"""Blocks that are kept."""

AHEAD_BYTES = 4 * 2**20
"""About how much of a window's tiles is fetched together."""


def open_bytes(path: StoragePath) -> FileBytes | ObjectBytes:
    """Open a file, on a disk or an object store, of which any thread may read any range."""
    return ObjectBytes(path) if isinstance(path, ObjectPath) else FileBytes(path)


def open_reader(path: str) -> io.RawIOBase | io.BufferedIOBase:
    """Open a file, on a disk or an object store, to seek and read in."""
    where = as_path(path)
    return ObjectReader(where) if isinstance(where, ObjectPath) else where.open("rb")


class FileBytes:
    """An open file of which any thread may read any range."""

    def __init__(self, path: Path) -> None:
        require_ordinary(path)
        self.path = path
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Read up to ``count`` bytes; fewer where the file ends."""
        parts: list[bytes] = []
        while count > 0 and (part := self._read_some(offset, count)):
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read several (offset, count)."""
        return [self.read(offset, count) for offset, count in ranges]

    def ahead(self, ranges: Sequence[tuple[int, int]]) -> FileBytes:
        """Return a reader of these ranges, in this order."""
        return self

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _read_some(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(count)


class ObjectBytes:
    """An object of which any thread may read any range."""

    def __init__(self, path: ObjectPath) -> None:
        self.path = path
        self.size = path.size()

    def read(self, offset: int, count: int) -> bytes:
        """Read up to ``count`` bytes; fewer where the object ends."""
        count = min(count, self.size - offset)
        return self.path.read_ranges([(offset, count)])[0] if count > 0 else b""

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read several (offset, count) in few requests."""
        return self.path.read_ranges(ranges) if ranges else []

    def ahead(self, ranges: Sequence[tuple[int, int]]) -> Ahead:
        """Return a reader of these ranges, in this order, that fetches several at once."""
        return Ahead(self, ranges)

    def close(self) -> None:
        """Do nothing: no file is held open."""


class Ahead:
    """Reads a known list of ranges of an object in order, several of them at once.

    An answer takes long to begin, however short it is. Of one thread.
    """

    def __init__(self, file: ObjectBytes, ranges: Sequence[tuple[int, int]]) -> None:
        self._file = file
        self._ranges = list(ranges)
        self._places = {wanted: place for place, wanted in enumerate(self._ranges)}
        self._held: dict[tuple[int, int], bytes] = {}

    def read(self, offset: int, count: int) -> bytes:
        """As `FileBytes.read`."""
        if (offset, count) not in self._held:
            first = last = self._places[offset, count]
            total = 0
            while last < len(self._ranges) and (last == first or total < AHEAD_BYTES):
                total += self._ranges[last][1]
                last += 1
            group = self._ranges[first:last]
            self._held.clear()  # before more is fetched
            self._held = dict(zip(group, self._file.read_many(group), strict=True))
        return self._held[offset, count]


class ObjectReader(io.RawIOBase):
    """An object as a file to seek and read in, for libraries; blocks of it are kept."""

    def __init__(self, path: ObjectPath) -> None:
        super().__init__()
        self.name = str(path)
        self._file = ObjectBytes(path)
        self._place = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self.failure: EnvironmentFailure | None = None
        """What kept a read from its bytes: libraries may make another error of it, or none."""

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The offset of the next byte read."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._file.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """As of any file; all that is asked for, unless the object ends."""
        left = max(0, self._file.size - self._place)
        count = left if size is None or size < 0 else min(size, left)
        try:
            data = self._read(self._place, count)
        except EnvironmentFailure as error:
            self.failure = error
            raise
        self._place += len(data)
        return data

    def readall(self) -> bytes:
        """All that is left."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """As of any file."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, offset: int, count: int) -> bytes:
        if count > BLOCK_BYTES * BLOCKS // 2:
            return self._file.read(offset, count)  # not worth pushing everything else out for
        first, last = offset // BLOCK_BYTES, -(-(offset + count) // BLOCK_BYTES)
        missing = [number for number in range(first, last) if number not in self._blocks]
        if missing:
            start, stop = missing[0] * BLOCK_BYTES, (missing[-1] + 1) * BLOCK_BYTES
            data = self._file.read(start, stop - start)
            for number in range(missing[0], missing[-1] + 1):
                at = number * BLOCK_BYTES - start
                self._blocks[number] = data[at : at + BLOCK_BYTES]
        for number in range(first, last):
            self._blocks.move_to_end(number)
        joined = b"".join(self._blocks[number] for number in range(first, last))
        while len(self._blocks) > BLOCKS:
            self._blocks.popitem(last=False)
        skip = offset - first * BLOCK_BYTES
        return joined[skip : skip + count]
