"""Masks read from GeoTIFF, cloud-optimised or not, ours or others' of the same form."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.windows
from numpy.typing import NDArray
from rasterio.crs import CRS

from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import PixelSize
from tilepipe.images.gdal import GDAL_ERRORS, TIFF, gdal_settings, open_dataset
from tilepipe.images.survey import file_set
from tilepipe.products.base import (
    Kind,
    MaskClass,
    MaskSpec,
    Transform,
    as_transform,
    lazy,
    require_inside,
)
from tilepipe.products.shown import ShownMask
from tilepipe.products.vrt import SPEC_TAG
from tilepipe.schema import load_json
from tilepipe.storage import StoragePath
from tilepipe.text import first_line


class GeoTiffMask(ShownMask):
    """A mask in GeoTIFF; see `tilepipe.products.base.Mask`."""

    def __init__(self, path: Path, datasets: list[Any], spec: MaskSpec | None) -> None:
        first = datasets[0]
        if spec is not None and (spec.planes, spec.dtype) != (first.count, first.dtypes[0]):
            # GDAL's tools copy the description along with whatever they made of the pixels.
            spec = None
        resized = spec is None or (spec.height, spec.width) != first.shape
        self.path: StoragePath = path
        self.dtype: np.dtype[Any] = np.dtype(first.dtypes[0])
        self.kind: Kind = _kind(first) if spec is None else spec.kind
        self.planes = int(first.count)
        self.classes: tuple[MaskClass, ...] | None = None if spec is None else spec.classes
        self.levels: tuple[tuple[int, int], ...] = tuple((d.height, d.width) for d in datasets)
        self.crs: str | None = first.crs.to_wkt() if first.crs else None
        self.transform: Transform | None = None
        if not first.transform.is_identity:
            self.transform = as_transform(tuple(first.transform)[:6])
        self.pixel_size: PixelSize | None = (
            _pixel_size(first) if spec is None or resized else spec.pixel_size
        )
        self._datasets = datasets
        # GDAL's datasets are not safe from several threads.
        self._lock = threading.Lock()

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        return self.levels[0]

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """The pixels of a window inside the mask: (H, W) of labels, otherwise (C, H, W)."""
        require_inside(window, self.levels[level])
        place = rasterio.windows.Window(window.x, window.y, window.width, window.height)
        bands = 1 if self.kind == "labels" else None
        try:
            with self._lock:
                return self._read(level, bands, place)
        except GDAL_ERRORS as error:
            raise UnreadableError(
                f"{self.path} is damaged ({first_line(error)}); write it again."
            ) from error

    def _read(self, level: int, bands: int | None, place: Any) -> NDArray[Any]:
        dataset = self._datasets[level]
        if dataset.closed:
            dataset = self._datasets[level] = _open_level(self.path, level)
        try:
            return np.asarray(dataset.read(bands, window=place))
        except BaseException:
            dataset.close()  # GDAL may take what failed for done: it is not used again
            raise

    def as_dask(self, level: int = 0) -> Any:
        """The level as a lazy dask array of shape (H, W) for labels, otherwise (C, H, W)."""
        return lazy(self, level, CHUNK)

    def close(self) -> None:
        """Release the file."""
        for dataset in self._datasets:
            dataset.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # An open file cannot travel to another process; its path can.
        return open_geotiff_mask, (self.path,)


def open_geotiff_mask(path: Path) -> GeoTiffMask:
    """Open a mask in GeoTIFF: one band of uint8 labels, or bands of uint8 or float32.

    Raises
    ------
    InputError
        When there is none at ``path``, or none that is understood.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give the path of a mask.")
    datasets: list[Any] = []
    try:
        file_set(str(path))
        datasets.append(_open_level(path, 0))
        _kind(datasets[0])
        levels = 1 + len(datasets[0].overviews(1))
        datasets.extend(_open_level(path, level) for level in range(1, levels))
        tag = datasets[0].tags().get(SPEC_TAG)
        spec = None if tag is None else MaskSpec.from_json(load_json(tag))
        return GeoTiffMask(path, datasets, spec)
    except (*GDAL_ERRORS, ValueError, TypeError, AttributeError) as error:
        for dataset in datasets:
            dataset.close()
        raise InputError(
            f"{path} is no mask that is understood ({first_line(error)});"
            " give one of labels, one band of uint8."
        ) from error


def _open_level(path: StoragePath, level: int) -> Any:
    options = {"OVERVIEW_LEVEL": level - 1} if level else {}
    with gdal_settings(str(path)):
        return open_dataset(str(path), drivers=TIFF, **options)


def _kind(dataset: Any) -> Kind:
    dtypes = set(dataset.dtypes)
    if dtypes == {"float32"}:
        return "values"
    if dtypes == {"uint8"}:
        return "labels" if dataset.count == 1 else "planes"
    raise ValueError(f"its pixels are {', '.join(sorted(dtypes))}")


def _pixel_size(dataset: Any) -> PixelSize | None:
    if not dataset.crs or dataset.transform.is_identity:
        return None
    a, b, _, d, e, _ = tuple(dataset.transform)[:6]
    unit = _unit(dataset.crs)
    return None if unit is None else PixelSize(float(np.hypot(b, e)), float(np.hypot(a, d)), unit)


def _unit(crs: CRS) -> str | None:
    if crs.is_geographic:
        return "degree"
    unit = str(crs.linear_units).lower()
    return {"metre": "meter", "us survey foot": unit, "foot": unit}.get(unit)
