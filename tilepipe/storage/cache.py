"""Small results that are dear to make, kept between runs in the user's cache folder.

``TILEPIPE_CACHE`` names another folder; an empty value switches the cache off. Anything in it may
be deleted at any time. Each file carries a hash of its content, so that one that is damaged is made
again, and no fault of the disk gets into a mask.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tilepipe.storage.whole import write_whole

MOST_BYTES = 500 * 10**6
"""Size of all that is kept; what was used longest ago goes first."""

_HASH_BYTES = 32


def cache_folder() -> Path | None:
    """The folder of the cache; None if there is to be none."""
    named = os.environ.get("TILEPIPE_CACHE")
    if named is not None:
        return Path(named).expanduser() if named else None
    try:
        return _general() / "tilepipe"
    except RuntimeError:  # a user without a home
        return None


def _general() -> Path:
    """The folder of all caches of the user."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home())
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"


def kept(name: str, make: Callable[[], bytes]) -> bytes:
    """The result of that name, made if it is not in the cache.

    ``name`` is one of a file, and tells all that the result depends on. That the cache cannot be
    read or written is no error.
    """
    folder = cache_folder()
    if folder is None:
        return make()
    path = folder / name
    with suppress(OSError):
        stored = path.read_bytes()
        content = stored[_HASH_BYTES:]
        if hashlib.sha256(name.encode() + content).digest() == stored[:_HASH_BYTES]:
            os.utime(path)
            return content
    content = make()
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256(name.encode() + content).digest()
        write_whole(path, digest + content, alone=False)
        _make_room(folder)
    return content


def _make_room(folder: Path) -> None:
    """Remove what was used longest ago, if there is too much."""
    found = [(entry.stat(), entry) for entry in folder.iterdir() if entry.is_file()]
    size = sum(status.st_size for status, _ in found)
    for status, entry in sorted(found, key=lambda pair: pair[0].st_mtime_ns):
        if size <= MOST_BYTES:
            return
        entry.unlink(missing_ok=True)
        size -= status.st_size
