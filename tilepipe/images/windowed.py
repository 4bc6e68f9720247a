"""What all images have in common: mirroring, validity, errors that name the place, dask."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import Window, mirror_index, mirror_span, round_up
from tilepipe.images.bands import file_bands, named
from tilepipe.images.base import Image, Level, PixelSize, Series
from tilepipe.images.control import GroundControl
from tilepipe.images.reading import Reading
from tilepipe.images.rescaling import Rescaling
from tilepipe.images.scaling import (
    UNSCALED,
    Scaling,
    require_scaling,
    show_scaling,
    unscaled,
)
from tilepipe.images.series import choose, passed_over
from tilepipe.images.shown import ShownImage
from tilepipe.images.validity import Validity, all_valid, both, chosen_nodata, of_pixels, validity

DASK_CHUNK = 2048
"""About the side of a dask chunk, in pixels."""

LARGEST_SIDE = 2**31 - 1
"""Rows or columns; more are an error in the file."""

MOST_BANDS = 2**16 - 1
"""As many as a TIFF can have."""

Transform = tuple[float, float, float, float, float, float]


class TooLargeError(InputError):
    """An image that can only be decoded in pieces beyond the memory allowed."""


class UndecodableError(Exception):
    """Raised by a `Source` that cannot decode; becomes an `UnreadableError` that names where."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a file says about its image; the attributes of `Image`, as plain data."""

    path: str
    kind: str
    levels: tuple[Level, ...]
    bands: int
    dtype: np.dtype[Any]
    chunks: tuple[tuple[int, int], ...]
    pixel_size: PixelSize | None = None
    pixel_size_doubt: str | None = None
    crs: str | None = None
    transform: Transform | None = None
    nodata: tuple[float | None, ...] = field(default=())
    """Of each band, or empty where no band has one."""
    scaling: Scaling = ()
    """Scale and offset of each band, or empty where none has any."""
    control: GroundControl | None = None
    """Ground control points or RPCs, where these say where the image lies."""
    palette: bool = False
    """Whether pixels are the colours of a palette, of which nodata is an entry."""
    masked: bool = False
    """Whether validity is more than what nodata and NaN in the pixels say (alpha, a mask)."""
    streaming: bool = False
    """Whether it was opened to be read once, from top to bottom."""
    notes: tuple[str, ...] = ()
    band_names: tuple[str, ...] = ()
    """Of each band, empty where unknown; or none at all."""
    alpha: int | None = None
    """StoragePath (from 0) of the alpha band among those of the file; it is not one of `bands`."""
    alpha_name: str = "alpha"
    """What the file calls it."""
    decoded_bands: int | None = None
    """Bands that are decoded to read these; None: as many as there are, alpha included."""
    series: tuple[Series, ...] = ()
    """Every image that the file holds; may be left out where there is only one."""
    series_number: int = 0


class SelectedSource(Protocol):
    """An opened file whose bands have been chosen; windows lie within the level."""

    description: Description

    def read(self, window: Window, level: int) -> NDArray[Any]:
        """Pixels, shape (height, width, bands)."""
        ...

    def read_masked(self, window: Window, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels, and where alpha or mask say that they count; asked only of masked images."""
        ...

    def fingerprint(self) -> str:
        """As `Image.fingerprint`."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class Source(SelectedSource, Protocol):
    """What one kind of file has to do."""

    def select(self, bands: Sequence[int]) -> None:
        """Read these bands of the file alone, in this order, from now on; called once, if at all.

        They are counted from 0, alpha among them, which is then data; one may be there twice.
        """
        ...


@runtime_checkable
class _ReadsBoth(Protocol):
    def read_with_valid(
        self, window: Window, level: int = 0
    ) -> tuple[NDArray[Any], Validity | None]: ...


class WindowedImage(ShownImage):
    """An `Image` over a `Source`; see there for the meaning of each attribute."""

    def __init__(self, source: SelectedSource, reading: Reading | None = None) -> None:
        described = source.description
        self.reading = reading = reading or Reading()
        self.series = described.series or (_only_series(described),)
        self.series_number = described.series_number
        if reading.series is not None and not described.series:
            choose(described.path, self.series, reading.series)
        _check_sizes(described)
        self.path = described.path
        self.kind = described.kind
        self.levels = described.levels
        self.bands = described.bands
        self.band_names = named(described.band_names, described.bands)
        self.file_bands = file_bands(described)
        self.alpha_band = None if described.alpha is None else described.alpha + 1
        decoded = described.decoded_bands or described.bands + (described.alpha is not None)
        self.decoded_bytes = decoded * described.dtype.itemsize
        self.pixel_size = described.pixel_size
        self.pixel_size_doubt = described.pixel_size_doubt
        self.crs = described.crs
        self.transform = described.transform
        self.control = described.control
        self.chunks = described.chunks
        self.masked, self.palette = described.masked, described.palette
        if described.palette and reading.nodata is not None:
            raise InputError(
                f"{described.path}: its pixels are the colours of a palette, to which --nodata "
                "does not apply; leave it out"
            )
        self._raw_dtype = described.dtype
        self._raw_nodata = chosen_nodata(
            described.path, described.nodata, reading.nodata, described.bands, described.dtype
        )
        self.scaling = described.scaling
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
        self.validity_by_band = bool(self._raw_nodata) or self._raw_dtype.kind == "f"
        self.notes = (*described.notes, *_notes(described, self.series, reading))
        self._source = source
        self._fingerprint: str | None = None
        # An image that nobody closes is closed when nobody has it any more.
        self._close = weakref.finalize(self, source.close)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, bands) of level 0."""
        return self.levels[0].height, self.levels[0].width, self.bands

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """The pixels of a window, shape (height, width, bands), mirrored outside the image."""
        if self.reading.unscale:  # what is no data becomes NaN, and so has to be known
            return self.read_with_valid(window, level)[0]
        span, mirror = self._mirror(window, level)
        return mirror(self._rescaled(self._decode(self._source.read, span, level)))

    def read_valid(self, window: Window, level: int = 0) -> NDArray[np.bool_] | None:
        """Which pixels hold data in any band, shape (height, width), mirrored; None where all do.

        Data is what neither the nodata value, nor NaN or infinity, nor an alpha band of 0, nor a
        mask, nor a tile that the file leaves out declares to be none.
        """
        if not self._may_be_invalid:
            self._mirror(window, level)
            return None
        return of_pixels(self.read_with_valid(window, level)[1])

    def read_with_valid(
        self, window: Window, level: int = 0
    ) -> tuple[NDArray[Any], Validity | None]:
        """`read` of a window, and where it is data, band by band; decoded once."""
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
        """The level as a lazy dask array of shape (height, width, bands)."""
        self._level(level)
        return lazy(self, level, f"tilepipe-image-{self.fingerprint()}{self.reading.key}-{level}")

    def fingerprint(self) -> str:
        """A short hash that changes when the file's content does; cheap on a huge file."""
        if self._fingerprint is None:
            self._fingerprint = self._source.fingerprint()
        return self._fingerprint

    def close(self) -> None:
        """Release the file."""
        self._close()

    def __enter__(self) -> WindowedImage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # An open file cannot travel to another process; its path can.
        return _reopen, (self.path, self._source.description.streaming, self.reading)

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
        try:
            return read(span, level)
        except (UndecodableError, OSError) as error:
            reason = str(error)
        # Not from within: errors of GDAL and of codecs, which would go along, cannot travel to
        # another process, nor to another thread of Dask.
        raise UnreadableError(
            f"{self.path}: cannot decode the window at row {span.y}, column {span.x} "
            f"({span.height} x {span.width} pixels) of level {level}: {reason}; "
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
                f"{described.path} is broken: it says that it has {level.height} x {level.width} "
                "pixels; write it again with another program"
            )
    if not 0 < described.bands <= MOST_BANDS:
        raise InputError(
            f"{described.path} is broken: it says that it has {described.bands} bands; write "
            "it again with another program"
        )


def read_with_valid(
    image: Image, window: Window, level: int = 0
) -> tuple[NDArray[Any], Validity | None]:
    """The pixels of a window, and where they are data, decoded once where the image can.

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


def mirroring(
    window: Window, height: int, width: int
) -> tuple[Window, Callable[[NDArray[Any]], NDArray[Any]]]:
    """The real pixels of a ``height`` x ``width`` grid that a window needs, and what makes it."""
    y, stop_y = mirror_span(window.y, window.height, height)
    x, stop_x = mirror_span(window.x, window.width, width)
    span = Window(y, x, stop_y - y, stop_x - x)
    if span == window:
        return span, lambda pixels: pixels
    rows = _runs(window.y, window.stop_y, height, y)
    columns = _runs(window.x, window.stop_x, width, x)

    def mirrored(pixels: NDArray[Any]) -> NDArray[Any]:
        # An axis at a time: whole rows are copied fast, single pixels only at the borders.
        if len(columns) > 1:
            pixels = np.concatenate([pixels[:, part] for part in columns], axis=1)
        if len(rows) > 1:
            pixels = np.concatenate([pixels[part] for part in rows], axis=0)
        return pixels

    return span, mirrored


def check_bounded(image: Image, level: int, limit_bytes: int) -> None:
    """Refuse a level of which one decoded strip, tile or chunk alone is beyond a limit.

    Raises
    ------
    InputError
        It holds more than ``limit_bytes``, so no window of it can be read within them.
    """
    height, width = image.chunks[level]
    needed = height * width * image.decoded_bytes
    if needed > limit_bytes:
        raise TooLargeError(
            f"{image.path} can only be decoded {height} x {width} pixels at a time, "
            f"{needed / 2**20:.0f} MiB where {limit_bytes / 2**20:.0f} MiB are allowed; "
            f"make it a chunked image first: tilepipe convert {image.path} IMAGE.ome.zarr"
        )


def _runs(start: int, stop: int, size: int, origin: int) -> list[slice | list[int]]:
    """An axis of a window as indices into its real pixels: mirrored, as they are, mirrored."""
    first, last = min(max(start, 0), stop), max(min(stop, size), start)
    if first >= last:
        return [[], [mirror_index(i, size) - origin for i in range(start, stop)]]
    before = [mirror_index(i, size) - origin for i in range(start, first)]
    after = [mirror_index(i, size) - origin for i in range(last, stop)]
    runs: list[slice | list[int]] = [slice(first - origin, last - origin)]
    return [*([before] if before else []), *runs, *([after] if after else [])]


def lazy(image: Image, level: int, name: str) -> Any:
    """A level as a dask array, under a ``name`` that only the same pixels have."""
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
    """What the file says that this reading does not apply, and what it passes over."""
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
    from tilepipe.images.sharing import borrow

    return WindowedImage(borrow(path, reading, streaming=streaming), reading)
