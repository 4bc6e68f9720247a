"""Short hashes of large files: by samples of their content, never by name or time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar

from tilepipe.errors import InputError
from tilepipe.images.byte_ranges import FileBytes, ObjectBytes, open_bytes
from tilepipe.storage import StoragePath

SAMPLES = 64
"""Evenly spaced places at which a file is looked at."""

SAMPLE_BYTES = 4096
"""Read at each place."""

HEAD_BYTES = 65536
"""Read at either end, where formats keep what they say about the rest."""

_noted: ContextVar[list[StoragePath] | None] = ContextVar("files", default=None)


@contextmanager
def noting_files() -> Iterator[list[StoragePath]]:
    """A list that fills with the files of which fingerprints are taken inside, by this thread."""
    files: list[StoragePath] = []
    token = _noted.set(files)
    try:
        yield files
    finally:
        _noted.reset(token)


def fingerprint_files(
    paths: Iterable[StoragePath], texts: Iterable[bytes] = (), samples: int = SAMPLES
) -> str:
    """A hash, 16 hexadecimal digits, of size, both ends and samples of each file.

    Parameters
    ----------
    paths
        In an order that does not depend on where the files lie. A missing file is hashed as such.
    texts
        Documents that are hashed whole.
    samples
        Places looked at in each file.
    """
    digest = hashlib.sha256()
    for text in texts:
        digest.update(b"text %d " % len(text) + text)
    noted = _noted.get()
    for path in paths:
        _add_file(digest, path, samples)
        if noted is not None:
            noted.append(path)
    return digest.hexdigest()[:16]


def _add_file(digest: hashlib._Hash, path: StoragePath, samples: int) -> None:
    try:
        with closing(open_bytes(path)) as file:
            size = file.size
            parts = _looks(file, _places(size, samples)) if size else []
    except FileNotFoundError:
        digest.update(b"missing ")
        return
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); check that its disk is mounted and healthy"
        ) from error
    digest.update(b"file %d " % size)
    for part in parts:
        digest.update(part)


def _looks(file: FileBytes | ObjectBytes, places: list[tuple[int, int]]) -> list[bytes]:
    """What lies at each place; where a disk fails, a word for that.

    What cannot be read of an image is for the run to find out, and to say.
    """
    try:
        return list(file.read_many(places))
    except OSError:
        parts = []
        for place in places:
            try:
                parts += file.read_many([place])
            except OSError:
                parts.append(b"unreadable ")
        return parts


def _places(size: int, samples: int) -> list[tuple[int, int]]:
    """(offset, count) of all that is looked at in a file."""
    last = max(0, size - SAMPLE_BYTES)
    offsets = [last * number // (samples + 1) for number in range(1, samples + 1)]
    tail = max(0, size - HEAD_BYTES)
    places = [(0, HEAD_BYTES), *((o, SAMPLE_BYTES) for o in offsets), (tail, HEAD_BYTES)]
    return [(offset, min(count, size - offset)) for offset, count in places]
