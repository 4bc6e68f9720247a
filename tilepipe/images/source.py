"""What one kind of file has to provide: a `Source` of pixels, and a `Description` of them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.base import Level, Placed, RasterGrid, Series
from tilepipe.images.scaling import Scaling

LARGEST_SIDE = 2**31 - 1
"""Rows or columns; more are an error in the file."""

MOST_BANDS = 2**16 - 1
"""As many as a TIFF can have."""


class TooLargeError(InputError):
    """An image that can only be decoded in pieces beyond the memory allowed."""


class UndecodableError(Exception):
    """Raised by a `Source` that cannot decode; becomes an `UnreadableError` that names where."""


@dataclass(frozen=True, slots=True)
class Description(Placed):
    """What a file states about its image; the attributes of `Image`, as plain data."""

    path: str
    kind: str
    levels: tuple[Level, ...]
    bands: int
    dtype: np.dtype[Any]
    chunks: tuple[tuple[int, int], ...]
    grid: RasterGrid
    """The grid of level 0, and its place."""
    pixel_size_doubt: str | None = None
    nodata: tuple[float | None, ...] = field(default=())
    """Nodata value of each band; empty where no band has one."""
    scaling: Scaling = ()
    """Scale and offset of each band; empty where no band has any."""
    palette: bool = False
    """Whether pixels are the colours of a palette, of which nodata is an entry."""
    masked: bool = False
    """Whether validity is more than what nodata and NaN in the pixels tell (alpha, a mask)."""
    streaming: bool = False
    """Whether it was opened to be read once, from top to bottom."""
    notes: tuple[str, ...] = ()
    """What the file states that is not applied to the pixels."""
    band_names: tuple[str, ...] = ()
    """Name of each band, empty where unknown; or no entry at all."""
    alpha: int | None = None
    """Index (from 0) of the alpha band among the bands of the file; it is not one of `bands`."""
    alpha_name: str = "alpha"
    """The file's name for it."""
    decoded_bands: int | None = None
    """Bands that are decoded to read these; None: as many as there are, alpha included."""
    series: tuple[Series, ...] = ()
    """Every image in the file; may be left out where there is only one."""
    series_number: int = 0


class Source(Protocol):
    """An open file of one kind. Windows lie within the level; any thread may read."""

    description: Description

    def read(self, window: Window, level: int) -> NDArray[Any]:
        """Read the pixels of a window, shape (height, width, bands).

        Raises
        ------
        UndecodableError
            Where something in the window cannot be decoded.
        """
        ...

    def read_masked(self, window: Window, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read pixels, and where alpha or mask count them as data, (height, width).

        Called only if the description is `masked`.
        """
        ...

    def select(self, bands: Sequence[int]) -> Source:
        """Return a source of some of the file's bands, in this order.

        Bands are counted from 0, alpha among them, which then is data; one may occur twice. Both
        sources read the same open file, which only the one that opened it closes.
        """
        ...

    def fingerprint(self) -> str:
        """Return a short hash that changes when the content of the file does."""
        ...

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        ...


class OpenFile:
    """A source that several images read; it is closed when the last of them lets go of it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        weakref.finalize(self, source.close)

    def fingerprint(self) -> str:
        """Compute the fingerprint of what now lies at the path of the file."""
        return self.source.fingerprint()
