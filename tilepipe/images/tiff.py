"""TIFF of all makers: strips and tiles, decoded one by one with tifffile.

tifffile finds the structure (series, pyramid, codecs) and decodes; which strips and tiles a
window needs is worked out here. Its zarr view would do as much, but gives zeros for what lies
beyond the end of a truncated file, and cannot say which tile was broken.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.bands import RGB, narrowed
from tilepipe.images.base import RasterGrid
from tilepipe.images.byte_ranges import Ahead, FileBytes, ObjectBytes, open_bytes
from tilepipe.images.fingerprints import fingerprint_files
from tilepipe.images.helpers import for_each
from tilepipe.images.levels import pyramid
from tilepipe.images.library_warnings import listening, remarks
from tilepipe.images.ome_sets import check_set, companion_xml
from tilepipe.images.orientation import TAG as ORIENTATION
from tilepipe.images.orientation import orientation_notes
from tilepipe.images.probe import TIFF_SIGNATURES, Probe
from tilepipe.images.series import choose, show_choices
from tilepipe.images.source import Description, UndecodableError
from tilepipe.images.tiff_bands import band_names
from tilepipe.images.tiff_colours import (
    check_colours,
    has_alpha,
    notes_on_colours,
    palette_of,
)
from tilepipe.images.tiff_decoding import SegmentDecoder
from tilepipe.images.tiff_directories import check_directories
from tilepipe.images.tiff_planes import Plane, chunk_of, is_raw
from tilepipe.images.tiff_series import bands_of, check_axes, kind_of, pixel_size_of, series_of
from tilepipe.images.tiff_vendors import check_overlaps
from tilepipe.storage import as_path, is_url

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
"""Exceptions of tifffile for broken files."""


class TiffStructure:
    """A TIFF whose directories have been read, with what tifffile logged meanwhile."""

    def __init__(self, probe: Probe) -> None:
        self.heard: list[str] = []
        with listening(self.heard):
            check_directories(probe.file)
            self.file = tifffile.TiffFile(probe.file, offset=0)
            xml = self.file.ome_metadata
            companion = companion_xml(probe.path, xml) if xml else None
            check_set(probe.path, companion or xml or "")
            if companion is not None:
                self.file = tifffile.TiffFile(probe.file, offset=0, omexml=companion)

    @property
    def has_vendor_metadata(self) -> bool:
        """Whether the file holds images in a form that a maker or a program defined."""
        with listening(self.heard):
            return not self.file.series or kind_of(self.file) != "TIFF"


def recognises(probe: Probe) -> bool:
    """Tell whether a TIFF is read here, and not by GDAL, which may know more of it."""
    if not probe.head.startswith(TIFF_SIGNATURES):
        return False
    notes = _plain_notes(probe)
    if notes is None:
        return True
    from tilepipe.images.raster import has_gdal_metadata  # slides do without GDAL, slow to load

    if not has_gdal_metadata(probe):
        return True
    probe.notes = notes
    return False


def open_source(probe: Probe) -> TiffSource:
    """Open an image of a TIFF and its pyramid: the main one, unless another is chosen.

    Raises
    ------
    InputError
        It is broken, holds something other than one plane, or needs a codec that is missing.
    """
    path = probe.path
    try:
        structure = probe.once(TiffStructure)
        with listening(structure.heard):
            if not structure.file.series:
                raise InputError(
                    f"{path} holds no image that can be found: its directory is missing, as in a "
                    "file that was cut off; copy it again from where it came"
                )
            return TiffSource(probe, structure)
    except BROKEN_STRUCTURE as error:
        raise InputError(
            f"{path} cannot be read as a TIFF file ({error}); if other programs cannot open it "
            "either, copy it again from where it came"
        ) from error


def _plain_notes(probe: Probe) -> tuple[str, ...] | None:
    """What is not applied of a TIFF without a vendor's metadata, of which GDAL may know more.

    None for all others, and for those that cannot be read.
    """
    try:
        structure = probe.once(TiffStructure)
        if structure.has_vendor_metadata:
            return None
        return _not_applied(probe.path, structure.file.pages.first)
    except (*BROKEN_STRUCTURE, InputError):
        return None


class TiffSource:
    """One series of a TIFF file.

    A strip or tile of no bytes is by convention one that was left out: it reads as the nodata
    value or 0, and is not valid.
    """

    def __init__(self, probe: Probe, structure: TiffStructure) -> None:
        path, file = probe.path, structure.file
        found = series_of(file)
        if not found:
            raise InputError(f"{path} holds no plane of rows and columns")
        number = choose(path, found, probe.series).number
        series = file.series[number]
        try:
            check_axes(path, series, labels=probe.labels)
            _not_applied(path, series.keyframe)
        except InputError as error:
            others = [other for other in found if other.number != number]
            if not others:
                raise
            raise InputError(
                f"{error}; or take another image of the file with --series: {show_choices(others)}"
            ) from None
        self._decoder = SegmentDecoder(path, file, series)
        check_overlaps(path, file, [page for page in series.pages if page is not None])
        self._path, self._labels = path, probe.labels
        self._files: dict[str, FileBytes | ObjectBytes] = {}
        self._selected: tuple[int, ...] | None = None
        self._alpha: int | None
        self._palette: NDArray[Any] | None
        try:
            self.description = self._describe(path, file, number)
            self.description = replace(
                self.description,
                series=tuple(found),
                series_number=number,
                # Last: pages are read, and remarked on, as they are looked at.
                notes=self.description.notes + remarks("tifffile", structure.heard),
            )
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

    def select(self, bands: Sequence[int]) -> TiffSource:
        """As `Source.select`."""
        selected = copy(self)
        plane = self._planes[0]
        apart = plane.separate or plane.samples == 1
        sparse = any(each.sparse for each in self._planes)
        if self._palette is not None:
            selected._palette = self._palette[:, list(bands)]
        else:
            selected._selected = tuple(bands)
            selected._alpha = None if self._alpha in bands else self._alpha
        selected.description = replace(
            narrowed(self.description, bands, apart=apart and self._palette is None),
            masked=selected._alpha is not None or sparse,
        )
        return selected

    def fingerprint(self) -> str:
        """As `Image.fingerprint`."""
        return fingerprint_files(file.path for file in self._files.values())

    def close(self) -> None:
        """Release the file."""
        for file in self._files.values():
            file.close()

    def _describe(self, path: str, file: tifffile.TiffFile, number: int) -> Description:
        series = file.series[number]
        keyframe = series.keyframe
        levels = pyramid([_size(level) for level in series.levels])
        self._planes = tuple(self._plane(series.levels[place]) for place in levels)
        samples = len(self._planes[0].pages) * self._planes[0].samples
        if samples < 1:
            raise ValueError("it has no samples")
        self._palette = None if self._labels else palette_of(keyframe)
        self._alpha = samples - 1 if has_alpha(keyframe) and samples > 1 else None
        nodata = _nodata(keyframe)
        pixel_size, doubt = pixel_size_of(file, number)
        self._fill = nodata or 0
        bands = bands_of(series, labels=self._labels)
        dtype = self._decoder.dtype if self._palette is None else self._palette.dtype
        return Description(
            path=path,
            kind=kind_of(file),
            levels=tuple(levels.values()),
            bands=bands,
            # Files of 1 bit a pixel: numbers to a network, as every other image.
            dtype=np.dtype(np.uint8) if dtype == np.bool_ else dtype,
            chunks=tuple(plane.chunk for plane in self._planes),
            grid=RasterGrid(levels[0].height, levels[0].width, pixel_size),
            pixel_size_doubt=doubt,
            nodata=() if nodata is None or self._palette is not None else (nodata,) * bands,
            palette=self._palette is not None,
            masked=self._alpha is not None or any(plane.sparse for plane in self._planes),
            band_names=RGB if self._palette is not None else band_names(file, series, bands),
            alpha=self._alpha,
            notes=_not_applied(path, keyframe),
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
            chunk=chunk_of(keyframe),
            raw_rows=min(keyframe.rowsperstrip, keyframe.imagelength) if is_raw(keyframe) else None,
        )

    def _file(self, path: str) -> FileBytes | ObjectBytes:
        # Of a file that was handed to it, tifffile has no path.
        path = self._path if is_url(self._path) else path
        if path not in self._files:
            self._files[path] = open_bytes(as_path(path))
        return self._files[path]

    def _read(self, window: Window, level: int, valid: NDArray[np.bool_] | None) -> NDArray[Any]:
        """Pixels of a window; what is not valid is cleared in ``valid``, where it is given."""
        plane = self._planes[level]
        pixels = np.empty((*window.shape, self.description.bands), self.description.dtype)
        readers = self._readers(plane, window)

        def read(segment: tuple[int, Window]) -> None:
            number, part = segment
            common = window.intersect(part)
            assert common is not None, "a segment that the window does not touch"
            inside, target = common.slices(part), common.slices(window)
            for band, samples in self._samples(plane, number, readers):
                self._place(samples, band, inside, pixels[target], valid, target)

        if is_url(self._path):  # readers of objects fetch ahead, in order
            for segment in plane.segments(window):
                read(segment)
        else:
            for_each(read, plane.segments(window))
        return pixels

    def _readers(self, plane: Plane, window: Window) -> list[FileBytes | Ahead]:
        """Return a reader of the segments of a window for each page of a plane."""
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
        self, plane: Plane, number: int, readers: list[FileBytes | Ahead]
    ) -> Iterator[tuple[int, NDArray[Any] | None]]:
        """First band, and samples (rows, columns, bands) or None, of each part of a segment."""
        for index, sample in self._parts(plane):
            samples = self._decoder.decode(plane, index, sample, number, readers[index])
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


def _not_applied(path: str, keyframe: Any) -> tuple[str, ...]:
    """Note what a page asks of viewers; refuse colours that would be misread."""
    check_colours(path, keyframe)
    return (
        *orientation_notes(keyframe.tags.valueof(ORIENTATION)),
        *notes_on_colours(keyframe),
    )


def _size(series: tifffile.TiffPageSeries) -> tuple[int, int]:
    return series.keyframe.imagelength, series.keyframe.imagewidth


def _nodata(keyframe: Any) -> float | None:
    return float(keyframe.nodata) if "GDAL_NODATA" in keyframe.tags else None
