"""An image at a scale that its file does not hold: windows of a level, resampled as they are read.

One grid for the whole image: pixel i of it lies at ``(i + 0.5) * factor - 0.5`` of the level, its
corner at the image's. Every pixel is the same sum of the same terms in the same order, whatever the
window it is read in, so windows fit together bit for bit.

The filter is the triangle that Pillow calls BILINEAR: linear interpolation where the image is
enlarged; where it is made smaller, as wide as the new pixels are apart, so that nothing aliases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images.base import Image, Level, Placed
from tilepipe.images.helpers import MOST_THREADS, for_each
from tilepipe.images.mirroring import mirroring
from tilepipe.images.shown import ShownImage
from tilepipe.images.validity import Validity, all_valid, of_pixels
from tilepipe.images.windowed import lazy, read_with_valid

Factors = tuple[float, float]
"""Rows and columns of a level for each of the resampled grid."""

SOURCE_BYTES = 48 << 20
"""Pixels of the level that are held at a time; windows that need more are read in parts."""

STRIP_VALUES = 1 << 16
"""About how many numbers are summed at a time: they stay in the processor's cache."""

NEGLIGIBLE = 1e-6
"""Of a pixel: what the grid may leave out, so that rounding does not add a row of nothing."""


def resampled_size(level: Level, factors: Factors) -> tuple[int, int]:
    """(height, width) of the grid that covers every pixel of a level: rounded up."""
    height, width = (
        max(1, math.ceil(size / factor - NEGLIGIBLE))
        for size, factor in zip((level.height, level.width), factors, strict=True)
    )
    return height, width


class ResampledImage(ShownImage, Placed):
    """An `Image` one of whose levels is read at another scale; the other levels are as they were.

    The level takes the place, in the pyramid, of the one that it is made from. Scales, pixel size
    and transform remain those of level 0 of the file, so that the level's own follow from its scale
    as for any other. Where level 0 itself is resampled, its scale is not 1.

    Pixels without data are left out of the sums, band by band, and the weights of the others
    adjusted. A band of a pixel is valid where more than half of its weight is; elsewhere it is 0.

    Parameters
    ----------
    image : Image
        Closed when this one is.
    level : int
        Of ``image``.
    factors : tuple of float
        Rows and columns of that level for each row and column of the result: 2 makes it half as
        large, 0.5 twice.
    """

    def __init__(self, image: Image, level: int, factors: Factors) -> None:
        if not all(math.isfinite(factor) and factor > 0 for factor in factors):
            raise ValueError(f"an image cannot be resampled by {factors}")
        self.path, self.kind, self.grid = image.path, image.kind, image.grid
        self.bands, self.dtype, self.decoded_bytes = image.bands, image.dtype, image.decoded_bytes
        self.band_names, self.file_bands = image.band_names, image.file_bands
        self.pixel_size_doubt, self.notes = image.pixel_size_doubt, image.notes
        self.nodata, self.scaling = image.nodata, image.scaling
        self.reading, self.validity_by_band = image.reading, image.validity_by_band
        self.series, self.series_number = image.series, image.series_number
        old = image.levels[level]
        height, width = resampled_size(old, factors)
        new = Level(height, width, old.scale_y * factors[0], old.scale_x * factors[1])
        self.levels = (*image.levels[:level], new, *image.levels[level + 1 :])
        rows, columns = image.chunks[level]
        chunk = max(1, round(rows / factors[0])), max(1, round(columns / factors[1]))
        self.chunks = (*image.chunks[:level], chunk, *image.chunks[level + 1 :])
        self._image, self._level, self._factors = image, level, factors

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, bands) of level 0."""
        return self.levels[0].height, self.levels[0].width, self.bands

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """The pixels of a window, shape (height, width, bands), mirrored outside the new grid."""
        return self.read_with_valid(window, level)[0]

    def read_valid(self, window: Window, level: int = 0) -> NDArray[np.bool_] | None:
        """Which pixels hold data in any band, (height, width), mirrored; None where all do."""
        if level != self._level:
            return self._image.read_valid(window, level)
        return of_pixels(self.read_with_valid(window, level)[1])

    def read_with_valid(
        self, window: Window, level: int = 0
    ) -> tuple[NDArray[Any], Validity | None]:
        """`read` of a window, and where it is data, band by band."""
        if level != self._level:
            return read_with_valid(self._image, window, level)
        grid = self.levels[level]
        span, mirror = mirroring(window, grid.height, grid.width)
        pixels = np.empty((*span.shape, self.bands), self.dtype)
        valid: Validity | None = None
        for part in self._parts(span):
            inside = part.slices(span)
            some = self._resample(part, pixels[inside])
            if some is not None:
                if valid is None:
                    valid = np.ones((*span.shape, some.shape[2]), np.bool_)
                elif some.shape[2] > valid.shape[2]:
                    valid = valid.repeat(some.shape[2], axis=2)
                valid[inside] = some
        valid = all_valid(valid)
        return mirror(pixels), None if valid is None else mirror(valid)

    def as_dask(self, level: int = 0) -> Any:
        """The level as a lazy dask array of shape (height, width, bands)."""
        if level != self._level:
            return self._image.as_dask(level)
        y, x = self._factors
        return lazy(
            self,
            level,
            f"tilepipe-image-{self.fingerprint()}{self.reading.key}-{level}-{y!r}-{x!r}",
        )

    def fingerprint(self) -> str:
        """Compute the fingerprint of the image that this one is made from."""
        return self._image.fingerprint()

    def close(self) -> None:
        """Close the file."""
        self._image.close()

    def reading_bytes(self, height: int, width: int) -> int:
        """Estimate the bytes for reading a window, beyond its own pixels and decoding a chunk."""
        source = math.prod(
            size * factor + 2 * max(1.0, factor)
            for size, factor in zip((height, width), self._factors, strict=True)
        )
        values = (6 + 2 * math.ceil(self._factors[0])) * STRIP_VALUES * MOST_THREADS
        strips = values * np.dtype(_working(self.dtype)).itemsize
        return 2 * int(min(source * self.decoded_bytes, SOURCE_BYTES)) + strips

    @property
    def source_chunk(self) -> tuple[int, int]:
        """(rows, columns) of the file that are decoded together for this level."""
        return self._image.chunks[self._level]

    def _facts(self) -> list[tuple[str, str]]:
        grid = self.levels[self._level]
        return [
            *super()._facts(),
            ("resampled", f"level {self._level} as {grid.width} x {grid.height}"),
        ]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return ResampledImage, (self._image, self._level, self._factors)

    def _axes(self, part: Window) -> tuple[_Axis, _Axis]:
        level = self._image.levels[self._level]
        return (
            _Axis.of(part.y, part.stop_y, self._factors[0], level.height),
            _Axis.of(part.x, part.stop_x, self._factors[1], level.width),
        )

    def _parts(self, window: Window) -> Iterator[Window]:
        """A window in parts of which each takes no more than `SOURCE_BYTES` of the level."""
        needed = window.area * math.prod(self._factors) * self.decoded_bytes
        if needed <= SOURCE_BYTES or window.area == 1:
            yield window
        elif window.height > 1:  # rows first: files keep them together
            half = window.height // 2
            yield from self._parts(replace(window, height=half))
            rest = window.height - half
            yield from self._parts(replace(window, y=window.y + half, height=rest))
        else:
            half = window.width // 2
            yield from self._parts(replace(window, width=half))
            yield from self._parts(replace(window, x=window.x + half, width=window.width - half))

    def _resample(self, part: Window, result: NDArray[Any]) -> Validity | None:
        """Fill ``result`` with a part of the grid; its validity, None where all is data."""
        rows, columns = self._axes(part)
        source = Window(rows.start, columns.start, rows.length, columns.length)
        pixels, valid = read_with_valid(self._image, source, self._level)
        dtype = _working(self.dtype)
        lost: NDArray[Any] | None = None
        known: Validity | None = None
        if valid is not None:
            # Zeros, so that neither nodata nor NaN gets into a sum.
            pixels = np.where(valid, pixels, self.dtype.type(0))
            lost = (~valid).astype(np.uint8)
            known = np.empty((*part.shape, valid.shape[2]), np.bool_)
        step = max(1, STRIP_VALUES // (max(source.width, part.width) * self.bands))

        def fill(row: int) -> None:
            strip = slice(row, row + step)
            values = _summed(pixels, rows.part(strip), columns, dtype)
            if lost is not None:
                assert known is not None, "made with it"
                share = _summed(lost, rows.part(strip), columns, dtype)
                seen = share < 0.5
                # Only where something is lost, so that all else is the same with it and without.
                np.divide(values, 1 - share, out=values, where=(share > 0) & seen)
                np.copyto(values, 0, where=~seen)
                known[strip] = seen.transpose(1, 2, 0)
            _round(values, result[strip])

        for_each(fill, range(0, part.height, step))
        return known


@dataclass(frozen=True, slots=True)
class _Axis:
    """Of which pixels of a level, and with what weights, each pixel of one axis is made."""

    start: int
    """First pixel of the level that any of them takes."""
    length: int
    places: NDArray[np.intp]
    """Shape (pixels, terms), counted from ``start``."""
    weights: NDArray[np.float64]
    """Shape (pixels, terms); each pixel's add up to 1. Terms beyond the image weigh nothing."""

    @classmethod
    def of(cls, first: int, stop: int, factor: float, size: int) -> _Axis:
        """Pixels ``first`` to ``stop`` of the new grid, on an axis of ``size`` pixels."""
        centres = (np.arange(first, stop) + 0.5) * factor
        reach = max(1.0, factor)
        places = np.floor(centres - reach + 0.5).astype(np.intp)[:, None] + np.arange(
            math.ceil(2 * reach), dtype=np.intp
        )
        weights = np.maximum(0.0, 1 - np.abs(places + 0.5 - centres[:, None]) / reach)
        weights[(places < 0) | (places >= size)] = 0
        total = np.zeros(len(centres))
        for term in range(weights.shape[1]):  # one after the other: always in this order
            total += weights[:, term]
        weights /= total[:, None]
        places = places.clip(0, size - 1)
        start = int(places.min())
        return cls(start, int(places.max()) + 1 - start, places - start, weights)

    def part(self, pixels: slice) -> _Axis:
        """Some of the pixels."""
        return replace(self, places=self.places[pixels], weights=self.weights[pixels])


def _summed(
    source: NDArray[Any], rows: _Axis, columns: _Axis, dtype: type[np.floating[Any]]
) -> NDArray[Any]:
    """The weighted sums of a source (h, w, bands): first down its columns, then along its rows.

    Products and sums are single operations of numpy, which rounds each in the same way wherever in
    an array it stands; those of a matrix product may be put together in any order. Returns an array
    (bands, height, width): numbers of a band lie side by side, which is what numpy is fast at.
    """
    first, stop = int(rows.places.min()), int(rows.places.max()) + 1
    planes = np.empty((source.shape[2], stop - first, source.shape[1]), dtype)
    for band, plane in enumerate(planes):
        plane[...] = source[first:stop, :, band]
    down = _along(planes, 1, rows.places - first, rows.weights)
    return _along(down, 2, columns.places, columns.weights)


def _along(
    planes: NDArray[Any], axis: int, places: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[Any]:
    """Sums along an axis of planes (bands, h, w), of places and weights (pixels, terms)."""
    shape = (*planes.shape[:axis], len(places), *planes.shape[axis + 1 :])
    total, product = np.empty(shape, planes.dtype), np.empty(shape, planes.dtype)
    of_axis = (-1, 1) if axis == 1 else (-1,)
    for term, share in enumerate(weights.T.astype(planes.dtype, order="C")):
        into = product if term else total
        np.take(planes, places[:, term], axis=axis, out=into, mode="clip")
        into *= share.reshape(of_axis)
        if term:
            total += product
    total += 0  # so that no zero has a sign
    return total


def _working(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """The floats in which pixels are summed: enough digits for each of theirs."""
    return np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64


def _round(values: NDArray[Any], result: NDArray[Any]) -> None:
    """Put values (bands, h, w) into a result (h, w, bands); whole numbers are rounded half up."""
    if result.dtype.kind != "f":
        values += values.dtype.type(0.5)
    if result.dtype.kind == "i":  # without a sign, the cast itself is the floor
        np.floor(values, out=values)
    for band, plane in enumerate(values):
        result[..., band] = plane
