"""Flushing files to the disk itself, so that they survive a power failure."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from tilepipe.storage.objects import StoragePath

_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF)
"""Errors of file systems that cannot, or need not, flush a folder."""


def fsync_files(files: Iterable[Path], root: Path) -> None:
    """Flush files, and their names in all folders up to ``root``, to the disk.

    Missing files are skipped; flushing their folders also makes their removal durable.

    Raises
    ------
    OSError
        As the file system raises it when it could not keep what it had taken.
    """
    folders: set[Path] = set()
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            _fsync(file)
        parent = file.parent
        while parent != root and parent not in folders and root in parent.parents:
            folders.add(parent)
            parent = parent.parent
    # The deepest first: a name is flushed before the folder that leads to it.
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        fsync_folder(folder)
    fsync_folder(root)


def fsync_below(folder: StoragePath) -> None:
    """Flush all files of a folder to the disk; on an object store, they are there already."""
    if isinstance(folder, Path):
        fsync_files((file for file in folder.rglob("*") if file.is_file()), folder)


def fsync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the file system supports it."""
    try:
        _fsync(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _NO_FOLDERS:
            raise


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
