"""A region from an image: pixels other than zero are inside."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import Image, open_image, read_with_valid
from tilepipe.images.base import SCALE_TOLERANCE
from tilepipe.regions.cells import NEGLIGIBLE, Bools, CellGrid, Placement, touched_cells

MOST_PIXELS = 1 << 30
"""Most pixels of a mask that is read whole, within some seconds."""


def cells_of_image(path: str, image: Image, grid: CellGrid) -> Bools:
    """Find the cells that hold a pixel which is neither zero nor nodata in some band of a mask.

    A mask with a CRS lies where its transform says; any other is stretched over the image's level
    0, at whatever resolution it is. Its level 0 is read, as what is small may be missing in others;
    of a mask beyond `MOST_PIXELS`, the largest level within them.

    Raises
    ------
    InputError
        Where it is not an image, has other proportions, of another CRS or turned against the image,
        or has nothing inside.
    """
    with closing(open_image(path)) as mask:
        place = _placement(mask, image)
        small = (i for i, size in enumerate(mask.levels) if size.height * size.width <= MOST_PIXELS)
        level = next(small, len(mask.levels) - 1)
        size = mask.levels[level]

        def read(top: int, bottom: int) -> Bools:
            window = Window(top, 0, bottom - top, size.width)
            pixels, valid = read_with_valid(mask, window, level)
            inside = pixels != 0
            return np.asarray((inside if valid is None else inside & valid).any(axis=2))

        scaled = place.scaled(size.scale_y, size.scale_x)
        cells = touched_cells(read, (size.height, size.width), scaled, grid)
    if not cells.any():
        raise InputError(
            f"{path}: has no pixel above 0 within {image.path}, so there is nothing to compute; "
            "give the mask of this image, with what is to be computed not 0"
        )
    return cells


def _placement(mask: Image, image: Image) -> Placement:
    """Place the mask's level 0 on the image's."""
    if mask.crs is None or mask.transform is None:
        return _stretched(mask, image)
    if image.crs is None or image.transform is None:
        raise InputError(
            f"{mask.path}: is georeferenced, and {image.path} is not, so nothing says where on it "
            "the mask lies; give a mask without a CRS, which is stretched over the image"
        )
    from rasterio import Affine
    from rasterio.crs import CRS

    if CRS.from_user_input(mask.crs) != CRS.from_user_input(image.crs):
        raise InputError(
            f"{mask.path}: its CRS is not that of {image.path}; bring it there first, with gdalwarp"
        )
    between = ~Affine(*image.transform) * Affine(*mask.transform)
    sides = min(abs(between.a), abs(between.e))
    turned = max(abs(between.b) * mask.shape[0], abs(between.d) * mask.shape[1])
    if sides == 0 or turned > max(0.5, sides / 2):
        raise InputError(
            f"{mask.path}: is turned against {image.path}; bring it to its grid first, with "
            "gdalwarp"
        )
    return Placement((between.f, between.c), (between.e, between.a))


def _stretched(mask: Image, image: Image) -> Placement:
    steps = image.shape[0] / mask.shape[0], image.shape[1] / mask.shape[1]
    # Small pictures are cut to whole pixels: one may be missing on either axis.
    slack = 1 + SCALE_TOLERANCE + 1 / mask.shape[0] + 1 / mask.shape[1] + NEGLIGIBLE
    if not 1 / slack <= steps[0] / steps[1] <= slack:
        raise InputError(
            f"{mask.path}: has {mask.shape[1]} x {mask.shape[0]} pixels (width x height), and "
            f"{image.path} {image.shape[1]} x {image.shape[0]}: the proportions differ; give a "
            "mask of all of this image"
        )
    return Placement(step=steps)
