"""A pyramid of zarr arrays, read by windows and written by whole chunks: one product of a mask."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tilepipe.errors import DamagedMaskError
from tilepipe.grid import CHUNK, Window
from tilepipe.products.base import require_inside
from tilepipe.products.chunks import ChunkWriter
from tilepipe.products.product import PixelForm
from tilepipe.storage import StoragePath
from tilepipe.storage.fsync import fsync_files
from tilepipe.storage.zarr_store import SealingStore
from tilepipe.text import first_line

BROKEN = (
    ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""What zarr, and whoever reads its attributes, raises for a folder that is not as it should be."""

Arrays = tuple["zarr.Array[Any]", ...]
"""The levels of a pyramid, largest first."""


class Layer:
    """The arrays of one product of a zarr mask, or of objects, largest first.

    Several threads may read, and write different chunks.
    """

    def __init__(self, path: StoragePath, product: PixelForm, arrays: Arrays) -> None:
        self.path = path
        """The path of the mask, in which the arrays lie."""
        self.product = product
        self.levels: tuple[tuple[int, int], ...] = tuple(
            (int(a.shape[-2]), int(a.shape[-1])) for a in arrays
        )
        """(height, width) of each level, largest first."""
        self.planes = 1 if product.flat else int(arrays[0].shape[0])
        self._arrays = arrays
        self._writers: dict[int, ChunkWriter | None] = {}
        self._settled: set[Path] = set()

    @property
    def store(self) -> Any:
        """The zarr store of its arrays."""
        return self._arrays[0].store

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Itself alone, so that it can stand for a mask in `tilepipe.products.pyramid`."""
        return (self,)

    @property
    def key(self) -> str:
        """The name and variant of the product."""
        return self.product.key

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """The stored pixels of a window: (H, W) if the product is flat, else (C, H, W).

        Raises DamagedMaskError if a chunk cannot be decoded.
        """
        require_inside(window, self.levels[level])
        return self._decoded(level, _selection(self._arrays[level], window))

    def read_plane(self, plane: int, window: Window, level: int = 0) -> NDArray[Any]:
        """One plane of a window, shape (H, W); flat products have only plane 0."""
        require_inside(window, self.levels[level])
        sides = _sides(window)
        return self._decoded(level, sides if self.product.flat else (plane, *sides))

    def write(self, window: Window, stored: NDArray[Any], level: int = 0) -> None:
        """Write whole chunks of a level in their stored form: (H, W) if flat, else (C, H, W).

        Raises
        ------
        ValueError
            When the window cuts a chunk, or the array does not fit the window.
        OSError
            When a chunk cannot be written, because the disk is full for example.
        """
        _require_whole_chunks(window, self.levels[level])
        array = self._arrays[level]
        if stored.dtype != array.dtype:
            raise ValueError(f"the mask holds {array.dtype}, not {stored.dtype}")
        expected = (*array.shape[:-2], *window.shape)
        if stored.shape != expected:
            raise ValueError(f"{window} takes an array of shape {expected}, not {stored.shape}")
        if stored.dtype.kind == "f":
            # The same bit pattern for all NaN, so that equal masks have equal bytes.
            stored = np.where(np.isnan(stored), stored.dtype.type(np.nan), stored)
        if level not in self._writers:
            self._writers[level] = ChunkWriter.of(array)
        writer = self._writers[level]
        if writer is None:
            array[_selection(array, window)] = stored
        else:
            writer.write(self.chunk_keys(window, level), stored)

    def chunk_keys(self, window: Window, level: int = 0) -> Iterator[str]:
        """The chunks that a window touches, stored or not, as paths in the mask's folder.

        They come plane by plane and row by row.
        """
        array = self._arrays[level]
        folder = chunk_folder(array)
        planes = [""] if array.ndim == 2 else [f"{plane}/" for plane in range(array.shape[0])]
        for plane in planes:
            for row in range(window.y // CHUNK, -(-window.stop_y // CHUNK)):
                for column in range(window.x // CHUNK, -(-window.stop_x // CHUNK)):
                    yield f"{folder}/{plane}{row}/{column}"

    def take_seals(self, window: Window, level: int = 0) -> str:
        """The seals of the chunks of a window that this object has just written.

        They are in the order of `chunk_keys`, separated by spaces, and computed from the bytes that
        were passed to the disk or object store, not read back (`tilepipe.storage.hashing.seal`).
        """
        store = self.store
        if not isinstance(store, SealingStore):
            raise ValueError(f"{self.path} was created, and not opened, by this object")
        return store.take_seals(self.chunk_keys(window, level))

    def stored_chunks(self, level: int = 0, plane: int = 0) -> set[tuple[int, int]]:
        """(row, column) of the stored chunks of a plane; all others have no answer."""
        return set(_numbered(self._folder(level, plane)))

    def stored_files(self, level: int) -> Iterator[StoragePath]:
        """The stored chunks of a level."""
        for plane in range(self.planes):
            folder = self._folder(level, plane)
            for row, column in sorted(_numbered(folder)):
                yield folder / str(row) / str(column)

    def files(self, window: Window | None = None, level: int = 0) -> Iterator[Path]:
        """The chunk files of a window, stored or not, or the stored ones of a level; local only."""
        if not isinstance(self.path, Path):
            return
        if window is not None:
            yield from (self.path / key for key in self.chunk_keys(window, level))
        else:
            yield from (Path(str(file)) for file in self.stored_files(level))

    def flush(self, window: Window | None = None, level: int = 0) -> None:
        """Flush the chunks of a window (or a level) to the disk."""
        if isinstance(self.path, Path):  # an object is durable when its writing returns
            fsync_files(self.files(window, level), self.path, self._settled)

    def _folder(self, level: int, plane: int) -> StoragePath:
        folder = self.path / chunk_folder(self._arrays[level])
        return folder if self.product.flat else folder / str(plane)

    def _decoded(self, level: int, selection: tuple[int | slice, ...]) -> NDArray[Any]:
        try:
            return np.asarray(self._arrays[level][selection])
        except (ArithmeticError, RuntimeError, ValueError, zlib.error) as error:
            # The codecs raise these for a damaged chunk, or metadata.
            raise DamagedMaskError(
                f"{self.path} is damaged ({first_line(error)}); write it again."
            ) from error


def chunk_folder(array: zarr.Array[Any]) -> str:
    """The folder of an array's chunks: the array's own in zarr format 2, and ``c`` in format 3."""
    return array.path if array.metadata.zarr_format == 2 else f"{array.path}/c"


def open_levels(store: SealingStore, names: Iterable[str]) -> Arrays:
    """Open the arrays of a pyramid."""
    return tuple(zarr.open_array(store, path=name, mode="r+") for name in names)


def _numbered(folder: StoragePath) -> Iterator[tuple[int, int]]:
    """(row, column) of the chunks in a folder; entries with other names are ignored."""
    if isinstance(folder, Path):
        if not folder.is_dir():
            return
        names = (
            (row.name, column.name)
            for row in os.scandir(folder)
            if row.name.isdecimal() and row.is_dir()
            for column in os.scandir(row)
        )
    else:
        names = ((chunk.parent.name, chunk.name) for chunk in folder.objects())
    yield from ((int(r), int(c)) for r, c in names if r.isdecimal() and c.isdecimal())


def _selection(array: zarr.Array[Any], window: Window) -> tuple[slice, ...]:
    return (*[slice(None)] * (array.ndim - 2), *_sides(window))


def _sides(window: Window) -> tuple[slice, slice]:
    return slice(window.y, window.stop_y), slice(window.x, window.stop_x)


def _require_whole_chunks(window: Window, shape: tuple[int, int]) -> None:
    require_inside(window, shape)
    starts = window.y % CHUNK == 0 and window.x % CHUNK == 0
    stops = all(
        stop % CHUNK == 0 or stop == size
        for stop, size in zip((window.stop_y, window.stop_x), shape, strict=True)
    )
    if not (starts and stops):
        raise ValueError(f"{window} cuts through chunks of {CHUNK} x {CHUNK} pixels")
