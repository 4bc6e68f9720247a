"""Settings of glibc's allocator: a run returns freed memory at once, training keeps it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt``."""


@functools.cache
def steady_allocator() -> None:
    """Return freed activations to the system at once (glibc).

    By default glibc keeps ever larger blocks on its heap, where they fragment: over a few passes,
    memory grew unpredictably, by up to 140 MB beyond the live tensors.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed activations for the next step as long as the context lasts (glibc).

    The opposite of `steady_allocator`, for training, whose memory is not planned: faults of fresh
    pages take up to half of a step. Afterwards the memory is returned to the system.
    """
    steady_allocator()  # once, so that no device undoes the following
    library = None
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            library.mallopt(option, (1 << 31) - 1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, AttributeError):
            if library is not None:
                library.mallopt(_MMAP_THRESHOLD, 1 << 20)
                library.mallopt(_TRIM_THRESHOLD, 128 << 10)  # glibc's own
                library.malloc_trim(0)
