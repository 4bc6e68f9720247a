"""The grids of mask and truth: whether they are the same, and warping a truth to the mask's."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError, UnreadableError
from tilepipe.evaluation.label_maps import LabelMap
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import Transform
from tilepipe.text import first_line

TOLERANCE_PIXELS = 0.01
"""Largest distance between the corners of two equal grids, as rounding in files may cause."""

TOLERANCE_SIZE = 0.01
"""Largest relative difference of two equal pixel sizes."""


def require_one_grid(mask: LabelMap, truth: LabelMap) -> None:
    """Refuse a truth whose pixels are not those of the mask.

    Raises
    ------
    InputError
        The grids differ; the message names the difference.
    """
    if mask.georeferenced and truth.georeferenced:
        _require_one_place(mask, truth)
        return
    if mask.shape != truth.shape:
        raise InputError(
            f"{_sizes_differ(mask, truth)}; resample the truth to the pixels of the mask"
        )
    sizes = [map_.pixel_size.metres() if map_.pixel_size else None for map_ in (mask, truth)]
    if sizes[0] is None or sizes[1] is None:
        return
    if any(
        not math.isclose(a, b, rel_tol=TOLERANCE_SIZE)
        for a, b in zip(sizes[0], sizes[1], strict=True)
    ):
        raise InputError(
            f"{truth.path} has pixels of {sizes[1][1] * 1e6:.4g} µm, and {mask.path} of "
            f"{sizes[0][1] * 1e6:.4g} µm; resample the truth to the pixels of the mask"
        )


def warped(truth: LabelMap, mask: LabelMap) -> LabelMap:
    """The truth on the mask's grid: the nearest label, or values interpolated bilinearly.

    Raises
    ------
    InputError
        One of them is not georeferenced, or the truth is not a raster file.
    """
    for map_ in (mask, truth):
        if not map_.georeferenced:
            raise InputError(f"{map_.path} is not georeferenced, so --warp cannot place it")
    if truth.path.is_dir():
        raise InputError(f"{truth.path} is an OME-Zarr; --warp needs the truth as a GeoTIFF")
    raster = _WarpedRaster(truth, mask)
    return replace(
        truth, grid=mask.grid, read=raster.read, close=raster.close, chunk=(CHUNK, CHUNK)
    )


class _WarpedRaster:
    """A truth that GDAL warps to the mask's grid as it is read."""

    def __init__(self, truth: LabelMap, mask: LabelMap) -> None:
        import rasterio
        from rasterio.enums import Resampling
        from rasterio.vrt import WarpedVRT

        from tilepipe.images.gdal import GDAL_ERRORS, gdal_settings, open_dataset
        from tilepipe.images.survey import file_set

        assert mask.transform is not None
        self._truth = truth
        self._values = truth.kind == "values"
        # GDAL's datasets are not safe from several threads.
        self._lock = threading.Lock()
        settings: dict[str, Any] = {"nodata": math.nan} if self._values else {
            # Labels declared as nodata stay labels; the alpha band marks what lies outside.
            "src_nodata": None, "nodata": None, "add_alpha": True,
        }  # fmt: skip
        path = str(truth.path)
        try:
            file_set(path)
            with gdal_settings(path):
                self._source = open_dataset(path)
            self._raster = WarpedVRT(
                self._source,
                crs=mask.crs,
                transform=rasterio.Affine(*mask.transform),
                height=mask.shape[0],
                width=mask.shape[1],
                resampling=Resampling.bilinear if self._values else Resampling.nearest,
                **settings,
            )
        except (*GDAL_ERRORS, ValueError) as error:
            raise InputError(
                f"{path} cannot be warped to the grid of {mask.path} ({first_line(error)}); "
                "warp it yourself with gdalwarp"
            ) from error

    def read(self, window: Window) -> NDArray[Any]:
        """The pixels of a window, (C, H, W); labels outside the truth are -1, values NaN."""
        from rasterio.windows import Window as RasterWindow

        from tilepipe.images.gdal import GDAL_ERRORS

        area = RasterWindow(window.x, window.y, window.width, window.height)
        bands = list(range(1, self._truth.planes + 1))
        try:
            with self._lock:
                pixels = np.asarray(self._raster.read(bands, window=area))
                if self._values:
                    return pixels
                alpha = self._raster.read(self._raster.count, window=area)
        except GDAL_ERRORS as error:
            self._raster.close()  # GDAL may take what failed for done: it is not used again
            raise UnreadableError(
                f"{self._truth.path} cannot be read ({first_line(error)}); copy it again"
            ) from error
        # Negative labels count as no label, whatever the labels of the file are.
        return np.where(alpha > 0, pixels.astype(np.int64), -1)

    def close(self) -> None:
        """Close the files."""
        self._raster.close()
        self._source.close()
        self._truth.close()


def _require_one_place(mask: LabelMap, truth: LabelMap) -> None:
    from rasterio.crs import CRS

    advice = "use --warp to warp the truth to the grid of the mask"
    crs = [CRS.from_wkt(map_.crs) for map_ in (mask, truth)]
    if crs[0] != crs[1]:
        raise InputError(
            f"{truth.path} is in {_crs_name(crs[1])}, and {mask.path} in {_crs_name(crs[0])}; "
            f"{advice}"
        )
    assert mask.transform is not None
    assert truth.transform is not None
    if mask.shape != truth.shape:
        raise InputError(f"{_sizes_differ(mask, truth)}; {advice}")
    shift = _largest_shift(mask.transform, truth.transform, mask.shape)
    if shift > TOLERANCE_PIXELS:
        raise InputError(
            f"{truth.path} is shifted by up to {shift:.3g} pixels against {mask.path}; {advice}"
        )


def _largest_shift(one: Transform, other: Transform, shape: tuple[int, int]) -> float:
    """How far apart the corners of two grids lie, in pixels of the first."""
    a, b, _, d, e, _ = one
    pixel = min(math.hypot(a, d), math.hypot(b, e))
    corners = [(x, y) for x in (0, shape[1]) for y in (0, shape[0])]
    return (
        max(
            math.dist(_coordinates(one, *corner), _coordinates(other, *corner))
            for corner in corners
        )
        / pixel
    )


def _coordinates(transform: Transform, column: float, row: float) -> tuple[float, float]:
    a, b, c, d, e, f = transform
    return a * column + b * row + c, d * column + e * row + f


def _crs_name(crs: Any) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt()).split('"')[1]


def _sizes_differ(mask: LabelMap, truth: LabelMap) -> str:
    (height, width), (true_height, true_width) = mask.shape, truth.shape
    return (
        f"{truth.path} is {true_width} x {true_height} pixels, and {mask.path} {width} x {height} "
        "(width x height)"
    )
