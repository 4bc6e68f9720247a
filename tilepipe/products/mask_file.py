"""A mask in a file of a raster format, read by the reader of such images."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import UnreadableError
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import Placed, RasterGrid
from tilepipe.images.source import Description, Source, UndecodableError
from tilepipe.images.validity import is_of
from tilepipe.products.base import NO_ANSWER, Kind, MaskClass, MaskSpec, lazy, require_inside
from tilepipe.products.product import product_named
from tilepipe.products.shown import ShownMask
from tilepipe.storage import StoragePath
from tilepipe.text import first_line

LARGEST_SEGMENT = 2**28
"""Bytes of a tile or strip, decoded."""


class MaskFile(ShownMask, Placed):
    """A mask in a TIFF; see `tilepipe.products.base.Mask`.

    Parameters
    ----------
    path
        Of the file.
    reopen
        Opens it again in another process.
    source
        All of its planes as bands.
    kind
        What its form tells.
    spec
        What tilepipe wrote into it; None in a file of another program, of which what it declares
        as nodata has no answer, unless that is 0.
    grid
        Its grid and place.

    Raises
    ------
    ValueError
        Its tiles are larger than can be decoded at once.
    """

    def __init__(
        self,
        path: Path,
        reopen: Callable[[Path], MaskFile],
        source: Source,
        kind: Kind,
        spec: MaskSpec | None,
        grid: RasterGrid,
    ) -> None:
        described = source.description
        self.path: StoragePath = path
        self.spec = spec
        self.dtype: np.dtype[Any] = described.dtype
        self.kind: Kind = kind if spec is None else spec.kind
        self.planes = described.bands
        self.classes: tuple[MaskClass, ...] | None = None if spec is None else spec.classes
        self.levels = tuple((level.height, level.width) for level in described.levels)
        self.grid = grid
        for rows, columns in described.chunks:
            if rows * columns * self.dtype.itemsize > LARGEST_SEGMENT:
                raise ValueError(f"its tiles have {columns} x {rows} pixels")
        self._reopen = reopen
        self._source = source
        self._nodata = () if spec is not None else _labels_of_nothing(described)
        self._planes = [source.select([plane]) for plane in range(self.planes)]
        # A mask that nobody closes is closed when nobody has it any more.
        self._close = weakref.finalize(self, source.close)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        return self.levels[0]

    @property
    def declares_gaps(self) -> bool:
        """Whether the file says which of its pixels have no answer."""
        return bool(self._nodata) or self._source.description.masked

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """Read the pixels of a window inside the mask: (H, W) of labels, otherwise (C, H, W)."""
        require_inside(window, self.levels[level])
        try:
            if self._source.description.masked:
                pixels = np.stack([self._filled(plane, window, level) for plane in self._planes])
            else:
                pixels = np.moveaxis(self._source.read(window, level), -1, 0)
                pixels = pixels.copy() if self._nodata else pixels
        except (UndecodableError, OSError) as error:
            raise UnreadableError(
                f"{self.path} is damaged ({first_line(error)}); write it again."
            ) from error
        for plane, nodata in self._nodata:
            pixels[plane][pixels[plane] == nodata] = NO_ANSWER
        return pixels[0] if product_named(self.kind).flat else pixels

    def as_dask(self, level: int = 0) -> Any:
        """Return the level as a lazy dask array: (H, W) of labels, otherwise (C, H, W)."""
        return lazy(self, level, CHUNK)

    def close(self) -> None:
        """Close the file."""
        self._close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # An open file cannot travel to another process; its path can.
        return self._reopen, (self.path,)

    def _filled(self, plane: Source, window: Window, level: int) -> NDArray[Any]:
        """A plane of a window, without an answer where the file has left something out."""
        pixels, valid = plane.read_masked(window, level)
        fill = np.nan if self.dtype.kind == "f" else NO_ANSWER
        return np.where(valid, pixels[..., 0], self.dtype.type(fill))


def _labels_of_nothing(described: Description) -> tuple[tuple[int, int], ...]:
    """Planes of uint8, and the label of each that the file declares as nodata.

    Many label maps declare their background, 0, as nodata; it is a class all the same.
    """
    if described.dtype != np.uint8:
        return ()
    numbers = enumerate(described.nodata)
    return tuple((plane, int(n)) for plane, n in numbers if n and is_of(n, described.dtype))
