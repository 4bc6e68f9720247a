"""Decompression bombs: compressed data that claims, or inflates to, more than its place holds.

Decoders make room for what the data says of itself, which a few bytes can put at gigabytes. Here
that is looked at before they do.
"""

from __future__ import annotations

import bz2
import lzma
import math
import struct
import zlib
from typing import Any, Self

import imagecodecs
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

SLACK = 2**16
"""Bytes that a chunk may inflate to beyond its pixels."""

HEAD = 32
"""Bytes in which a codec says the size of what it packed."""

_NOT_COMPRESSORS = frozenset({"bytes", "transpose", "crc32c", "sharding_indexed", "vlen-utf8"})
_STREAMS: dict[str, Any] = {
    "gzip": lambda: zlib.decompressobj(47),
    "zlib": lambda: zlib.decompressobj(47),
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}


class GuardedStore(WrapperStore[Store]):
    """A zarr store that refuses chunks which would inflate beyond their size."""

    codec: str | None = None
    limit = 0

    @classmethod
    def open_array(cls, store: Store, path: str = "", mode: str = "r") -> zarr.Array[Any]:
        """Open an array whose chunks take no more memory than their shape allows.

        Raises
        ------
        ValueError
            Where its chunks are compressed twice, so that their size cannot be told.
        """
        guarded = cls(store)
        array = zarr.open_array(guarded, path=path, mode=mode)
        names = [name for name in _codecs(array.metadata) if name not in _NOT_COMPRESSORS]
        if len(names) > 1:
            raise ValueError(f"its chunks are compressed twice, with {' and '.join(names)}")
        guarded.codec = names[0] if names else None
        # Filters of zarr 2 may make numbers of 8 bytes of those of one.
        guarded.limit = 8 * math.prod(array.chunks) * array.dtype.itemsize + SLACK
        return array

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a key; ValueError for a bomb."""
        found = await super().get(key, prototype, byte_range)
        if found is not None and self.codec is not None:
            refuse_bomb(self.codec, found, self.limit)
        return found

    def _with_store(self, store: Store) -> Self:
        other = type(self)(store)
        other.codec, other.limit = self.codec, self.limit
        return other


def refuse_bomb(codec: str, data: Buffer, limit: int) -> None:
    """Raise ValueError where compressed data would inflate to more than ``limit`` bytes."""
    size = _claimed(codec, data[:HEAD].to_bytes())
    if size is None and codec in _STREAMS:
        size = _streamed(codec, data.to_bytes(), limit)
    if size is None and codec == "zstd":
        try:
            imagecodecs.zstd_decode(data.to_bytes(), out=limit)
        except RuntimeError as error:
            size = limit + 1 if "too small" in str(error) else None
    if size is not None and size > limit:
        raise ValueError(f"it would inflate to more than the {limit:,} bytes of its place")


def _claimed(codec: str, head: bytes) -> int | None:
    """Return the size that the data claims to inflate to; None where it claims none."""
    if codec == "blosc" and len(head) >= 16:
        return int(struct.unpack_from("<I", head, 4)[0])
    if codec == "lz4" and len(head) >= 4:
        return int(struct.unpack_from("<I", head)[0])
    if codec == "zstd" and head[:4] == b"\x28\xb5\x2f\xfd" and len(head) >= 18:
        # RFC 8878, 3.1.1.1: a descriptor, perhaps a window, a dictionary, and the size.
        descriptor = head[4]
        single, kind = descriptor >> 5 & 1, descriptor >> 6
        place = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
        width = (single, 2, 4, 8)[kind]
        if not width:
            return None
        return int.from_bytes(head[place : place + width], "little") + (256 if width == 2 else 0)
    return None


def _streamed(codec: str, data: bytes, limit: int) -> int | None:
    try:
        return len(_STREAMS[codec]().decompress(data, limit + 1))
    except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error):
        return None  # the decoder says what is wrong


def _codecs(metadata: Any) -> list[str]:
    """Names of the codecs of an array, those within shards too."""
    if metadata.zarr_format == 2:
        return [] if metadata.compressor is None else [str(metadata.compressor.codec_id)]
    names = []
    for codec in metadata.codecs:
        inner = getattr(codec, "codecs", ())
        names += [_name(part) for part in (codec, *inner)]
    return names


def _name(codec: Any) -> str:
    return str(codec.to_dict()["name"]).removeprefix("numcodecs.")


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return the (rows, columns) that an encoded strip or tile claims; None where unknown.

    JPEG, JPEG 2000, PNG and WebP, whose decoders make room for what these say.
    """
    if data[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        columns, rows = struct.unpack_from(">II", data, 16)
        return rows, columns
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp_size(data)
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start >= 0 and len(data) >= start + 24:
        right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
        return max(0, bottom - top), max(0, right - left)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            rows, columns = struct.unpack_from(">HH", data, place + 5)
            return rows, columns
        if marker == 0xFF:
            place += 1
            continue
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        columns, rows = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
        return rows, columns
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        columns, rows = struct.unpack_from("<HH", data, 26)
        return rows & 0x3FFF, columns & 0x3FFF
    return None
