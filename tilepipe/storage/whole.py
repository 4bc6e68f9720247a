"""Files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilepipe.storage.fsync import fsync_files, fsync_folder
from tilepipe.storage.objects import ObjectPath, StoragePath


def write_whole(path: StoragePath, content: str | bytes, *, alone: bool = True) -> None:
    """Write a small file so that a reader sees all of it or what was there before.

    ``alone`` is as in `complete_or_absent`.
    """
    content = content.encode() if isinstance(content, str) else content
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    with complete_or_absent(path, alone=alone) as part:
        part.write_bytes(content)


@contextmanager
def complete_or_absent(path: Path, *, alone: bool = True) -> Iterator[Path]:
    """Yield a path to write a file or folder to; it gets its own name once that has succeeded.

    What had that name stays until then. The next attempt removes what a killed process left behind.
    Whoever writes a folder also flushes its files to the disk.

    Parameters
    ----------
    path
        The name that the file or folder is to have.
    alone
        Whether nobody else writes to that name now, as a lock ensures. Otherwise each process
        writes a part of its own, and the last to finish wins.
    """
    mark = "" if alone else f".{os.getpid():x}-{threading.get_native_id():x}"
    part = path.with_name(f"{path.name}{mark}.part")
    old = path.with_name(path.name + ".replaced")
    _remove(part)
    if alone and old.is_dir() and not path.exists():
        old.rename(path)  # a process was killed between the two renames below
    try:
        yield part
        if part.is_dir():
            # A folder cannot be renamed over another one.
            _remove(old)
            if path.exists() or path.is_symlink():
                path.rename(old)
            part.rename(path)
            _remove(old)
        else:
            # Flushed first: some file systems report only then that they are full.
            fsync_files([part], path.parent)
            part.replace(path)
        fsync_folder(path.parent)
    finally:
        _remove(part)


@contextmanager
def temporary_folder(path: Path, ending: str) -> Iterator[Path]:
    """A folder beside ``path``, always of the same name, so that killed runs leave at most one."""
    folder = path.with_name(path.name + ending)
    _remove(folder)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
