"""TIFF, BigTIFF, OME-TIFF, SVS and NDPI: strips and tiles, decoded one by one with tifffile.

tifffile finds the structure (series, pyramid, codecs) and decodes; which strips and tiles a
window needs is worked out here. Its zarr view would do as much, but gives zeros for what lies
beyond the end of a truncated file, and cannot say which tile was broken.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import pixel_sizes
from tilepipe.images.bands import RGB, narrowed
from tilepipe.images.base import PixelSize
from tilepipe.images.bombs import image_size
from tilepipe.images.directories import check_directories
from tilepipe.images.files import Ahead, FileBytes, ObjectBytes, for_library, open_bytes
from tilepipe.images.fingerprints import fingerprint_files
from tilepipe.images.levels import pyramid
from tilepipe.images.segments import JPEG, fault
from tilepipe.images.tiff_bands import band_names
from tilepipe.images.windowed import Description, UndecodableError
from tilepipe.places import is_url, place

BROKEN_STRUCTURE = (
    tifffile.TiffFileError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What tifffile raises on files that are not what they claim to be."""

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
"""What decoders raise on broken data."""

ALPHA = frozenset({1, 2})
"""Values of ExtraSamples: associated and unassociated alpha."""

RAW_BYTES = 2**18
"""About how much of an uncompressed strip is read at a time, however large the strip is."""

_Reader = FileBytes | Ahead
IMAGES = JPEG | {33003, 33004, 33005, 34712, 34933, 50001}
"""TIFF compressions whose segments have sizes of their own: JPEG, JPEG 2000, PNG and WebP."""

BOMB_PIXELS = 2**16
"""Pixels beyond which a segment's own size matters."""

PALETTE = 3
"""Value of PhotometricInterpretation."""


def open_tiff(path: str) -> TiffSource:
    """Open the first image of a TIFF file and its pyramid.

    Raises
    ------
    InputError
        It is broken, holds something other than one plane, or needs a codec that is missing.
    """
    try:
        check_directories(path)
        with tifffile.TiffFile(for_library(path)) as file:
            if not file.series:
                raise InputError(
                    f"{path} holds no image that can be found: its directory is missing, as in a "
                    "file that was cut off; copy it again from where it came"
                )
            return TiffSource(path, file)
    except BROKEN_STRUCTURE as error:
        raise InputError(
            f"{path} is a broken TIFF file ({error}); copy it again from where it came"
        ) from error


def is_plain(path: str) -> bool:
    """Whether a TIFF file is of no kind that its own maker defined, so that GDAL may know more."""
    try:
        check_directories(path)
        with tifffile.TiffFile(for_library(path)) as file:
            return bool(file.series) and _kind(file) == "TIFF"
    except BROKEN_STRUCTURE:
        return False


@dataclass(frozen=True, slots=True)
class Plane:
    """One level of one image: pages of one layout that together hold its bands."""

    pages: tuple[Any, ...]
    """A `tifffile.TiffPage` or `TiffFrame` for each group of bands."""
    files: tuple[FileBytes | ObjectBytes, ...]
    """Where the pages lie."""
    shifts: tuple[int, ...]
    """Added to the offsets in a page: planes of ImageJ lie one behind the other."""
    height: int
    width: int
    samples: int
    """Samples of each page."""
    separate: bool
    """Whether each sample has strips or tiles of its own (PlanarConfiguration 2)."""
    chunk: tuple[int, int]
    """(rows, columns) of a strip or tile, or of a part of a raw strip."""
    raw_rows: int | None = None
    """Rows of a strip, where strips are not compressed and so can be read in part."""

    def segments(self, window: Window) -> Iterator[tuple[int, Window]]:
        """Number, counted in one page and sample, and extent of all that a window touches."""
        rows, columns = self.chunk
        across = -(-self.width // columns)
        for row in range(window.y // rows, -(-window.stop_y // rows)):
            for column in range(window.x // columns, -(-window.stop_x // columns)):
                y, x = row * rows, column * columns
                height, width = min(rows, self.height - y), min(columns, self.width - x)
                yield row * across + column, Window(y, x, height, width)

    @property
    def per_sample(self) -> int:
        """Segments that one sample takes where each has its own."""
        return -(-self.height // self.chunk[0]) * -(-self.width // self.chunk[1])

    @property
    def _stored(self) -> int:
        """As `per_sample`, of what the file holds: raw strips count whole."""
        return self.per_sample if self.raw_rows is None else -(-self.height // self.raw_rows)

    def locate(self, index: int, sample: int, number: int) -> tuple[int, int, int]:
        """Number in its page, offset and count of bytes of a segment; 0 bytes if left out."""
        page, shift = self.pages[index], self.shifts[index]
        stored, skip = number, 0
        if self.raw_rows is not None:
            stored, skip = divmod(number * self.chunk[0], self.raw_rows)
        stored += sample * self._stored
        if stored >= min(len(page.dataoffsets), len(page.databytecounts)):
            return stored, 0, 0
        offset, count = page.dataoffsets[stored], page.databytecounts[stored]
        if not offset or not count:
            return stored, 0, 0
        if self.raw_rows is not None:
            rows = min(self.chunk[0], self.height - number * self.chunk[0])
            if (skip + rows) * self.row_bytes > count:
                raise UndecodableError(f"strip {stored} is shorter than it should be")
            offset, count = offset + skip * self.row_bytes, rows * self.row_bytes
        return stored, offset + shift, count

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a raw strip."""
        samples = 1 if self.separate else self.samples
        return int(self.width * samples * self.pages[0].keyframe.dtype.itemsize)

    @property
    def sparse(self) -> bool:
        """Whether the file leaves out some segment."""
        total = self._stored * (self.samples if self.separate else 1)
        return any(
            min(len(page.dataoffsets), len(page.databytecounts)) < total
            or 0 in page.databytecounts
            or 0 in page.dataoffsets
            for page in self.pages
        )


class TiffSource:
    """The first series of a TIFF file.

    A strip or tile of no bytes is by convention one that was left out: it reads as the nodata
    value or 0, and is not valid.
    """

    def __init__(self, path: str, file: tifffile.TiffFile) -> None:
        series = file.series[0]
        _check_axes(path, series)
        _check_codec(path, series.keyframe)
        self._path = path
        self._files: dict[str, FileBytes | ObjectBytes] = {}
        self._selected: tuple[int, ...] | None = None
        self._alpha: int | None
        self._palette: NDArray[Any] | None
        try:
            self.description = self._describe(path, file, series)
        except BaseException:
            self.close()
            raise

    def read(self, window: Window, level: int) -> NDArray[Any]:
        """As `Source.read`."""
        return self._read(window, level, None)

    def read_masked(self, window: Window, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `Source.read_masked`."""
        valid = np.ones(window.shape, bool)
        return self._read(window, level, valid), valid

    def select(self, bands: Sequence[int]) -> None:
        """As `Source.select`."""
        plane = self._planes[0]
        apart = plane.separate or plane.samples == 1
        sparse = any(each.sparse for each in self._planes)
        if self._palette is not None:
            self._palette = self._palette[:, list(bands)]
        else:
            self._selected = tuple(bands)
            self._alpha = None if self._alpha in bands else self._alpha
        self.description = replace(
            narrowed(self.description, bands, apart=apart and self._palette is None),
            masked=self._alpha is not None or sparse,
        )

    def fingerprint(self) -> str:
        """As `Image.fingerprint`."""
        return fingerprint_files(file.path for file in self._files.values())

    def close(self) -> None:
        """Release the file."""
        for file in self._files.values():
            file.close()

    def _describe(
        self, path: str, file: tifffile.TiffFile, series: tifffile.TiffPageSeries
    ) -> Description:
        keyframe = series.keyframe
        levels = pyramid([_size(level) for level in series.levels])
        self._planes = tuple(self._plane(series.levels[number]) for number in levels)
        samples = len(self._planes[0].pages) * self._planes[0].samples
        if samples < 1:
            raise ValueError("it has no samples")
        self._palette = _palette(keyframe)
        self._alpha = samples - 1 if _has_alpha(keyframe) and samples > 1 else None
        self._compression = int(keyframe.compression)
        self._ndpi = file.is_ndpi
        self._raw_dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
        self._sample_dtype = np.dtype(series.dtype).newbyteorder("=")
        nodata = _nodata(keyframe)
        pixel_size, doubt = _pixel_size(file)
        self._fill = nodata or 0
        bands = 3 if self._palette is not None else samples - (self._alpha is not None)
        dtype = self._sample_dtype if self._palette is None else self._palette.dtype
        return Description(
            path=path,
            kind=_kind(file),
            levels=tuple(levels.values()),
            bands=bands,
            # Files of 1 bit a pixel: numbers to a network, as every other image.
            dtype=np.dtype(np.uint8) if dtype == np.bool_ else dtype,
            chunks=tuple(plane.chunk for plane in self._planes),
            pixel_size=pixel_size,
            pixel_size_doubt=doubt,
            nodata=() if nodata is None or self._palette is not None else (nodata,) * bands,
            palette=self._palette is not None,
            masked=self._alpha is not None or any(plane.sparse for plane in self._planes),
            band_names=RGB if self._palette is not None else band_names(file, series, bands),
            alpha=self._alpha,
        )

    def _plane(self, series: tifffile.TiffPageSeries) -> Plane:
        keyframe = series.keyframe
        count = math.prod(series.shape) // math.prod(keyframe.shape)
        if series.dataoffset is None:
            pages = tuple(series[number] for number in range(count))
            shifts = (0,) * count
        else:
            pages = (series[0],) * count
            page_bytes = keyframe.size * keyframe.dtype.itemsize
            shifts = tuple(number * page_bytes for number in range(count))
        if any(page is None for page in pages):
            raise ValueError("a plane that its metadata names is missing")
        _ = keyframe.decode  # a cached property, not safe to make from several threads at once
        return Plane(
            pages=pages,
            files=tuple(self._file(page.parent.filehandle.path) for page in pages),
            shifts=shifts,
            height=keyframe.imagelength,
            width=keyframe.imagewidth,
            samples=keyframe.samplesperpixel,
            separate=keyframe.planarconfig == 2 and keyframe.samplesperpixel > 1,
            chunk=_chunk(keyframe),
            raw_rows=min(keyframe.rowsperstrip, keyframe.imagelength) if _raw(keyframe) else None,
        )

    def _file(self, path: str) -> FileBytes | ObjectBytes:
        # Of a file that was handed to it, tifffile has no path.
        path = self._path if is_url(self._path) else path
        if path not in self._files:
            self._files[path] = open_bytes(place(path))
        return self._files[path]

    def _read(self, window: Window, level: int, valid: NDArray[np.bool_] | None) -> NDArray[Any]:
        """Pixels of a window; what is not valid is cleared in ``valid``, where it is given."""
        plane = self._planes[level]
        pixels = np.empty((*window.shape, self.description.bands), self.description.dtype)
        readers = self._readers(plane, window)
        for number, part in plane.segments(window):
            common = window.intersect(part)
            assert common is not None, "a segment that the window does not touch"
            inside, target = common.slices(part), common.slices(window)
            for band, samples in self._samples(plane, number, readers):
                self._place(samples, band, inside, pixels[target], valid, target)
        return pixels

    def _readers(self, plane: Plane, window: Window) -> list[_Reader]:
        """What reads the segments of a window, for each page of a plane."""
        if not is_url(self._path):
            return [file.ahead(()) for file in plane.files]
        ranges: dict[str, list[tuple[int, int]]] = {str(file.path): [] for file in plane.files}
        for number, _ in plane.segments(window):
            for index, sample in self._parts(plane):
                file = plane.files[index]
                with suppress(UndecodableError):  # said when it is that segment's turn
                    _, offset, count = plane.locate(index, sample, number)
                    if count and offset + count <= file.size:
                        ranges[str(file.path)].append((offset, count))
        ahead = {str(file.path): file.ahead(ranges[str(file.path)]) for file in plane.files}
        return [ahead[str(file.path)] for file in plane.files]

    def _parts(self, plane: Plane) -> Iterator[tuple[int, int]]:
        """(page, sample) of each part of a segment that is needed, in the order of reading."""
        parts = plane.samples if plane.separate else 1
        held = 1 if plane.separate else plane.samples
        for index in range(len(plane.pages)):
            for sample in range(parts):
                first = index * plane.samples + sample
                if self._is_needed(range(first, first + held)):
                    yield index, sample

    def _is_needed(self, samples: range) -> bool:
        return self._selected is None or any(n in samples for n in (*self._selected, self._alpha))

    def _samples(
        self, plane: Plane, number: int, readers: list[_Reader]
    ) -> Iterator[tuple[int, NDArray[Any] | None]]:
        """First band, and samples (rows, columns, bands) or None, of each part of a segment."""
        for index, sample in self._parts(plane):
            samples = self._decode(plane, index, sample, number, readers[index])
            yield index * plane.samples + sample, samples

    def _place(
        self,
        samples: NDArray[Any] | None,
        band: int,
        inside: tuple[slice, slice],
        pixels: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        target: tuple[slice, slice],
    ) -> None:
        if samples is None:
            count = self._planes[0].samples if not self._planes[0].separate else 1
            for place, _ in self._places(band, count):
                pixels[..., place] = self._fill if self._palette is None else 0
            if valid is not None:
                valid[target] = False
            return
        samples = samples[inside]
        if samples.shape[:2] != pixels.shape[:2]:
            raise UndecodableError("a tile is smaller than it should be")
        if self._palette is not None:
            pixels[...] = self._palette[samples[..., 0]]
            return
        if self._alpha is not None and band + samples.shape[2] > self._alpha:
            if valid is not None:
                valid[target] &= samples[..., self._alpha - band] != 0
            samples = samples[..., : self._alpha - band]
        for place, sample in self._places(band, samples.shape[2]):
            pixels[..., place] = samples[..., sample]

    def _places(self, first: int, count: int) -> list[tuple[Any, Any]]:
        """(place among the bands, place among the samples) of a part of a segment."""
        if self._palette is not None:
            return [(slice(None), slice(0, 1))]
        if self._selected is None:
            stop = min(first + count, self.description.bands)  # without alpha
            return [(slice(first, stop), slice(0, stop - first))]
        return [
            (place, sample - first)
            for place, sample in enumerate(self._selected)
            if first <= sample < first + count
        ]

    def _decode(
        self, plane: Plane, index: int, sample: int, number: int, reader: _Reader
    ) -> NDArray[Any] | None:
        """A segment, shape (rows, columns, samples), or None where it was left out."""
        file = plane.files[index]
        stored, offset, count = plane.locate(index, sample, number)
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
            return np.frombuffer(data, self._raw_dtype).reshape(rows, plane.width, -1)
        if reason := fault(data, self._compression, restarts=self._ndpi):
            raise UndecodableError(f"tile {stored}: {reason}")
        size = image_size(data) if self._compression in IMAGES else None
        rows, columns = plane.chunk
        # Tiles of NDPI, and of writers that pad, are somewhat larger than they need to be.
        if size and size[0] * size[1] > 4 * rows * columns + BOMB_PIXELS:
            raise UndecodableError(
                f"tile {stored} says that it has {size[0]} x {size[1]} pixels, where there is "
                f"room for {rows} x {columns}"
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
            raise _missing_codec(self.description.path, keyframe) from error
        except BROKEN_SEGMENT as error:
            raise UndecodableError(f"tile {number} is broken ({error})") from error
        if samples.dtype != self._sample_dtype:
            raise UndecodableError(f"tile {number} holds {samples.dtype}, not {self._sample_dtype}")
        return samples


def _kind(file: tifffile.TiffFile) -> str:
    for kind in ("svs", "ndpi"):
        if getattr(file, f"is_{kind}"):
            return kind.upper()
    if file.is_ome:
        return "OME-TIFF"
    if file.is_imagej:
        return "ImageJ TIFF"
    kind = file.series[0].kind
    return "TIFF" if kind in {"generic", "uniform", "shaped"} else f"TIFF ({kind})"


def _size(series: tifffile.TiffPageSeries) -> tuple[int, int]:
    return series.keyframe.imagelength, series.keyframe.imagewidth


def _chunk(keyframe: Any) -> tuple[int, int]:
    if keyframe.is_tiled:
        return keyframe.tilelength, keyframe.tilewidth
    rows = min(keyframe.rowsperstrip, keyframe.imagelength)
    if _raw(keyframe):
        separate = keyframe.planarconfig == 2
        row_bytes = keyframe.imagewidth * keyframe.dtype.itemsize
        row_bytes *= 1 if separate else keyframe.samplesperpixel
        largest = max(1, min(rows, RAW_BYTES // row_bytes))
        # A whole part of the strip, so that none lies in two.
        rows = next(part for part in range(largest, 0, -1) if rows % part == 0)
    return rows, keyframe.imagewidth


def _raw(keyframe: Any) -> bool:
    """Whether strips are rows of numbers one after the other, as they will be in memory."""
    return (
        not keyframe.is_tiled
        and keyframe.compression == 1
        and keyframe.predictor == 1
        and keyframe.fillorder == 1
        and keyframe.dtype is not None
        and keyframe.bitspersample == keyframe.dtype.itemsize * 8
        and not keyframe.is_subsampled
    )


def _check_axes(path: str, series: tifffile.TiffPageSeries) -> None:
    keyframe = series.keyframe
    sizes = {axis: size for axis, size in zip(series.axes, series.shape, strict=True) if size > 1}
    for axis, size in sizes.items():
        if axis not in "YXSC":
            raise InputError(
                f"{path} has {size} planes along axis {axis}, and tilepipe reads one: save the "
                "plane you want as a file of its own, or name the axis C if these are channels"
            )
    if "C" in sizes and "S" in sizes:
        raise InputError(
            f"{path} has {sizes['C']} channels of {sizes['S']} colours each: save the channel you "
            "want as a file of its own"
        )
    if keyframe.imagedepth > 1 or "YX" not in series.axes:
        raise InputError(f"{path} is not a plane of rows and columns (axes {series.axes})")
    if keyframe.dtype is None or keyframe.dtype.kind not in "buif":
        raise InputError(
            f"{path} holds samples that tilepipe does not read ({keyframe.dtype or 'unknown'}): "
            "save it with integer or floating-point ones"
        )


def _check_codec(path: str, keyframe: Any) -> None:
    if keyframe.compression == 1:
        return
    try:
        tifffile.TIFF.DECOMPRESSORS[keyframe.compression]
    except (KeyError, ImportError) as error:
        raise _missing_codec(path, keyframe) from error


def _missing_codec(path: str, keyframe: Any) -> InputError:
    name = getattr(keyframe.compression, "name", str(keyframe.compression))
    return InputError(
        f"{path} is compressed with {name}, for which no codec is installed: "
        "pip install imagecodecs"
    )


def _has_alpha(keyframe: Any) -> bool:
    return bool(keyframe.extrasamples) and int(keyframe.extrasamples[-1]) in ALPHA


def _palette(keyframe: Any) -> NDArray[Any] | None:
    """The colours of a palette image, shape (entries, 3); None where there are none."""
    if keyframe.photometric != PALETTE or keyframe.colormap is None:
        return None
    colours: NDArray[Any] = np.ascontiguousarray(keyframe.colormap.T)
    # TIFF 6.0 wants 16 bits; some writers put 8 in.
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _nodata(keyframe: Any) -> float | None:
    return float(keyframe.nodata) if "GDAL_NODATA" in keyframe.tags else None


def _pixel_size(file: tifffile.TiffFile) -> tuple[PixelSize | None, str | None]:
    """The pixel size, and why it is in doubt where the file contradicts itself."""
    keyframe = file.series[0].keyframe
    resolution = _resolution(keyframe, "YResolution"), _resolution(keyframe, "XResolution")
    unit = keyframe.tags.get("ResolutionUnit")
    largest = math.inf if file.is_ndpi else pixel_sizes.LARGEST_PLAIN_UM
    tags = pixel_sizes.from_resolution(resolution, int(unit.value) if unit else 2, largest)
    stated = [("its resolution tag", tags)]
    if file.is_svs:
        stated.insert(0, ("its MPP", pixel_sizes.from_svs(keyframe.description)))
    elif file.is_ome:
        stated.insert(0, ("its OME-XML", pixel_sizes.from_ome_xml(file.ome_metadata or "")))
    elif file.is_imagej:
        stated.insert(
            0, ("its ImageJ metadata", pixel_sizes.from_imagej(file.imagej_metadata, resolution))
        )
    return pixel_sizes.settle(stated)


def _resolution(keyframe: Any, name: str) -> float:
    """Pixels per unit, or NaN."""
    tag = keyframe.tags.get(name)
    if tag is None:
        return math.nan
    numerator, denominator = tag.value
    return numerator / denominator if denominator else math.nan
