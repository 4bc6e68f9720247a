"""Short hashes of large files: by samples of their content, never by name or time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tilepipe.errors import InputError

SAMPLES = 64
"""Evenly spaced places at which a file is looked at."""

SAMPLE_BYTES = 4096
"""Read at each place."""

HEAD_BYTES = 65536
"""Read at either end, where formats keep what they say about the rest."""


def fingerprint_files(
    paths: Iterable[Path], texts: Iterable[bytes] = (), samples: int = SAMPLES
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
    for path in paths:
        _add_file(digest, path, samples)
    return digest.hexdigest()[:16]


def _add_file(digest: hashlib._Hash, path: Path, samples: int) -> None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest.update(b"file %d " % size)
            digest.update(file.read(HEAD_BYTES))
            last = max(0, size - SAMPLE_BYTES)
            for number in range(1, samples + 1):
                file.seek(last * number // (samples + 1))
                digest.update(file.read(SAMPLE_BYTES))
            file.seek(max(0, size - HEAD_BYTES))
            digest.update(file.read(HEAD_BYTES))
    except FileNotFoundError:
        digest.update(b"missing ")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); look whether its disk is there and sound"
        ) from error
