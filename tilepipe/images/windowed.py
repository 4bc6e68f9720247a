"""What images of all readers share: mirroring, validity, errors that name the place, dask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import Window, round_up
from tilepipe.images.bands import file_bands, named, select_bands
from tilepipe.images.base import Image, Level, Placed, Series
from tilepipe.images.mirroring import mirroring
from tilepipe.images.reading import Reading
from tilepipe.images.rescaling import Rescaling
from tilepipe.images.scaling import UNSCALED, require_scaling, show_scaling, unscaled
from tilepipe.images.series import choose, passed_over
from tilepipe.images.sharing import kept_open
from tilepipe.images.shown import ShownImage
from tilepipe.images.source import (
    LARGEST_SIDE,
    MOST_BANDS,
    Description,
    OpenFile,
    TooLargeError,
    UndecodableError,
)
from tilepipe.images.validity import Validity, all_valid, both, chosen_nodata, of_pixels, validity

DASK_CHUNK = 2048
"""About the side of a dask chunk, in pixels."""


@runtime_checkable
class _ReadsBoth(Protocol):
    def read_with_valid(
        self, window: Window, level: int = 0
    ) -> tuple[NDArray[Any], Validity | None]: ...


class WindowedImage(ShownImage, Placed):
    """An `Image` over a `Source`; see `Image` for the meaning of each attribute.

    Parameters
    ----------
    file : OpenFile
        Let go of when the image is closed, or forgotten.
    reading : Reading
        What of the file is read, and how.
    """

    def __init__(self, file: OpenFile, reading: Reading) -> None:
        source, reading = select_bands(file.source, reading)
        described = source.description
        self.reading = reading
        self.series = described.series or (_only_series(described),)
        self.series_number = described.series_number
        if reading.series is not None and not described.series:
            choose(described.path, self.series, reading.series)
        _check_sizes(described)
        self.path = described.path
        self.kind = described.kind
        self.levels = described.levels
        self.grid = described.grid
        self.bands = described.bands
        self.band_names = named(described.band_names, described.bands)
        self.file_bands = file_bands(described)
        decoded = described.decoded_bands or described.bands + (described.alpha is not None)
        self.decoded_bytes = decoded * described.dtype.itemsize
        self.chunks = described.chunks
        self.pixel_size_doubt = described.pixel_size_doubt
        self.scaling = described.scaling
        self.notes = (*described.notes, *_notes(described, self.series, reading))
        self._source = source
        self._file: OpenFile | None = file
        self._fingerprint: str | None = None
        self._apply(described, reading)

    def _apply(self, described: Description, reading: Reading) -> None:
        """Work out what the reading makes of the type of the pixels, and of nodata."""
        if described.palette and reading.nodata is not None:
            raise InputError(
                f"{described.path}: its pixels are the colours of a palette, to which --nodata "
                "does not apply; leave it out"
            )
        self._raw_nodata = chosen_nodata(
            described.path, described.nodata, reading.nodata, described.bands, described.dtype
        )
        if reading.unscale:
            require_scaling(described.path, described.scaling)
        self._rescale = Rescaling.of(reading)
        self.dtype = UNSCALED if reading.unscale else described.dtype
        self.band_nodata = self._raw_nodata
        if reading.unscale and self._raw_nodata:
            self.band_nodata = (float("nan"),) * self.bands
        if self._rescale is not None:
            # No value means "no data" in what was rescaled: any may come of data as well.
            self.dtype, self.band_nodata = self._rescale.dtype, ()
        self.nodata = next((value for value in self.band_nodata if value is not None), None)
        self.validity_by_band = bool(self._raw_nodata) or described.dtype.kind == "f"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, bands) of level 0."""
        return (*self.grid.shape, self.bands)

    @property
    def masked(self) -> bool:
        """Whether validity is more than what nodata and NaN in the pixels tell."""
        return self._source.description.masked

    @property
    def palette(self) -> bool:
        """Whether the pixels are the colours of a palette."""
        return self._source.description.palette

    @property
    def alpha_band(self) -> int | None:
        """Number (from 1) of the alpha band in the file, where there is one."""
        alpha = self._source.description.alpha
        return None if alpha is None else alpha + 1

    def read_as(self, reading: Reading) -> WindowedImage:
        """Read the same open file in another way: an image of its own, closed by itself."""
        return WindowedImage(self.file, replace(reading, series=self.reading.series))

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """Read the pixels of a window, (height, width, bands), mirrored outside the image."""
        if self.reading.unscale:  # what is no data becomes NaN, and so has to be known
            return self.read_with_valid(window, level)[0]
        span, mirror = self._mirror(window, level)
        return mirror(self._rescaled(self._decode(self._source.read, span, level)))

    def read_valid(self, window: Window, level: int = 0) -> NDArray[np.bool_] | None:
        """Tell which pixels hold data in any band, (height, width), mirrored; None where all do.

        A pixel holds no data where it has the nodata value, is NaN or infinite, where alpha is 0,
        where a mask excludes it, or where the file leaves its tile out.
        """
        if not self._may_be_invalid:
            self._mirror(window, level)
            return None
        return of_pixels(self.read_with_valid(window, level)[1])

    def read_with_valid(
        self, window: Window, level: int = 0
    ) -> tuple[NDArray[Any], Validity | None]:
        """Read a window, and which of its pixels hold data, band by band; decoded once."""
        span, mirror = self._mirror(window, level)
        if self.masked:
            pixels, seen = self._decode(self._source.read_masked, span, level)
        else:
            pixels, seen = self._decode(self._source.read, span, level), None
        valid = None if seen is None else seen[..., None]
        valid = all_valid(both(valid, validity(pixels, self._raw_nodata)))
        if self.reading.unscale:
            pixels = unscaled(pixels, self.scaling, valid)
        return mirror(self._rescaled(pixels)), None if valid is None else mirror(valid)

    def as_dask(self, level: int = 0) -> Any:
        """Return the level as a lazy dask array of shape (height, width, bands)."""
        self._level(level)
        return lazy(self, level, f"tilepipe-image-{self.fingerprint()}{self.reading.key}-{level}")

    def fingerprint(self) -> str:
        """Compute a short hash that changes when the file's content does; cheap on a huge file."""
        if self._fingerprint is None:
            self._fingerprint = self.file.fingerprint()
        return self._fingerprint

    def close(self) -> None:
        """Let go of the file."""
        self._file = None

    def __enter__(self) -> WindowedImage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # An open file cannot travel to another process; its path can.
        return _reopen, (self.path, self._source.description.streaming, self.reading)

    @property
    def file(self) -> OpenFile:
        """The open file, which stays open as long as some image, or anybody else, has it."""
        if self._file is None:
            raise ValueError(f"{self.path}: the image is closed")
        return self._file

    @property
    def _may_be_invalid(self) -> bool:
        return self.masked or self.validity_by_band

    def _rescaled(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return pixels if self._rescale is None else self._rescale(pixels)

    def _level(self, level: int) -> Level:
        if not 0 <= level < len(self.levels):
            raise InputError(
                f"{self.path} has no level {level}; choose one of 0 to {len(self.levels) - 1}"
            )
        return self.levels[level]

    def _mirror(
        self, window: Window, level: int
    ) -> tuple[Window, Callable[[NDArray[Any]], NDArray[Any]]]:
        """The real pixels that a window needs, and what makes the window of them."""
        size = self._level(level)
        return mirroring(window, size.height, size.width)

    def _decode(self, read: Callable[[Window, int], Any], span: Window, level: int) -> Any:
        _ = self.file  # which is there as long as the image is not closed
        try:
            return read(span, level)
        except (UndecodableError, OSError) as error:
            reason = str(error)
        # Not from within: errors of GDAL and of codecs, which would go along, cannot travel to
        # another process, nor to another thread of Dask.
        raise UnreadableError(
            f"{self.path}: cannot decode the window at row {span.y}, column {span.x} "
            f"({span.width} x {span.height} pixels, width x height) of level {level}: {reason}; "
            "copy the file again from where it came"
        )


def _only_series(described: Description) -> Series:
    level, dtype = described.levels[0], np.dtype(described.dtype).name
    size = described.pixel_size
    return Series(0, "", level.height, level.width, described.bands, dtype, size)


def _check_sizes(described: Description) -> None:
    """Refuse numbers that only a broken file has, before anything is computed from them."""
    for level in described.levels:
        if not (0 < level.height <= LARGEST_SIDE and 0 < level.width <= LARGEST_SIDE):
            raise InputError(
                f"{described.path} is broken: its metadata claim {level.width} x {level.height} "
                "pixels (width x height); write it again with another program"
            )
    if not 0 < described.bands <= MOST_BANDS:
        raise InputError(
            f"{described.path} is broken: its metadata claim {described.bands} bands; write it "
            "again with another program"
        )


def read_with_valid(
    image: Image, window: Window, level: int = 0
) -> tuple[NDArray[Any], Validity | None]:
    """Read a window, and which of its pixels hold data; decoded once where the image can.

    Returns
    -------
    pixels : ndarray
        As `Image.read` gives them, shape (height, width, bands).
    valid : ndarray of bool, or None
        Where they are data: shape (height, width, bands), or (height, width, 1) where all bands
        agree; None where all is data.
    """
    if isinstance(image, _ReadsBoth):
        return image.read_with_valid(window, level)
    valid = image.read_valid(window, level)
    return image.read(window, level), None if valid is None else valid[..., None]


def check_bounded(image: Image, level: int, limit_bytes: int) -> None:
    """Refuse a level whose strips, tiles or chunks are each larger than a limit when decoded.

    Raises
    ------
    InputError
        One takes more than ``limit_bytes``, so that no window can be read within them.
    """
    height, width = image.chunks[level]
    needed = height * width * image.decoded_bytes
    if needed > limit_bytes:
        raise TooLargeError(
            f"{image.path} can only be decoded {width} x {height} pixels (width x height) at a "
            f"time, {needed / 2**20:.0f} MiB where {limit_bytes / 2**20:.0f} MiB are allowed; "
            f"make it a chunked image first: tilepipe convert {image.path} IMAGE.ome.zarr"
        )


def lazy(image: Image, level: int, name: str) -> Any:
    """Return a level as a dask array, under a ``name`` that only the same pixels have."""
    import dask.array

    size = image.levels[level]
    sides = _dask_chunk((size.height, size.width), image.chunks[level])
    return dask.array.map_blocks(
        partial(_read_block, image, level, image.fingerprint()),
        name=name,
        chunks=(*dask.array.core.normalize_chunks(sides, sizes(size)), (image.bands,)),
        dtype=image.dtype,
        meta=np.empty((0, 0, 0), image.dtype),
    )


def sizes(level: Level) -> tuple[int, int]:
    """(height, width) of a level."""
    return level.height, level.width


def _notes(described: Description, series: tuple[Series, ...], reading: Reading) -> Iterator[str]:
    """Note what the file states that this reading does not apply, and what it leaves out."""
    if described.scaling and not reading.unscale:
        yield (
            f"the image declares a scale and offset ({show_scaling(described.scaling)}) that are "
            "not applied: --unscale applies them, and gives float32"
        )
    if reading.series is None:
        note = passed_over(series, described.series_number)
        if note is not None:
            yield note


def _dask_chunk(size: tuple[int, int], chunk: tuple[int, int]) -> tuple[int, int]:
    width = min(size[1], round_up(DASK_CHUNK, chunk[1]))
    # Strips are as wide as the image: fewer rows keep a dask chunk as large as others.
    rows = DASK_CHUNK * DASK_CHUNK // max(width, DASK_CHUNK)
    return min(size[0], round_up(max(rows, 1), chunk[0])), width


def _read_block(
    image: Image, level: int, fingerprint: str, block_info: dict[Any, Any] | None = None
) -> NDArray[Any]:
    if not block_info:
        return np.empty((0, 0, 0), image.dtype)
    # In another process the image was opened anew, and may have been replaced meanwhile.
    if image.fingerprint() != fingerprint:
        raise InputError(f"{image.path}: has changed since the array was made; make it again")
    (y, stop_y), (x, stop_x), _ = block_info[None]["array-location"]
    return image.read(Window(y, x, stop_y - y, stop_x - x), level)


def _reopen(path: str, streaming: bool, reading: Reading) -> WindowedImage:
    return WindowedImage(kept_open(path, reading.series, streaming), reading)
