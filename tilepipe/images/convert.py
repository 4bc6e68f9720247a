"""Writing an image pyramid: any readable image, streamed into a chunked OME-Zarr 0.5."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from tilepipe.errors import EnvironmentFailure, InputError, UnreadableError
from tilepipe.grid import Window, round_down
from tilepipe.images.base import Image
from tilepipe.images.byte_ranges import open_bytes
from tilepipe.images.halving import halve
from tilepipe.images.ngff import VALID
from tilepipe.images.ngff_written import attributes_of
from tilepipe.images.opening import open_image
from tilepipe.images.ranges import ShownRange
from tilepipe.images.reading import Reading
from tilepipe.images.source import TooLargeError
from tilepipe.images.validity import Validity, both, in_any_band, is_ambiguous, of_pixels, validity
from tilepipe.images.windowed import (
    WindowedImage,
    check_bounded,
    read_with_valid,
)
from tilepipe.storage import (
    InputRefused,
    StoragePath,
    as_path,
    complete_or_absent,
    make_folder,
    require_writable,
    staged_locally,
)

MEMORY_LIMIT = 2**30
"""Bytes that a conversion may hold, unless told otherwise."""

MEMORY_SHARE = 4
"""The pixels of a step take one of so many parts of the memory; copies, chunks and decoders take
the rest."""

LARGEST_STEP_ROWS = 4096
"""Rows written in one step, so that progress is seen."""

SLAB_ROWS = 128
"""Rows that are averaged at a time; even."""

COMPRESSION_LEVEL = 3
"""Of zstd: its own default."""

Progress = Callable[[int, int], None]


def convert(
    source: Image | str | Path,
    target: str | StoragePath,
    *,
    reading: Reading | None = None,
    chunk: int = 512,
    memory_limit: int = MEMORY_LIMIT,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write an image as OME-Zarr 0.5 with a pyramid, never holding more than a band of its rows.

    Pixels are kept as they are; so are pixel size, georeference, nodata and validity. The pyramid
    is the mean of 2 x 2 pixels, sizes rounded up. The target appears when it is complete.

    Parameters
    ----------
    source
        An opened image, or the path of one. A path may also be of a file that can only be decoded
        from top to bottom (a huge PNG or JPEG), which `open_image` refuses.
    target
        Folder to write, by convention named ``.ome.zarr``; on an object store it is uploaded from
        a temporary folder when it is complete.
    reading
        What of the file is read, and how, where ``source`` is a path: what it overrules (nodata) is
        recorded in the target, and what it applies (scale and offset) is applied.
    chunk
        Side of a chunk, pixels.
    memory_limit
        Bytes that pixels may take while they are converted.
    overwrite
        Replace a zarr folder that is there.
    progress
        Called with steps done and all steps.

    Raises
    ------
    InputError
        The target exists, or the source can only be decoded whole, beyond ``memory_limit``.
    UnreadableError
        Part of the source cannot be decoded.
    EnvironmentFailure
        The disk is full.
    """
    target = as_path(target)
    with InputRefused():
        check_target(target, overwrite=overwrite)
    with staged_locally(target) as local:
        _convert(source, reading, local, chunk, memory_limit, progress)


def _convert(
    source: Image | str | Path,
    reading: Reading | None,
    target: Path,
    chunk: int,
    memory_limit: int,
    progress: Progress | None,
) -> None:
    image, opened_here = _within(source, reading, memory_limit, chunk)
    try:
        with complete_or_absent(target) as part:
            make_folder(part)
            _Pyramid(image, part, chunk, memory_limit // MEMORY_SHARE, progress).write()
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise EnvironmentFailure(
                f"the disk is full: {target} was not written; make room and run the same again"
            ) from error
        raise
    finally:
        if opened_here:
            image.close()


@dataclass(slots=True)
class _Pyramid:
    """A conversion under way."""

    image: Image
    folder: Path
    chunk: int
    step_bytes: int
    progress: Progress | None
    done: int = 0

    def write(self) -> None:
        group = zarr.create_group(self.folder, zarr_format=3)
        sizes = _level_sizes(*self.image.shape[:2], self.chunk)
        arrays = [self._create(group, str(level), size) for level, size in enumerate(sizes)]
        kept = _Validity(group, sizes, self.chunk)
        steps = [list(self._steps(size, level)) for level, size in enumerate(sizes)]
        total = sum(len(windows) for windows in steps)
        for level, windows in enumerate(steps):
            for window in windows:
                if level == 0:
                    pixels, valid = read_with_valid(self.image, window)
                else:
                    pixels, valid = self._halved(arrays[level - 1], kept, level - 1, window)
                rows, columns = window.slices()
                arrays[level][:, rows, columns] = pixels.transpose(2, 0, 1)
                if valid is not None and not _told(pixels, valid, self._nodata):
                    kept.write(level, window, in_any_band(valid))
                self._advance(total)
        is_bytes = self.image.dtype == np.uint8
        ranges = [] if is_bytes else self._ranges(arrays[-1], kept, sizes[-1])
        attributes = attributes_of(self.image, len(sizes), self._nodata, kept.exists, ranges)
        group.attrs.update(attributes)

    def _ranges(
        self, smallest: zarr.Array[Any], kept: _Validity, size: tuple[int, int]
    ) -> list[ShownRange]:
        """The range of each band in the smallest level, where there are data."""
        pixels = np.asarray(smallest[:]).transpose(1, 2, 0)
        rows, columns = Window(0, 0, *size).slices()
        stored = kept.read(-1, rows, columns)
        valid = both(validity(pixels, self._nodata), None if stored is None else stored[..., None])
        found = []
        for band in range(self.image.bands):
            known = pixels[..., band]
            if valid is not None:
                known = known[valid[..., band if valid.shape[2] > 1 else 0]]
            found.append(ShownRange.of(known))
        return found

    @property
    def _nodata(self) -> tuple[float | None, ...]:
        if isinstance(self.image, WindowedImage):
            return self.image.band_nodata
        return () if self.image.nodata is None else (self.image.nodata,) * self.image.bands

    @property
    def _empty(self) -> NDArray[Any]:
        """Value of each band that marks pixels without data."""
        dtype, values = self.image.dtype, self._nodata or (None,) * self.image.bands
        if dtype.kind != "f":
            return np.array([0 if value is None else value for value in values])
        # One that other bands' data would make data is NaN instead.
        unclear = (value is None or is_ambiguous(value, dtype) for value in values)
        return np.array([np.nan if u else v for u, v in zip(unclear, values, strict=True)])

    def _create(self, group: zarr.Group, name: str, size: tuple[int, int]) -> zarr.Array[Any]:
        bands = self.image.bands
        return group.create_array(
            name,
            shape=(bands, *size),
            # All bands together: a window is decoded from as few chunks as may be.
            chunks=(bands, self.chunk, self.chunk),
            dtype=self.image.dtype,
            compressors=ZstdCodec(level=COMPRESSION_LEVEL, checksum=True),
            fill_value=0,
            dimension_names=("c", "y", "x"),
        )

    def _steps(self, size: tuple[int, int], level: int) -> Iterator[Window]:
        """Windows of whole chunks, as wide as memory allows: a strip is then decoded once."""
        height, width = size
        pixel_bytes = self.image.bands * self.image.dtype.itemsize * (1 if level == 0 else 4)
        columns = min(width, round_down(self.step_bytes // (self.chunk * pixel_bytes), self.chunk))
        columns = max(columns, min(width, self.chunk))
        rows = round_down(self.step_bytes // (columns * pixel_bytes), self.chunk)
        rows = max(min(rows, LARGEST_STEP_ROWS), self.chunk)
        for y in range(0, height, rows):
            for x in range(0, width, columns):
                yield Window(y, x, min(rows, height - y), min(columns, width - x))

    def _halved(
        self, above: zarr.Array[Any], kept: _Validity, level: int, window: Window
    ) -> tuple[NDArray[Any], Validity | None]:
        rows, columns = (slice(2 * s.start, 2 * s.stop) for s in window.slices())
        pixels = np.asarray(above[:, rows, columns]).transpose(1, 2, 0)
        stored = kept.read(level, rows, columns)
        valid = both(validity(pixels, self._nodata), None if stored is None else stored[..., None])
        # In slabs: what the mean needs on the way is several times the pixels.
        slabs = [slice(y, y + SLAB_ROWS) for y in range(0, len(pixels), SLAB_ROWS)]
        halves = [
            halve(pixels[slab], None if valid is None else valid[slab], self._empty)
            for slab in slabs
        ]
        smaller = np.concatenate([half for half, _ in halves])
        if valid is None:
            return smaller, None
        return smaller, np.concatenate([some for _, some in halves if some is not None])

    def _advance(self, total: int) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, total)


class _Validity:
    """Arrays of validity, created when the first pixel needs them."""

    def __init__(self, group: zarr.Group, sizes: list[tuple[int, int]], chunk: int) -> None:
        self._group = group
        self._sizes = sizes
        self._chunk = chunk
        self._arrays: list[zarr.Array[Any]] = []

    @property
    def exists(self) -> bool:
        return bool(self._arrays)

    def write(self, level: int, window: Window, valid: NDArray[np.bool_]) -> None:
        if not self._arrays:
            self._arrays = [
                self._group.create_array(
                    f"{VALID}/{number}",
                    shape=size,
                    chunks=(self._chunk, self._chunk),
                    dtype="uint8",
                    compressors=ZstdCodec(level=COMPRESSION_LEVEL, checksum=True),
                    fill_value=1,
                    dimension_names=("y", "x"),
                )
                for number, size in enumerate(self._sizes)
            ]
        self._arrays[level][window.slices()] = valid.astype(np.uint8)

    def read(self, level: int, rows: slice, columns: slice) -> NDArray[np.bool_] | None:
        if not self._arrays:
            return None
        valid: NDArray[np.bool_] = np.asarray(self._arrays[level][rows, columns]) != 0
        return valid


def check_target(target: StoragePath, *, overwrite: bool) -> None:
    """Refuse a zarr folder that may not be written.

    Raises
    ------
    InputError
        It is there, and is not to be replaced; or it is something else; or it cannot be made there.
    """
    if not target.exists():
        require_writable(target)
        return
    if not overwrite:
        raise InputError(f"{target} exists; choose another name, or add --overwrite")
    if not any((target / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise InputError(
            f"{target} is not a zarr folder, so it is not overwritten; choose another name"
        )


def _within(
    source: Image | str | Path, reading: Reading | None, memory_limit: int, chunk: int
) -> tuple[Image, bool]:
    """The image, opened so that it can be read within a limit, and whether it was opened here."""
    largest = memory_limit // MEMORY_SHARE
    opened = source if isinstance(source, Image) else None
    try:
        image = opened or open_image(str(source), reading)
        opened = image
        check_bounded(image, 0, largest)
    except TooLargeError:
        path = str(source) if opened is None else opened.path
        return _streamed(path, opened, reading, largest, chunk), True
    return image, image is not source


def _streamed(
    path: str, opened: Image | None, reading: Reading | None, largest: int, chunk: int
) -> Image:
    """The image opened to be decoded row by row."""
    refusal = InputError(
        f"{path} can only be decoded whole, which takes more than the {largest / 2**20:.0f} MiB "
        "that this conversion may spend on it; raise its memory limit, or have its maker save it "
        "in tiles" + (" or as a baseline JPEG" if path.lower().endswith((".jpg", ".jpeg")) else "")
    )
    try:
        image = open_image(path, reading if opened is None else opened.reading, streaming=True)
    except InputError as error:
        raise refusal from error
    height, width, _ = image.shape
    row_bytes = width * image.decoded_bytes
    if (
        (opened is not None and not _same(image, opened))
        or image.chunks[0][0] * row_bytes > largest
        # GDAL holds a compressed strip whole, however few of its rows are decoded.
        or (image.kind in {"TIFF", "GeoTIFF"} and _file_bytes(path) > largest)
        or min(chunk, height) * row_bytes > largest
        or _is_held_whole(image)
    ):
        image.close()
        raise refusal
    return image


def _same(streamed: Image, opened: Image) -> bool:
    """Whether GDAL, which streams, reads the same image of the file as tilepipe's own reader."""
    one = len(streamed.series) == 1 or opened.kind in {"TIFF", "GeoTIFF"}
    return (
        one
        and (streamed.shape, streamed.dtype) == (opened.shape, opened.dtype)
        and streamed.series_number == opened.series_number
    )


def _is_held_whole(image: Image) -> bool:
    """Whether libjpeg would hold a progressive JPEG whole, and is too large for GDAL to let it."""
    try:
        image.read(Window(0, 0, 1, 1))
    except UnreadableError as error:
        return "libjpeg to allocate" in str(error)
    return False


def _file_bytes(path: str) -> int:
    with closing(open_bytes(as_path(path))) as file:
        return file.size


def _level_sizes(height: int, width: int, smallest: int) -> list[tuple[int, int]]:
    sizes = [(height, width)]
    while max(sizes[-1]) > smallest:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes


def _told(pixels: NDArray[Any], valid: Validity, nodata: tuple[float | None, ...]) -> bool:
    """Whether validity follows from the values of the pixels."""
    told, true = of_pixels(validity(pixels, nodata)), of_pixels(valid)
    if told is None or true is None:
        return told is true
    return np.array_equal(told, true)
