"""Operations that differ between disks and object stores."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.storage.address import as_path, is_url
from tilepipe.storage.errors import InputRefused
from tilepipe.storage.objects import ObjectPath, StoragePath

GROUPS = ("zarr.json", ".zgroup")
"""The files that make a folder a zarr group, in formats 3 and 2."""

LONGEST_ADDITION = 32
"""Bytes by which names of files beside an output exceed its own (``.unfinished.ome.zarr``)."""


def remove(path: StoragePath) -> None:
    """Remove a file, or a folder with all its content, if it exists.

    Of a symbolic link, the link.
    """
    if isinstance(path, ObjectPath):
        path.remove_below()
        path.unlink(missing_ok=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def refuse_links(folder: StoragePath) -> None:
    """Refuse a folder that contains symbolic links; the way to it may lead over one.

    Who writes through a link changes, or replaces, what lies somewhere else.

    Raises
    ------
    InputError
        Naming the first one.
    """
    if isinstance(folder, ObjectPath) or not folder.is_dir():
        return
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise InputError(
                        f"{entry.path}: is a symbolic link, which a mask must not contain; replace "
                        "it with the file or folder it points to"
                    )
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def remove_partials(folder: StoragePath) -> int:
    """Remove chunks that killed writers left half-written; return how many files."""
    if isinstance(folder, ObjectPath):
        return 0  # an object is written whole or not at all
    partials = list(folder.rglob("*.partial"))
    for partial in partials:
        partial.unlink(missing_ok=True)
    return len(partials)


def zarr_around(path: StoragePath) -> Path | None:
    """The zarr group on a disk in which a path lies, if it lies in one."""
    if isinstance(path, ObjectPath):
        return None
    return next((p for p in path.parents if any((p / name).exists() for name in GROUPS)), None)


def name_from(path: StoragePath, folder: StoragePath) -> str:
    """Return a path relative to a folder, so that both can move; else the whole address."""
    if isinstance(path, ObjectPath) or isinstance(folder, ObjectPath):
        inside = isinstance(path, ObjectPath) and folder == path.parent
        return path.name if inside else str(path)
    return os.path.relpath(path, folder)


def path_from(name: str, folder: StoragePath) -> StoragePath:
    """Return the path that `name_from` gave a name."""
    return as_path(name) if is_url(name) else folder / name


def size_of(path: StoragePath) -> int | None:
    """Return the size of a file on a disk; None for all else, as objects are always whole."""
    return path.stat().st_size if isinstance(path, Path) and path.is_file() else None


def within(path: StoragePath, folder: StoragePath) -> bool:
    """Tell whether a place is a folder, or lies in it."""
    path, folder = path.resolve(), folder.resolve()
    return path == folder or folder in path.parents


def require_writable(path: StoragePath, *, may_make: bool = False) -> None:
    """Refuse a place that cannot be written to.

    Parameters
    ----------
    path
        Of a file or folder to be.
    may_make
        Whether its folder may still have to be made, in one that is there.

    Raises
    ------
    InputError
        When its folder or bucket is not there, or not ours to write to. Whether an object store
        lets us write is seen when the lock is written; here, whether it lets us in.
    """
    if isinstance(path, ObjectPath):
        with InputRefused():
            path.is_dir()
        return
    require_room_for_name(path)
    folder = path.parents[1] if may_make and not path.parent.exists() else path.parent
    if not folder.is_dir():
        raise InputError(f"{path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: you may not write in {folder}; choose another folder")


def make_folder(path: StoragePath) -> None:
    """Make a folder and its parents, if they do not exist.

    Raises
    ------
    InputError
        Where the system has none made there, whatever its permissions say (``/proc``).
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        raise InputError(
            f"{path}: cannot be made there ({error.strerror}); choose another folder (-o)"
        ) from error


_NOWHERE = (
    errno.EACCES, errno.EEXIST, errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.EPERM,
)  # fmt: skip
"""Errors that waiting does not fix, unlike a full or failing disk."""


def require_room_for_name(path: Path) -> None:
    """Refuse a name too long for the files with longer names beside it.

    Raises
    ------
    InputError
        Saying how long it may be.
    """
    try:
        most = os.pathconf(path.parent, "PC_NAME_MAX") - LONGEST_ADDITION
    except (OSError, ValueError, AttributeError):  # no such folder; not a POSIX system
        most = 255 - LONGEST_ADDITION
    length = len(os.fsencode(path.name))
    if length > most:
        raise InputError(
            f"{path}: its name has {length} bytes, and at most {most} leave room for files beside "
            "it with longer names; choose a shorter one (-o)"
        )


@contextmanager
def staged_locally(path: StoragePath) -> Iterator[Path]:
    """Give a local path to write to; the result is uploaded where ``path`` is on an object store.

    On a disk that is the path itself. For an object store it lies in a temporary folder; what was
    written is uploaded when all of it is there: the file that gives it its name last, and so, of a
    folder, the zarr document at its top.
    """
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tilepipe-") as temporary:
        local = Path(temporary) / path.name
        yield local
        files = sorted(file for file in Path(temporary).rglob("*") if file.is_file())
        tops = [f"{path.name}/{name}" for name in GROUPS] if local.is_dir() else [path.name]
        last = next(file for file in (Path(temporary, top) for top in tops) if file.exists())
        files.remove(last)
        target = path.parent
        for top in tops:
            (target / top).unlink(missing_ok=True)
        path.remove_below()
        # What a file of this name had beside it is no longer true.
        path.with_name(path.name + ".aux.xml").unlink(missing_ok=True)
        for file in (*files, last):
            (target / file.relative_to(temporary).as_posix()).write_bytes(file)
