"""Settings of glibc's allocator: a run gives large blocks back at once, training keeps them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator

KEPT = 12 << 20
"""Freed blocks of fewer bytes are kept for the next ones: strips of a pass are among them."""
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of ``mallopt``."""
_HEAP = 64 << 20
"""The most that one heap of a thread may hold."""


@functools.cache
def steady_allocator() -> None:
    """Give large freed blocks back to the system at once, and keep small ones (glibc).

    By default glibc keeps ever larger blocks on its heaps, where they fragment: over a few passes,
    memory grew unpredictably, by up to 140 MB beyond the live tensors. Small ones are needed again
    within milliseconds, and faults of fresh pages would take a fifth to a third of a pass.
    """
    _set()


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed activations for the next step as long as the context lasts (glibc).

    The opposite of `steady_allocator`, for training, whose memory is not planned: faults of fresh
    pages take up to half of a step. Afterwards the memory is returned to the system.
    """
    steady_allocator()  # once, so that no device undoes the following
    most = (1 << 31) - 1
    _set(kept=most, trimmed=most)
    try:
        yield
    finally:
        _set()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _set(kept: int = KEPT, trimmed: int = _HEAP) -> None:
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, kept)
        library.mallopt(_TRIM_THRESHOLD, trimmed)
        library.mallopt(_TOP_PAD, _HEAP)  # or an empty heap of a thread is unmapped
