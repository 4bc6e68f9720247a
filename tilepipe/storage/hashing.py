"""Short hashes that identify files, folders and chunks."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tilepipe.storage.objects import ObjectPath, StoragePath

PIECE_BYTES = 8 << 20
"""A file is hashed in pieces of this size."""

ABSENT = "-"
"""The seal of a chunk that is not stored."""


def hash_bytes(data: bytes | memoryview) -> str:
    """Hash some bytes: BLAKE2b, 16 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def hash_of(path: StoragePath) -> str:
    """Hash the content of a file, or the names and contents of all files in a folder.

    Raises
    ------
    FileNotFoundError
        Where there is nothing.
    """
    if not path.is_dir():
        return _hash_file(path)
    digest = hashlib.blake2b(digest_size=8)
    for name, file in _files(path):
        digest.update(f"{name}\0{_hash_file(file)}\n".encode())
    return digest.hexdigest()


def seal(data: bytes | memoryview) -> str:
    """Make the seal of a chunk, its size and hash: ``1a3.0123456789abcdef``."""
    return f"{len(data):x}.{hash_bytes(data)}"


def read_seal(path: StoragePath) -> str:
    """Make the `seal` of a stored chunk; `ABSENT` where there is none.

    Where the disk cannot read it, the seal is one that no chunk has.
    """
    try:
        return seal(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return "unreadable"


def size_matches(path: Path, sealed: str) -> bool:
    """Tell whether a chunk has the size in its seal, or is absent as its seal states."""
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return sealed == ABSENT
    return sealed != ABSENT and sealed.partition(".")[0] == f"{size:x}"


def identity(paths: Iterable[StoragePath]) -> str:
    """Hash the metadata of files, which change when these are written to or replaced.

    Made of size, time of the last change and inode; on an object store, of size and version.
    """
    return hash_bytes(repr([_facts(path) for path in paths]).encode())


def identity_below(path: StoragePath) -> str:
    """Hash the same of a file, or of all files of a folder, which is only listed."""
    if isinstance(path, ObjectPath):
        below = list(path.versions())
        return hash_bytes(repr(below).encode()) if below else identity([path])
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return identity(files)


def _facts(path: StoragePath) -> object:
    try:
        if isinstance(path, ObjectPath):
            return path.version()
        status = path.stat()
        return status.st_size, status.st_mtime_ns, status.st_ino
    except FileNotFoundError:
        return None


def _hash_file(path: StoragePath) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: StoragePath) -> Iterator[bytes]:
    if isinstance(path, ObjectPath):
        for offset in range(0, path.size(), PIECE_BYTES):
            yield path.read_ranges([(offset, PIECE_BYTES)])[0]
        return
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _files(folder: StoragePath) -> list[tuple[str, StoragePath]]:
    """Find all files below a folder, with their relative names, in the order of these."""
    if isinstance(folder, ObjectPath):
        return [(file.key.removeprefix(f"{folder.key}/"), file) for file in folder.objects()]
    found = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return sorted((file.relative_to(folder).as_posix(), file) for file in found)
