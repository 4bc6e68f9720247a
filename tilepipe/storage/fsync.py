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


def fsync_files(files: Iterable[Path], root: Path, settled: set[Path] | None = None) -> None:
    """Flush files, and their names in all folders up to ``root``, to the disk.

    Missing files are skipped; flushing their folders also makes their removal durable.

    Parameters
    ----------
    files
        Below ``root``.
    root
        The folder that is there already.
    settled
        Folders whose own names, and those of the folders that lead to them, have been flushed: they
        are not flushed again. Those of which it is true afterwards are added.

    Raises
    ------
    OSError
        As the file system raises it when it could not keep what it had taken.
    """
    settled = set() if settled is None else settled
    folders: set[Path] = set()
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            _fsync(file)
        folder = file.parent
        while folder not in folders and (folder == root or root in folder.parents):
            folders.add(folder)
            if folder in settled:
                break
            folder = folder.parent
    # The deepest first: a name is flushed before the folder that leads to it.
    deepest_first = sorted(folders, key=lambda path: len(path.parts), reverse=True)
    there = [folder for folder in deepest_first if fsync_folder(folder)]
    settled.update(there)


def fsync_below(folder: StoragePath) -> None:
    """Flush all files of a folder to the disk; on an object store, they are there already."""
    if isinstance(folder, Path):
        fsync_files((file for file in folder.rglob("*") if file.is_file()), folder)


def fsync_folder(folder: Path) -> bool:
    """Flush the names in a folder to the disk, where the file system supports it.

    Returns whether the folder exists.
    """
    try:
        _fsync(folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in _NO_FOLDERS:
            raise
    return True


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
