"""Huge pages for memory that a library took, on Linux.

Passes over hundreds of megabytes of activations wait for the processor's table of pages. torch asks
for huge pages itself; OpenVINO does not, and its memory cannot be had before it takes it.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

LEAST_BYTES = 32 << 20
"""Of a mapping that is worth it."""

LEAST_USED = 0.95
"""The share of a mapping that is in memory; of the rest, huge pages would make memory, too."""

_COLLAPSE = 25
"""Advice of ``madvise``: make huge pages of what is there, once (Linux 6.1)."""

_MAPS = Path("/proc/self/smaps")


def collapse_large_memory() -> None:
    """Move this process's large anonymous memory to huge pages, as far as the system can.

    It takes a moment once, 0.1 to 1 s for 400 MB. Values stay, and memory grows by what is missing
    of mappings that are nearly all used (`LEAST_USED`).
    """
    with contextlib.suppress(OSError, AttributeError):  # not Linux, or no /proc
        madvise = ctypes.CDLL(None).madvise
        for start, size in _large_mappings(_MAPS.read_text()):
            # What cannot be moved stays as it is.
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _COLLAPSE)


def _large_mappings(maps: str) -> list[tuple[int, int]]:
    """(start, bytes) of each large mapping without a name that can be written to, and is used."""
    found: list[tuple[int, int]] = []
    start = size = 0
    for line in maps.splitlines():
        fields = line.split()
        if not fields[0].endswith(":"):  # the first line of a mapping
            start, stop = (int(edge, 16) for edge in fields[0].split("-"))
            size = stop - start if len(fields) == 5 and fields[1] == "rw-p" else 0
        elif fields[0] == "Rss:":
            used = int(fields[1]) * 1024
            if size >= LEAST_BYTES and used >= LEAST_USED * size:
                found.append((start, size))
    return found
