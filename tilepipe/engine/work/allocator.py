"""How glibc treats freed memory: a run gives it back at once, training keeps it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of mallopt."""


@functools.cache
def steady_allocator() -> None:
    """Give freed activations back to the system at once (glibc).

    Left to itself, glibc keeps ever larger blocks on its heap, where they fragment: memory grew by
    up to 140 MB beyond the live tensors over a few passes, and no plan could tell by how much.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed activations for the next step, for as long as this lasts (glibc).

    The opposite of `steady_allocator`, for training, whose memory no plan has to foresee: faults of
    fresh pages take up to half of a step. Afterwards all of it goes back to the system.
    """
    steady_allocator()  # once, so that no device undoes what follows
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
