"""Decoding the strips and tiles of a TIFF one by one, with a check of each for damage."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.images.bombs import image_size
from tilepipe.images.byte_ranges import Ahead, FileBytes
from tilepipe.images.corruption import JPEG, find_corruption
from tilepipe.images.source import UndecodableError
from tilepipe.images.tiff_colours import holds_ycbcr, to_rgb
from tilepipe.images.tiff_planes import Plane

BROKEN_SEGMENT = (
    tifffile.TiffFileError,
    EOFError,
    LookupError,
    RuntimeError,  # base of the exceptions of imagecodecs
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""Exceptions of decoders for broken data."""

IMAGES = JPEG | {33003, 33004, 33005, 34712, 34933, 50001}
"""TIFF compressions whose segments have sizes of their own: JPEG, JPEG 2000, PNG and WebP."""

BOMB_PIXELS = 2**16
"""Pixels beyond which a segment's own size matters."""


class SegmentDecoder:
    """Decodes the segments (strips and tiles) of one image of a TIFF.

    Raises
    ------
    InputError
        No codec at hand decodes them.
    """

    def __init__(self, path: str, file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
        keyframe = series.keyframe
        _check_codec(path, keyframe)
        self.dtype = np.dtype(series.dtype).newbyteorder("=")
        """Of a sample."""
        self._path = path
        self._raw_dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
        self._compression = int(keyframe.compression)
        self._ends_in_restarts = file.is_ndpi
        self._ycbcr = holds_ycbcr(keyframe, aperio=file.is_svs)

    def decode(
        self, plane: Plane, index: int, part: int, number: int, reader: FileBytes | Ahead
    ) -> NDArray[Any] | None:
        """Read and decode a segment, (rows, columns, samples); None where it was left out.

        Parameters
        ----------
        index
            Number of the page in the plane.
        part
            Number of the sample, where each has segments of its own.
        number
            Number of the segment, in one page and sample.
        reader
            Reads the file of the page.

        Raises
        ------
        UndecodableError
            It is damaged, or cannot be read.
        """
        file = plane.files[index]
        stored, offset, count = plane.locate(index, part, number)
        if not count:
            return None
        if offset + count > file.size:
            raise UndecodableError(
                f"tile {stored} lies beyond the end of the file, which was cut off"
            )
        try:
            data = reader.read(offset, count)
        except OSError as error:
            raise UndecodableError(f"tile {stored} cannot be read from disk ({error})") from error
        if len(data) < count:
            raise UndecodableError(f"tile {stored}: the file was cut off while it was open")
        if plane.raw_rows is not None:
            rows = count // plane.row_bytes
            samples = np.frombuffer(data, self._raw_dtype).reshape(rows, plane.width, -1)
            return to_rgb(samples, b"") if self._ycbcr else samples
        if reason := find_corruption(data, self._compression, restarts=self._ends_in_restarts):
            raise UndecodableError(f"tile {stored}: {reason}")
        size = image_size(data) if self._compression in IMAGES else None
        rows, columns = plane.chunk
        # Tiles of NDPI, and of writers that pad, are somewhat larger than they need to be.
        if size and size[0] * size[1] > 4 * rows * columns + BOMB_PIXELS:
            raise UndecodableError(
                f"tile {stored} claims {size[1]} x {size[0]} pixels (width x height), where there "
                f"is room for {columns} x {rows}"
            )
        return self._decompress(plane.pages[index], data, stored)

    def _decompress(self, page: Any, data: bytes, number: int) -> NDArray[Any]:
        keyframe = page.keyframe
        tables: dict[str, Any] = {}
        if page.jpegtables is not None:
            tables["jpegtables"] = page.jpegtables
        if keyframe.jpegheader is not None:
            tables["jpegheader"] = keyframe.jpegheader
        try:
            decoded, _, shape = keyframe.decode(data, number, **tables)
            samples: NDArray[Any] = decoded.reshape(shape)[0]
        except ImportError as error:
            raise _missing_codec(self._path, keyframe) from error
        except BROKEN_SEGMENT as error:
            raise UndecodableError(f"tile {number} is broken ({error})") from error
        if samples.dtype != self.dtype:
            raise UndecodableError(f"tile {number} holds {samples.dtype}, not {self.dtype}")
        return to_rgb(samples, data) if self._ycbcr else samples


def _check_codec(path: str, keyframe: Any) -> None:
    """Refuse what no codec at hand can decode."""
    try:
        tifffile.TIFF.DECOMPRESSORS[keyframe.compression]
    except (KeyError, ImportError) as error:
        raise _missing_codec(path, keyframe) from error
    decode = keyframe.decode
    if decode.__name__.startswith("decode_raise"):
        # tifffile keeps to itself what it cannot decode until it is asked to.
        try:
            decode(b"", 0)
        except (ValueError, NotImplementedError) as error:
            raise InputError(
                f"{path} is compressed in a way that tilepipe does not read ({error}); save it "
                "with another compression"
            ) from error


def _missing_codec(path: str, keyframe: Any) -> InputError:
    name = getattr(keyframe.compression, "name", str(keyframe.compression))
    return InputError(
        f"{path} is compressed with {name}, for which no codec is installed: "
        "pip install imagecodecs"
    )
