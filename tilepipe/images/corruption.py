"""Damage in a compressed strip or tile that decoders do not report.

libjpeg decodes a JPEG that ends early, or that is broken in the middle, into grey or shifted
blocks and only counts a warning, which neither imagecodecs nor GDAL raises. JPEG 2000 decoders,
and GDAL's of deflate, do the like when the end of a tile was never written and reads as zeros.
Noise that leaves the structure intact cannot be told where a format has no checksum: in JPEG,
JPEG 2000, WebP, LZW and uncompressed data.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

JPEG = frozenset({6, 7, 33007, 34892})
"""TIFF compressions that are JPEG (ITU-T T.81)."""

DEFLATE = frozenset({8, 32946})
"""TIFF compressions that are deflate (zlib), whose data ends in a checksum."""

COMPRESSIONS = {"JPEG": 7, "YCBCR JPEG": 7, "DEFLATE": 8, "JPEG2000": 34712}
"""TIFF compressions in which GDAL does not report damage, by GDAL's names for them."""

ENDS_IN_MARKS = frozenset({8, 32946, 33003, 33004, 33005, 34712})
"""TIFF compressions whose sound data ends in something: deflate's checksum, JPEG 2000's marker."""

ZERO_TAIL = 16
"""So many zero bytes are neither such an end nor the padding after it."""

TAIL_BYTES = 512
"""What `find_corruption` needs to see of the end of a segment that is not read whole."""

PIECE = 2**20
"""Bytes inflated, or looked at, at a time."""

_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
# Within a scan a 0xFF byte is followed by 0 (stuffing), 0xFF (fill), a restart marker, the end or,
# in progressive files, a segment that may stand between scans: tables, scan, comment, application.
_MAY_FOLLOW = np.zeros(256, np.bool_)
_MAY_FOLLOW[[0x00, 0xFF, *range(0xD0, 0xD8), 0xD9, 0xC4, *range(0xDA, 0xDE)]] = True
_MAY_FOLLOW[[*range(0xE0, 0xF0), 0xFE]] = True


def find_corruption(segment: bytes, compression: int, *, restarts: bool = False) -> str | None:
    """Find damage in an encoded strip or tile; None where there is none.

    Parameters
    ----------
    segment
        Its bytes, or at least its last `TAIL_BYTES`.
    compression
        Value of the TIFF tag.
    restarts
        Whether the segment may end in a JPEG restart marker: the strips of NDPI do.
    """
    if compression in JPEG:
        return _find_jpeg_corruption(segment, restarts)
    if compression in ENDS_IN_MARKS and not any(segment[-ZERO_TAIL:]):
        return "its compressed data ends in zeros, as if it had not been written to the end"
    return None


def find_deflate_corruption(segment: bytes) -> str | None:
    """Find damage in the whole of a deflated strip or tile; None where there is none.

    Its checksum tells noise that can be decoded. GDAL stops where the tile is full, before that.
    """
    decoder, rest = zlib.decompressobj(), segment
    try:
        while not decoder.eof:
            made = decoder.decompress(rest, PIECE)
            rest = decoder.unconsumed_tail
            if not made and not rest and not decoder.eof:
                return "its deflate data ends early"
    except zlib.error as error:
        return f"its deflate data is broken ({error})"
    return None


def _find_jpeg_corruption(segment: bytes, restarts: bool) -> str | None:
    # Within a scan 0xFF bytes are stuffed, so a marker there is a marker. What follows the end
    # is padding, or in pictures what their makers append. With numpy, which lets other threads go
    # on meanwhile, as searching in bytes does not.
    kinds = _markers(np.frombuffer(segment, np.uint8))
    scans = np.flatnonzero(kinds == _START_OF_SCAN)
    ends = np.flatnonzero(kinds == _END_OF_IMAGE)
    if scans.size:
        ends = ends[ends >= scans[-1]]
    if not ends.size and not (restarts and _ends_in_restart(segment)):
        return "its JPEG data ends early"
    scanned = kinds[scans[0] if scans.size else 0 : ends[0] if ends.size else None]
    if not _MAY_FOLLOW[scanned].all():
        return "its JPEG data is broken"
    return None


def _markers(content: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What follows each 0xFF byte."""
    found = []
    for start in range(0, len(content), PIECE):  # places take eight times the memory of bytes
        piece = content[start : start + PIECE + 1]
        found.append(piece[np.flatnonzero(piece[:-1] == 0xFF) + 1])
    return found[0] if len(found) == 1 else np.concatenate([np.empty(0, np.uint8), *found])


def _ends_in_restart(segment: bytes) -> bool:
    return len(segment) >= 2 and segment[-2] == 0xFF and 0xD0 <= segment[-1] <= 0xD7
