"""Paths as users give them; pipes and devices are not read, as reading them may never end."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.storage.address import as_path
from tilepipe.storage.objects import ObjectPath, StoragePath

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def readable(path: str | StoragePath) -> StoragePath:
    """Return the place of a path or address to read; it may not exist.

    Raises
    ------
    InputError
        For an address or path that cannot be one, and for what is neither a file nor a folder.
    """
    where = as_path(path)
    if not isinstance(where, ObjectPath):
        require_ordinary(where)
    return where


def local(path: str | Path) -> Path:
    """Return the place of a path to read; addresses are refused.

    Raises
    ------
    InputError
        Also for an address.
    """
    where = readable(path)
    if isinstance(where, ObjectPath):
        raise InputError(f"{where}: is read from a disk only; copy it to one first")
    return where


def local_file(path: str | Path, what: str) -> Path:
    """Return the place of a single file to read, called ``what`` in messages.

    Raises
    ------
    InputError
        Also for a folder.
    """
    where = local(path)
    if where.is_dir():
        raise InputError(f"{where}: is a folder, not {what}")
    return where


def written_here(path: str | Path) -> Path:
    """Return the path of a file to write; addresses are refused.

    Raises
    ------
    InputError
        For an address, and for an empty path.
    """
    where = as_path(path)
    if isinstance(where, ObjectPath):
        raise InputError(f"{where}: is written to a disk only; give a path, and copy it there")
    return where


def require_ordinary(path: Path) -> None:
    """Refuse a pipe, a socket or a device: reading it may wait forever, or never end.

    Raises
    ------
    InputError
        Also for a path that the system does not follow to its end.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise InputError(
            f"{path}: is {kind}, and only files and folders are read; save what it gives as a "
            "file first"
        )


def utf8_path(path: Path) -> Path:
    """Return a path for libraries that take UTF-8 only, such as GDAL.

    Where its folder has another name, the folder is opened, and called by the name that Linux gives
    what is open; so the files beside it are found as well.

    Raises
    ------
    InputError
        Where that does not help: the file itself has another name, or this is not Linux.
    """
    if _is_utf8(path):
        return path
    if _is_utf8(Path(path.name)):
        alias = Path(f"/proc/self/fd/{_opened_folder(path.parent)}")
        if alias.is_dir():
            return alias / path.name
    raise InputError(
        f"{path}: is not a name in UTF-8, and what reads or writes such files takes no other; "
        "rename it, or choose another"
    )


def _is_utf8(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=256)
def _opened_folder(folder: Path) -> int:
    """Open for as long as the process lasts: who was given its name may come back to it."""
    return os.open(folder, os.O_RDONLY)
