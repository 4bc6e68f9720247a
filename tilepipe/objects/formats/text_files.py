"""Text that is written in one go, compressed where its name ends in ``.gz``."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from tilepipe.storage import complete_or_absent

LEVEL = 4
"""Of compression: 6 takes twice as long for a tenth less."""


@contextmanager
def writing_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name when it is complete; equal content, equal bytes."""
    with complete_or_absent(path) as part, part.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # Neither name nor time, which the format has room for.
            with gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as zipped:
                yield cast(BinaryIO, zipped)
        else:
            yield file


@contextmanager
def writing(path: Path) -> Iterator[TextIO]:
    """As `writing_bytes`, for text in UTF-8."""
    with writing_bytes(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
        yield text


def reading_bytes(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed where its name ends in ``.gz``."""
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")
