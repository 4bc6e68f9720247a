"""What a user gives to be read: a file or a folder, and nothing that reading has no end of."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.places.address import place
from tilepipe.places.objects import ObjectPath, Place

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def readable(path: str | Place) -> Place:
    """The place that a user wants read; whether anything is there, the reader finds out.

    Raises
    ------
    InputError
        For an address or path that cannot be one, and for what is neither a file nor a folder.
    """
    where = place(path)
    if not isinstance(where, ObjectPath):
        require_ordinary(where)
    return where


def local(path: str | Path) -> Path:
    """As `readable`, of what is read from a disk only.

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
    """As `local`, of a single file that is a ``what``.

    Raises
    ------
    InputError
        Also for a folder.
    """
    where = local(path)
    if where.is_dir():
        raise InputError(f"{where}: is a folder, not {what}")
    return where


def require_ordinary(path: Path) -> None:
    """Refuse a pipe, a socket or a device: a read of it may wait for ever, or never end.

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


def require_utf8(path: Path) -> None:
    """Refuse a path that GDAL cannot be given.

    Raises
    ------
    InputError
        When its bytes are no UTF-8.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{path}: is not a path in UTF-8, and GDAL, which is needed for this file, takes no "
            "other; use another name"
        ) from None
