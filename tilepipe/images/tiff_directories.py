"""Whether a TIFF's directories come to an end; tifffile follows a chain of them as it finds it."""

from __future__ import annotations

import struct
from typing import BinaryIO

NDPI = 65420
"""Tag of Hamamatsu's files: classic TIFFs in which the offsets of directories take 8 bytes."""


def check_directories(file: BinaryIO) -> None:
    """Refuse a file whose directories go round in a circle, or lie in one another.

    Directories that lie side by side take no more bytes than the file has.

    Raises
    ------
    ValueError
        When they take more.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\x00", b"\x00+")
    if len(head) < (16 if big else 8):
        return
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
    counted, counter = ("Q", 8) if big else ("H", 2)
    entry, link = (20, "Q") if big else (12, "I")
    taken = number = 0
    while 0 < offset < size:
        file.seek(offset)
        found = file.read(counter)
        if len(found) < counter:
            return
        (entries,) = struct.unpack(order + counted, found)
        if number == 0 and not big and _is_ndpi(file, order, entries):
            link = "Q"
        width = struct.calcsize(link)
        taken += counter + entries * entry + width
        if offset + entries * entry > size:
            return  # cut off, or nonsense: tifffile ends here too
        if taken > size:
            raise ValueError("its directories go round in a circle or lie in one another")
        file.seek(offset + counter + entries * entry)
        found = file.read(width)
        if len(found) < width:
            return
        (offset,) = struct.unpack(order + link, found)
        number += 1


def _is_ndpi(file: BinaryIO, order: str, entries: int) -> bool:
    data = file.read(12 * entries)
    return any(
        struct.unpack_from(order + "H", data, place)[0] == NDPI
        for place in range(0, len(data) - 11, 12)
    )
