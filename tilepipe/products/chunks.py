"""Whole chunks of a zarr array on a disk, encoded and written in the thread that asks for it.

zarr sends each chunk through an event loop and two other threads, which takes a millisecond of the
interpreter: more than a GPU needs for its pixels. What is written here is, byte for byte, what zarr
would write; arrays that `tilepipe.products.arrays` does not make are left to zarr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tilepipe.grid import CHUNK
from tilepipe.storage.zarr_store import SealingStore

Encode = Callable[[Any], bytes]
"""Compresses the bytes of a chunk."""


class ChunkWriter:
    """Writes whole chunks of one array. Several threads may write different chunks."""

    def __init__(self, array: zarr.Array[Any], store: SealingStore, encode: Encode) -> None:
        self._store, self._encode = store, encode
        self._chunk = array.chunks[-2:]
        self._fill = array.dtype.type(array.fill_value)

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ChunkWriter | None:
        """The writer of an array; None if only zarr can write it."""
        store, dtype, fill = array.store, array.dtype, array.fill_value
        if not isinstance(store, SealingStore) or store.local is None or store.read_only:
            return None
        chunks = (*[1] * (array.ndim - 2), CHUNK, CHUNK)
        if array.ndim not in (2, 3) or array.chunks != chunks or not _has_plain_keys(array):
            return None
        if not dtype.isnative or sys.byteorder != "little" or array.config.write_empty_chunks:
            return None
        # zarr tells 0.0 from -0.0, which for other types are one.
        if fill is None or not (dtype.kind in "ui" or (dtype.kind == "f" and np.isnan(fill))):
            return None
        encode = _compression(array)
        return None if encode is None else cls(array, store, encode)

    def write(self, keys: Iterable[str], pixels: NDArray[Any]) -> None:
        """Write the chunks of a window.

        Parameters
        ----------
        keys
            The names of the chunks in the store, plane by plane and row by row.
        pixels
            (H, W), or (C, H, W) of all planes: whole chunks, but for the array's own edge.

        Raises
        ------
        OSError
            When a chunk cannot be written, because the disk is full for example.
        """
        rows, columns = self._chunk
        names = iter(keys)
        for plane in pixels[None] if pixels.ndim == 2 else pixels:
            for y in range(0, plane.shape[0], rows):
                for x in range(0, plane.shape[1], columns):
                    self._write_one(next(names), plane[y : y + rows, x : x + columns])

    def _write_one(self, key: str, pixels: NDArray[Any]) -> None:
        empty = np.isnan(pixels) if np.isnan(self._fill) else pixels == self._fill
        if empty.all():
            self._store.remove(key)
            return
        if pixels.shape == self._chunk:
            chunk = np.ascontiguousarray(pixels)
        else:
            chunk = np.full(self._chunk, self._fill, pixels.dtype)
            chunk[: pixels.shape[0], : pixels.shape[1]] = pixels
        self._store.write(key, self._encode(chunk.reshape(-1).view(np.uint8)))


def _has_plain_keys(array: zarr.Array[Any]) -> bool:
    """Whether the names of chunks are those that `Layer.chunk_keys` gives."""
    from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding
    from zarr.core.metadata import ArrayV2Metadata

    metadata = array.metadata
    if isinstance(metadata, ArrayV2Metadata):
        return metadata.dimension_separator == "/"
    encoding = metadata.chunk_key_encoding
    return isinstance(encoding, DefaultChunkKeyEncoding) and encoding.separator == "/"


def _compression(array: zarr.Array[Any]) -> Encode | None:
    """What compresses the chunks of an array that is stored as ours are; None for any other."""
    from numcodecs import Zlib, Zstd
    from zarr.codecs import BytesCodec, ZstdCodec
    from zarr.core.metadata import ArrayV2Metadata

    metadata = array.metadata
    if isinstance(metadata, ArrayV2Metadata):
        compressor = metadata.compressor
        plain = not metadata.filters and metadata.order == "C"
        return compressor.encode if plain and isinstance(compressor, Zlib) else None
    match metadata.codecs:
        case (BytesCodec() as numbers, ZstdCodec() as zstd):
            if numbers.endian is not None and numbers.endian.value != "little":
                return None
            encode: Encode = Zstd(level=zstd.level, checksum=zstd.checksum).encode
            return encode
    return None
