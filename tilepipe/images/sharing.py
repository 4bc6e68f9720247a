"""Files that are opened once for all the images which come into a process by pickling.

A lazy array of a thousand chunks brings its image to a worker a thousand times, and opening a slide
takes longer than reading a chunk of it. So these images borrow one open file. Closing one of them
lets go of the file; it is closed when no image has it, and it is not among the few that are kept
for the next one. A file that was replaced or written to counts as another.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images.opening import open_source
from tilepipe.images.reading import Reading
from tilepipe.images.windowed import Source
from tilepipe.storage import ObjectPath, StoragePath, as_path

KEPT = 8
"""Files that stay open for the next image that comes."""

_DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup")
"""What is written anew where a zarr folder becomes another image."""


def borrow(path: str, reading: Reading, *, streaming: bool) -> Borrowed:
    """An image's file, opened now or before.

    Raises
    ------
    InputError
        As `open_image`.
    """
    # What is done to the pixels afterwards is each image's own affair.
    of_file = Reading(series=reading.series, bands=reading.bands)
    return Borrowed(_shared(path, of_file, streaming, _version(as_path(path))))


class Borrowed:
    """A `SelectedSource` that others read as well; closing it lets go of it."""

    def __init__(self, shared: _Shared) -> None:
        self.description = shared.source.description
        self._shared: _Shared | None = shared

    def read(self, window: Window, level: int) -> NDArray[Any]:
        """As `Source.read`."""
        return self._open.source.read(window, level)

    def read_masked(self, window: Window, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `Source.read_masked`."""
        return self._open.source.read_masked(window, level)

    def fingerprint(self) -> str:
        """As `Source.fingerprint`; computed once for all that borrow."""
        return self._open.fingerprint

    def close(self) -> None:
        """Let go of the file."""
        self._shared = None

    @property
    def _open(self) -> _Shared:
        shared = self._shared  # kept by who reads, while another thread closes
        if shared is None:
            raise ValueError(f"{self.description.path}: the image is closed")
        return shared


class _Shared:
    """An open source, closed when nothing refers to it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        weakref.finalize(self, source.close)

    @cached_property
    def fingerprint(self) -> str:
        return self.source.fingerprint()


@lru_cache(maxsize=KEPT)
def _shared(path: str, reading: Reading, streaming: bool, _version: object) -> _Shared:
    return _Shared(open_source(path, reading, streaming=streaming)[0])


def _version(path: StoragePath) -> object:
    """What differs as soon as there is another file at a path, or other content in it."""
    if isinstance(path, ObjectPath):
        for part in (path, *(path / name for name in _DOCUMENTS)):
            with suppress(FileNotFoundError):
                return tuple(sorted(part.version().items()))
        return None
    parts = [path, *(path / name for name in _DOCUMENTS)] if path.is_dir() else [path]
    return tuple(_state(part) for part in parts if part.exists())


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
