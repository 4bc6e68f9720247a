"""Masks read from OME-TIFF, ours or others' of the same form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import PixelSize
from tilepipe.images.directories import check_directories
from tilepipe.images.tiff import BROKEN_STRUCTURE
from tilepipe.products.base import (
    NO_ANSWER,
    Kind,
    MaskClass,
    MaskSpec,
    Transform,
    lazy,
    require_inside,
)
from tilepipe.products.ome_xml import read_pixel_size, read_spec
from tilepipe.products.shown import ShownMask
from tilepipe.storage import StoragePath
from tilepipe.text import first_line

LARGEST_SEGMENT = 2**28
"""Bytes of a tile or strip, decoded."""


class OmeTiffMask(ShownMask):
    """A mask in OME-TIFF; see `tilepipe.products.base.Mask`."""

    def __init__(self, path: Path, file: tifffile.TiffFile, spec: MaskSpec | None) -> None:
        series = file.series[0]
        xml = file.ome_metadata or ""
        self.path: StoragePath = path
        self.dtype: np.dtype[Any] = np.dtype(series.dtype)
        self.kind: Kind = _kind(series) if spec is None else spec.kind
        self.planes = int(series.shape[0]) if series.ndim == 3 else 1
        self.classes: tuple[MaskClass, ...] | None = None if spec is None else spec.classes
        self.levels: tuple[tuple[int, int], ...] = tuple(
            (int(level.shape[-2]), int(level.shape[-1])) for level in series.levels
        )
        self.pixel_size: PixelSize | None = (
            read_pixel_size(xml) if spec is None else spec.pixel_size
        )
        self.crs: str | None = None if spec is None else spec.crs
        self.transform: Transform | None = None if spec is None else spec.transform
        # Listed once: a series looks its pages up in the file, which threads must not do at once.
        self._pages = [list(level.pages) for level in series.levels]
        for page in (level[0] for level in self._pages):
            _check_segments(page.keyframe)
        self._file = file
        self._file.filehandle.set_lock(True)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        return self.levels[0]

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """The pixels of a window inside the mask: (H, W) of labels, otherwise (C, H, W)."""
        require_inside(window, self.levels[level])
        pages = self._pages[level]
        if self.kind == "labels":
            return self._read_page(pages[0], window)
        return np.stack([self._read_page(pages[plane], window) for plane in range(self.planes)])

    def as_dask(self, level: int = 0) -> Any:
        """The level as a lazy dask array of shape (H, W) for labels, otherwise (C, H, W)."""
        return lazy(self, level, CHUNK)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # An open file cannot travel to another process; its path can.
        return open_ome_tiff_mask, (self.path,)

    def _read_page(self, page: Any, window: Window) -> NDArray[Any]:
        """Decode only the tiles, or strips, that the window touches."""
        key = page.keyframe
        height = key.tilelength if key.is_tiled else key.rowsperstrip
        width = key.tilewidth if key.is_tiled else key.imagewidth
        across = -(-key.imagewidth // width)
        fill = np.nan if self.dtype.kind == "f" else NO_ANSWER
        pixels = np.full(window.shape, fill, self.dtype)
        for row in range(window.y // height, -(-window.stop_y // height)):
            for column in range(window.x // width, -(-window.stop_x // width)):
                segment = self._read_segment(page, row * across + column)
                tile = Window(row * height, column * width, height, width)
                common = tile.intersect(window)
                if segment is not None and common is not None:
                    pixels[_within(window, common)] = segment[_within(tile, common)]
        return pixels

    def _read_segment(self, page: Any, index: int) -> NDArray[Any] | None:
        handle = self._file.filehandle
        try:
            offset, size = page.dataoffsets[index], page.databytecounts[index]
            if size == 0:
                return None
            if offset + size > handle.size:
                raise ValueError(f"tile {index} lies beyond the end of the file")
            with handle.lock:
                handle.seek(offset)
                data = handle.read(size)
            segment = page.keyframe.decode(data, index)[0]
        except Exception as error:
            # The codecs raise each their own kind of error.
            raise UnreadableError(
                f"{self.path} is damaged ({first_line(error)}); write it again."
            ) from error
        return np.asarray(segment)[0, :, :, 0]


def open_ome_tiff_mask(path: Path) -> OmeTiffMask:
    """Open a mask in OME-TIFF: (Y, X) of uint8, or (C, Y, X) of uint8 or float32.

    Raises
    ------
    InputError
        When there is none at ``path``, or none that is understood.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give the path of a mask.")
    try:
        check_directories(path)
        file = tifffile.TiffFile(path)
    except BROKEN_STRUCTURE as error:
        raise InputError(
            f"{path} is no TIFF that can be opened ({first_line(error)}); give a mask."
        ) from error
    try:
        _kind(file.series[0])
        spec = read_spec(file.ome_metadata) if file.ome_metadata else None
        return OmeTiffMask(path, file, spec)
    except BROKEN_STRUCTURE as error:
        file.close()
        raise InputError(
            f"{path} is no mask that is understood ({first_line(error)});"
            " give one of labels, (Y, X) of uint8."
        ) from error


def _check_segments(key: Any) -> None:
    """Refuse tiles of no size, or of more than is decoded at once."""
    height = key.tilelength if key.is_tiled else key.rowsperstrip
    width = key.tilewidth if key.is_tiled else key.imagewidth
    decoded = min(height, max(key.imagelength, CHUNK)) * width * key.dtype.itemsize
    if not 0 < decoded <= LARGEST_SEGMENT:
        raise ValueError(f"its tiles have {height} x {width} pixels")


def _kind(series: Any) -> Kind:
    if series.axes == "YX" and series.dtype == np.uint8:
        return "labels"
    if series.axes in ("CYX", "IYX", "QYX") and series.dtype == np.uint8:
        return "planes"
    if series.axes in ("YX", "CYX", "IYX", "QYX") and series.dtype == np.float32:
        return "values"
    raise ValueError(f"its axes are {series.axes} and its pixels {series.dtype}")


def _within(outer: Window, inner: Window) -> tuple[slice, slice]:
    y, x = inner.y - outer.y, inner.x - outer.x
    return slice(y, y + inner.height), slice(x, x + inner.width)
