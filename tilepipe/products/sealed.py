"""Comparing the chunks of a mask with their seals, and listing the chunks on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tilepipe.errors import DamagedMaskError
from tilepipe.grid import CHUNK, Window, WindowGrid
from tilepipe.products.store import ZarrMask
from tilepipe.storage import ObjectPath, StoragePath
from tilepipe.storage.hashing import read_seal, size_matches

T = TypeVar("T")

AT_ONCE = 16
"""The number of chunks that are read at a time."""
BATCH = 256


def sizes_differ(mask: ZarrMask, seals: str, window: Window | None = None, level: int = 0) -> bool:
    """Whether the size of a chunk of a window (or a level) differs from that in its seal.

    Reads no content. On an object store, nothing is compared.
    """
    if not isinstance(mask.path, Path):
        return False
    keys, sealed = list(mask.chunk_keys(window, level)), seals.split(" ")
    if len(keys) != len(sealed):
        return True
    return not all(size_matches(mask.path / k, s) for k, s in zip(keys, sealed, strict=True))


def damaged_chunks(
    mask: ZarrMask, parts: Iterable[tuple[T, Window | None, int, str]]
) -> Iterator[tuple[T, str]]:
    """Read chunks, and yield those that do not match their seals: part name and path in the mask.

    Each part has any name, a window (None: all), a level, and the seals of its chunks.
    """

    def chunks() -> Iterator[tuple[T, str, str]]:
        for name, window, level, seals in parts:
            keys, sealed = list(mask.chunk_keys(window, level)), seals.split(" ")
            if len(keys) != len(sealed):
                sealed = [""] * len(keys)  # matches no chunk
            for key, seal in zip(keys, sealed, strict=True):
                yield name, key, seal

    wanted = chunks()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while batch := list(islice(wanted, BATCH)):
            found = pool.map(lambda chunk: read_seal(mask.path / chunk[1]), batch)
            for (name, key, seal), there in zip(batch, found, strict=True):
                if there != seal:
                    yield name, key


def can_be_decoded(mask: ZarrMask, window: Window | None = None, level: int = 0) -> bool:
    """Whether the chunks of a window (or a level) can be decoded and match their checksums."""
    window = window or Window(0, 0, *mask.levels[level])
    try:
        for strip in WindowGrid(window, (CHUNK, window.width)):
            for layer in mask.layers:
                layer.read(strip, level)
    except DamagedMaskError:
        return False
    return True


def chunks_there(store: StoragePath, folder: str) -> Iterator[tuple[str, int, int]]:
    """The stored chunks of an array, of all planes: path in the mask's folder, row and column.

    ``folder`` is that of the chunks, relative to the mask's.
    """
    for name in _names_below(store / folder):
        parts = name.split("/")
        if len(parts) in (2, 3) and all(part.isdecimal() for part in parts):
            yield f"{folder}/{name}", int(parts[-2]), int(parts[-1])


def _names_below(folder: StoragePath) -> Iterator[str]:
    if isinstance(folder, ObjectPath):
        yield from (file.key.removeprefix(f"{folder.key}/") for file in folder.objects())
        return
    for parent, _, names in os.walk(folder):
        inside = Path(parent).relative_to(folder).as_posix()
        yield from (name if inside == "." else f"{inside}/{name}" for name in names)
