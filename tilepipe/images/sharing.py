"""Files that stay open for images which arrive by pickling.

A lazy array of a thousand chunks brings its image to a worker a thousand times, and opening a slide
takes longer than reading a chunk of it. So these images share one open file, and the last few files
stay open for the next one. A file that was replaced or written to counts as another.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from tilepipe.images.registry import open_source
from tilepipe.images.source import OpenFile, Source
from tilepipe.storage import ObjectPath, StoragePath, as_path

KEPT = 8
"""Files that stay open for the next image that arrives."""

_DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup")
"""What is written anew where a zarr folder becomes another image."""


def kept_open(path: str, series: int | str | None, streaming: bool) -> OpenFile:
    """Return an image's file, opened now or before.

    Raises
    ------
    InputError
        As `tilepipe.images.open_image`.
    """
    return _shared(path, series, streaming, _version(as_path(path)))


class _KeptFile(OpenFile):
    """An open file whose fingerprint is computed once for all images that share it."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._fingerprint: str | None = None

    def fingerprint(self) -> str:
        """Compute the fingerprint at the first call."""
        if self._fingerprint is None:
            self._fingerprint = super().fingerprint()
        return self._fingerprint


@lru_cache(maxsize=KEPT)
def _shared(path: str, series: int | str | None, streaming: bool, _version: object) -> OpenFile:
    return _KeptFile(open_source(path, series, streaming=streaming))


def _version(path: StoragePath) -> object:
    """Return what differs as soon as another file lies at a path, or other content in it."""
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
