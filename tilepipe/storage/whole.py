"""Files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilepipe.storage.fsync import fsync_files, fsync_folder
from tilepipe.storage.objects import ObjectPath, StoragePath


def write_whole(path: StoragePath, content: str | bytes) -> None:
    """Write a small file so that a reader sees all of it or what was there before."""
    content = content.encode() if isinstance(content, str) else content
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    with complete_or_absent(path) as part:
        part.write_bytes(content)


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Give a name to write a file or folder to, which takes its own name when that succeeds.

    What was under that name until then stays until then. What a killed process left half-written is
    removed by the next attempt. Whoever writes a folder brings its files to the disk.
    """
    part = path.with_name(path.name + ".part")
    _remove(part)
    try:
        yield part
        if part.is_dir():
            _swap(part, path)
        else:
            # Only when it is on the disk: some file systems tell no sooner that they are full.
            fsync_files([part], path.parent)
            part.replace(path)
        fsync_folder(path.parent)
    finally:
        _remove(part)


def _swap(part: Path, path: Path) -> None:
    """Give a folder the name of one that is there, which a rename alone cannot."""
    old = path.with_name(path.name + ".replaced")
    _remove(old)
    if path.exists():
        path.rename(old)
    part.rename(path)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
