"""Reading bytes at a place in a file, from several threads at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class FileBytes:
    """An open file of which any thread may read any range."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes; fewer where the file ends."""
        parts: list[bytes] = []
        while count > 0 and (part := self._read_some(offset, count)):
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _read_some(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(count)
