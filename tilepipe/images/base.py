"""The `Image` protocol: what every image offers, whatever file it comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images.control import GroundControl
from tilepipe.images.reading import Reading
from tilepipe.text import count

UNITS_IN_METRES: dict[str, float] = {
    "picometer": 1e-12,
    "angstrom": 1e-10,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "meter": 1.0,
    "kilometer": 1e3,
    "inch": 0.0254,
    "foot": 0.3048,
    "us survey foot": 1200 / 3937,
}
"""Units of length (NGFF and UDUNITS spelling). All others, such as ``degree``, are not lengths."""


@dataclass(frozen=True, slots=True)
class PixelSize:
    """Distance between pixel centres."""

    y: float
    x: float
    unit: str
    """As NGFF spells it: ``micrometer``, ``meter``, ``degree`` ... (`tilepipe.images.units`)."""

    @property
    def is_sound(self) -> bool:
        """Whether it is above 0 and finite on both axes; files may hold anything."""
        return all(math.isfinite(value) and value > 0 for value in (self.y, self.x))

    def scaled(self, y: float, x: float) -> PixelSize:
        """The pixel size of a level that is ``y`` and ``x`` times coarser."""
        return PixelSize(self.y * y, self.x * x, self.unit)

    def metres(self) -> tuple[float, float] | None:
        """Convert it to metres, (y, x); None for a unit that is not a length."""
        factor = UNITS_IN_METRES.get(self.unit)
        return None if factor is None else (self.y * factor, self.x * factor)


SCALE_TOLERANCE = 0.05
"""Relative difference up to which pixel sizes count as equal: no network is that exact."""


def alike(one: float, other: float) -> bool:
    """Whether two lengths of a pixel count as equal."""
    return abs(one / other - 1) <= SCALE_TOLERANCE + 1e-9


def show_pixel_size(size: PixelSize | None) -> str:
    """Show a pixel size: ``0.25 um/px``, or ``0.25 x 0.5 um/px (width x height)``."""
    if size is None:
        return "unknown"
    unit = {"micrometer": "um", "meter": "m", "degree": "degrees"}.get(size.unit, size.unit)
    if math.isclose(size.y, size.x, rel_tol=1e-3):
        return f"{size.x:.4g} {unit}/px"
    return f"{size.x:.4g} x {size.y:.4g} {unit}/px (width x height)"


Transform = tuple[float, float, float, float, float, float]
"""Affine (a, b, c, d, e, f): x = a col + b row + c, y = d col + e row + f."""


@dataclass(frozen=True, slots=True)
class RasterGrid:
    """A grid of pixels and its place: in space, by pixel size and origin, and on the Earth."""

    height: int
    width: int
    pixel_size: PixelSize | None = None
    """None where it is unknown."""
    crs: str | None = None
    """Coordinate reference system as WKT."""
    transform: Transform | None = None
    """From columns and rows, counted from the upper left corner, to coordinates of the CRS."""
    control: GroundControl | None = None
    """Ground control points or RPCs, where no transform places the grid on the Earth."""
    origin: tuple[float, float] = (0.0, 0.0)
    """(y, x) from the first pixel centre of the image to that of this grid, in the unit of
    `pixel_size`.

    A grid that is f times coarser starts (f - 1) / 2 image pixels further in.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def is_placed(self) -> bool:
        """Whether a CRS, a transform or ground control place it on a map."""
        return any(each is not None for each in (self.crs, self.transform, self.control))

    def coarser(
        self, shape: tuple[int, int], y: float, x: float, pixel_size: PixelSize | None
    ) -> RasterGrid:
        """Return the grid whose pixels are ``y`` rows and ``x`` columns of this one's.

        Parameters
        ----------
        shape
            (height, width) of the new grid.
        pixel_size
            Of the new grid.
        """
        transform, origin = None, (0.0, 0.0)
        if self.transform is not None:
            a, b, c, d, e, f = self.transform
            transform = (a * x, b * y, c, d * x, e * y, f)  # the upper left corners coincide
        if pixel_size is not None:
            origin = pixel_size.y * (1 - 1 / y) / 2, pixel_size.x * (1 - 1 / x) / 2
        control = None if self.control is None else self.control.on_grid(y, x)
        return RasterGrid(*shape, pixel_size, self.crs, transform, control, origin)


class Placed(Protocol):
    """What has a `RasterGrid`, and the attributes of that as its own."""

    grid: RasterGrid
    """The grid of level 0."""

    @property
    def pixel_size(self) -> PixelSize | None:
        """Pixel size of level 0; None where it is unknown."""
        return self.grid.pixel_size

    @property
    def crs(self) -> str | None:
        """Coordinate reference system as WKT."""
        return self.grid.crs

    @property
    def transform(self) -> Transform | None:
        """Affine (a, b, c, d, e, f) of level 0: x = a col + b row + c, y = d col + e row + f."""
        return self.grid.transform

    @property
    def control(self) -> GroundControl | None:
        """Ground control points or RPCs of level 0."""
        return self.grid.control


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image's pyramid."""

    height: int
    width: int
    scale_y: float
    """Rows of level 0 for each row of this level (1.0 at level 0)."""
    scale_x: float


@dataclass(frozen=True, slots=True)
class Series:
    """One of the images in a file: a scan, a label, a scene, a field of a well."""

    number: int
    """From 0, in the order of the file."""
    name: str
    """Its name in the file; empty where it has none."""
    height: int
    """Rows at full resolution; all that follows is of full resolution too."""
    width: int
    bands: int
    dtype: str
    """Name of its numpy dtype."""
    pixel_size: PixelSize | None = None
    """None where the file does not state it, or contradicts itself."""

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width


def show_series(series: Series) -> str:
    """Show an image of a file: ``1 'scan' (1200 x 1000 pixels, 3 bands of uint8, 0.25 um/px)``."""
    name = f" {series.name!r}" if series.name else ""
    size = "" if series.pixel_size is None else f", {show_pixel_size(series.pixel_size)}"
    bands = f"{count(series.bands, 'band')} of {series.dtype}"
    return f"{series.number}{name} ({series.width} x {series.height} pixels, {bands}{size})"


@runtime_checkable
class Image(Placed, Protocol):
    """An opened large image, never held whole. Several threads may read it at once."""

    path: str
    """As the user gave it: a file, or an OME-Zarr folder."""
    kind: str
    """Format it was read as: ``SVS``, ``OME-TIFF``, ``TIFF``, ``GeoTIFF``, ``OME-Zarr`` ..."""
    levels: tuple[Level, ...]
    """Largest first; at least one."""
    bands: int
    """Bands of pixel data; an alpha band is not one of them, it is part of the validity."""
    band_names: tuple[str, ...]
    """Names of the bands in the file (``red``, ``nir``, ``DAPI``); empty where they have none."""
    file_bands: tuple[str, ...]
    """Names of all bands that `Reading.bands` can select, an alpha band among them."""
    dtype: np.dtype[Any]
    decoded_bytes: int
    """Bytes of a pixel while it is decoded: all bands that the file keeps together."""
    pixel_size_doubt: str | None
    """Why the pixel size in the file is unreliable, if it is: ``its A says ... and its B ...``."""
    nodata: float | None
    """The value that means "no data", if the file or the user declares one."""
    scaling: tuple[tuple[float, float], ...]
    """(scale, offset) that the file declares for each band; empty where it declares none."""
    chunks: tuple[tuple[int, int], ...]
    """For each level, the (rows, columns) that are decoded together: a tile, a strip."""
    notes: tuple[str, ...]
    """What the file states but the pixels do not show, each with the option that applies it."""
    validity_by_band: bool
    """Whether one band of a pixel may hold data where another does not."""
    reading: Reading
    """How the file is read: series, bands, nodata, scaling."""
    series: tuple[Series, ...]
    """Every image in the file."""
    series_number: int
    """Number of this image in `series`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, bands) of level 0."""
        ...

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """Read the pixels of a window, shape (height, width, bands), mirrored outside the image.

        Raises
        ------
        UnreadableError
            Where something in the window cannot be decoded; never silently zeros.
        """
        ...

    def read_valid(self, window: Window, level: int = 0) -> NDArray[np.bool_] | None:
        """Tell which pixels hold data in any band, (height, width), mirrored; None where all do."""
        ...

    def as_dask(self, level: int = 0) -> Any:
        """Return the level as a lazy dask array of shape (height, width, bands)."""
        ...

    def fingerprint(self) -> str:
        """Compute a short hash that changes when the file's content does; cheap on a huge file."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...
