"""Whether mask and truth lie on one grid; and bringing a georeferenced truth to the mask's."""

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
"""How far the corners of two grids may lie apart: what rounding in files comes to."""

TOLERANCE_SIZE = 0.01
"""How much pixel sizes may differ, as a share."""


def require_one_grid(mask: LabelMap, truth: LabelMap) -> None:
    """Refuse a truth whose pixels are not those of the mask.

    Raises
    ------
    InputError
        Saying in what they differ.
    """
    if mask.georeferenced and truth.georeferenced:
        _require_one_place(mask, truth)
    elif mask.shape != truth.shape:
        raise InputError(
            f"{truth.path} has {_size(truth)} pixels, and {mask.path} has {_size(mask)}; "
            "bring the truth to the pixels of the mask"
        )
    sizes = [map_.pixel_size.metres() if map_.pixel_size else None for map_ in (mask, truth)]
    if sizes[0] is None or sizes[1] is None or (mask.georeferenced and truth.georeferenced):
        return
    if any(
        not math.isclose(a, b, rel_tol=TOLERANCE_SIZE)
        for a, b in zip(sizes[0], sizes[1], strict=True)
    ):
        raise InputError(
            f"{truth.path} has pixels of {sizes[1][1] * 1e6:.4g} µm, and {mask.path} of "
            f"{sizes[0][1] * 1e6:.4g} µm; bring the truth to the pixels of the mask"
        )


def warped(truth: LabelMap, mask: LabelMap) -> LabelMap:
    """The truth on the mask's grid: the nearest label, or values interpolated bilinearly.

    Raises
    ------
    InputError
        One of them is not georeferenced, or the truth is no raster file.
    """
    for map_ in (mask, truth):
        if not map_.georeferenced:
            raise InputError(f"{map_.path} is not georeferenced, so --warp cannot place it")
    if truth.path.is_dir():
        raise InputError(f"{truth.path} is an OME-Zarr; --warp needs the truth as a GeoTIFF")
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    from tilepipe.images.gdal import GDAL_ERRORS, gdal_settings, open_dataset
    from tilepipe.images.survey import file_set

    assert mask.transform is not None
    values = truth.kind == "values"
    settings: dict[str, Any] = {"nodata": math.nan} if values else {
        # Labels declared as nodata are told by their value; alpha tells what lies outside.
        "src_nodata": None, "nodata": None, "add_alpha": True,
    }  # fmt: skip
    try:
        file_set(str(truth.path))
        with gdal_settings(str(truth.path)):
            source = open_dataset(str(truth.path))
        raster = WarpedVRT(
            source,
            crs=mask.crs,
            transform=rasterio.Affine(*mask.transform),
            height=mask.shape[0],
            width=mask.shape[1],
            resampling=Resampling.bilinear if values else Resampling.nearest,
            **settings,
        )
    except (*GDAL_ERRORS, ValueError) as error:
        raise InputError(
            f"{truth.path} cannot be brought to the grid of {mask.path} ({first_line(error)}); "
            "warp it yourself: gdalwarp"
        ) from error
    # GDAL's datasets are not safe from several threads.
    lock = threading.Lock()

    def read(window: Window) -> NDArray[Any]:
        place = rasterio.windows.Window(window.x, window.y, window.width, window.height)
        bands = list(range(1, truth.planes + 1))
        try:
            with lock:
                pixels = np.asarray(raster.read(bands, window=place))
                alpha = None if values else raster.read(raster.count, window=place)
        except GDAL_ERRORS as error:
            raster.close()  # GDAL may take what failed for done: it is not used again
            raise UnreadableError(
                f"{truth.path} cannot be read ({first_line(error)}); copy it again"
            ) from error
        # A negative label is none, whatever the file's own labels are.
        return pixels if alpha is None else np.where(alpha > 0, pixels.astype(np.int64), -1)

    def close() -> None:
        raster.close()
        source.close()
        truth.close()

    return replace(
        truth,
        shape=mask.shape,
        read=read,
        close=close,
        pixel_size=mask.pixel_size,
        crs=mask.crs,
        transform=mask.transform,
        chunk=(CHUNK, CHUNK),
    )


def _require_one_place(mask: LabelMap, truth: LabelMap) -> None:
    from rasterio.crs import CRS

    advice = "--warp brings the truth to the grid of the mask"
    crs = [CRS.from_wkt(map_.crs) for map_ in (mask, truth)]
    if crs[0] != crs[1]:
        raise InputError(
            f"{truth.path} is in {_crs_name(crs[1])}, and {mask.path} in {_crs_name(crs[0])}; "
            f"{advice}"
        )
    assert mask.transform is not None
    assert truth.transform is not None
    if mask.shape != truth.shape:
        raise InputError(
            f"{truth.path} has {_size(truth)} pixels, and {mask.path} has {_size(mask)}; {advice}"
        )
    shift = _largest_shift(mask.transform, truth.transform, mask.shape)
    if shift > TOLERANCE_PIXELS:
        raise InputError(f"{truth.path} lies up to {shift:.3g} pixels beside {mask.path}; {advice}")


def _largest_shift(one: Transform, other: Transform, shape: tuple[int, int]) -> float:
    """How far apart the corners of two grids lie, in pixels of the first."""
    a, b, _, d, e, _ = one
    pixel = min(math.hypot(a, d), math.hypot(b, e))
    corners = [(x, y) for x in (0, shape[1]) for y in (0, shape[0])]
    return (
        max(math.dist(_place(one, *corner), _place(other, *corner)) for corner in corners) / pixel
    )


def _place(transform: Transform, column: float, row: float) -> tuple[float, float]:
    a, b, c, d, e, f = transform
    return a * column + b * row + c, d * column + e * row + f


def _crs_name(crs: Any) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt()).split('"')[1]


def _size(map_: LabelMap) -> str:
    return f"{map_.shape[0]} x {map_.shape[1]}"
