"""Images that tests of readers make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images import Image


def geotiff(path: Path, pixels: NDArray[Any], names: list[str] | None = None, **more: Any) -> Path:
    """Through GDAL, with a place on Earth; ``colours`` are the interpretations of its bands."""
    # By default, GDAL makes the last of four bands of 8 bits an alpha band.
    colours = more.pop("colours", None)
    if colours is None and "photometric" not in more:
        more |= {"photometric": "minisblack", "alpha": "no"}
    profile = {
        "driver": "GTiff", "height": pixels.shape[0], "width": pixels.shape[1],
        "count": pixels.shape[2], "dtype": pixels.dtype, "crs": "EPSG:32633",
        "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), "tiled": True,
        "blockxsize": 64, "blockysize": 64,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile | more) as target:
        target.write(np.moveaxis(pixels, -1, 0))
        if colours:
            target.colorinterp = colours
        for index, name in enumerate(names or (), 1):
            target.set_band_description(index, name)
    return path


def write_scene(
    path: Path, pixels: NDArray[Any], nodata: float | None = None, **extra: Any
) -> Path:
    height, width, bands = pixels.shape
    options = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)} | extra
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=pixels.dtype,
        nodata=nodata, **options,
    ) as dataset:  # fmt: skip
        dataset.write(np.moveaxis(pixels, 2, 0))
    return path


def whole(image: Image, level: int = 0) -> Window:
    return Window(0, 0, image.levels[level].height, image.levels[level].width)
