"""A region from polygons: from QuPath in pixels of level 0, or from a GIS in coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tilepipe.errors import InputError
from tilepipe.images import Image
from tilepipe.regions.cells import Bools, CellGrid
from tilepipe.regions.features import GDAL, read_features
from tilepipe.regions.layers import WHOLE_IMAGE, placed, shown_crs
from tilepipe.storage import require_ordinary

OTHER_FORMATS = {".kmz", ".gdb", ".geojsonl", ".parquet"}
"""Suffixes of vector formats that have to be converted."""


def looks_like_polygons(path: str) -> bool:
    """Tell whether a file holds polygons, by its suffix, or its first character for GeoJSON.

    Raises
    ------
    InputError
        Where it is missing, or holds polygons in another format.
    """
    suffix = Path(path).suffix.lower()
    if suffix in OTHER_FORMATS:
        raise InputError(
            f"{path}: polygons are read as GeoJSON, {' or '.join(GDAL)}; convert it first, for "
            f"example with ogr2ogr {Path(path).with_suffix('.gpkg').name} {Path(path).name}"
        )
    require_ordinary(Path(path))
    if Path(path).is_dir():
        return False
    try:
        with Path(path).open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path of the tissue mask") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return suffix in GDAL or head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def cells_of_polygons(path: str, image: Image, grid: CellGrid) -> Bools:
    """Find the cells that polygons touch.

    Coordinates are (x, y) pixels of level 0, from its upper left corner, where the image has no
    CRS. Where it has one, they are in the CRS that the file names, or else longitude and latitude.
    Lines and points are passed over.

    Raises
    ------
    InputError
        Where it cannot be read, cannot be placed, or no polygon touches the image.
    """
    from rasterio import Affine
    from rasterio.features import rasterize

    shapes, crs = placed(read_features(path), image.grid, WHOLE_IMAGE, image.path)
    cells = rasterize(
        shapes,
        out_shape=grid.shape,
        transform=Affine.scale(grid.sides[1], grid.sides[0]),
        all_touched=True,
        dtype="uint8",
    )
    if not cells.any():
        raise InputError(
            f"{path}: no polygon touches {image.path}, its coordinates being read as "
            f"{shown_crs(crs)}; give the polygons of this image"
        )
    return np.asarray(cells, np.bool_)
