"""Tissue on a slide: Otsu's threshold on saturation, at low resolution, cleaned up.

In brightfield, glass is grey, however bright the lamp, and tissue is stained. The threshold is kept
between bounds: what is lost here is not computed, so that pale tissue counts for more than a little
glass, and an image that is all tissue must not be cut in two.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import Image, check_bounded, read_with_valid
from tilepipe.images.averaging import averaged
from tilepipe.regions.cells import Bools, Placement

PIXEL_UM = 8.0
"""Pixel size at which tissue is detected, where that of the image is known."""

LEAST_SIDE, MOST_PIXELS = 256, 1 << 22
"""Least side and most pixels of the small picture, whatever the pixel size."""

LEAST_SATURATION, MOST_SATURATION = 0.04, 0.12
"""The threshold's bounds: glass and its noise below, the palest stains above."""

DARK = 0.1
"""Share of white below which pixels have no colour, such as areas that were not scanned."""

MOSTLY = 0.5
"""Share of dark pixels from which on an image is not brightfield."""

SPECK, HOLE, RIM = 150, 400, 3
"""Pixels of the small picture: parts no larger are dust, holes no larger are filled; and by how
much tissue is grown, so that its edge is not lost (about 0.01 mm2, 0.025 mm2 and 24 um)."""

WAY_OUT = "give polygons or a mask image with --tissue PATH, or compute all of it (--tissue none)"


def find_tissue(image: Image, pixel_um: float | None, limit: int) -> tuple[Bools, Placement, str]:
    """Find tissue: a small mask of it, the place of that on level 0, and how it was found.

    Reads the coarsest level of the pyramid that is fine enough, once, in pieces. (Without a pyramid
    that is level 0: each pixel of the image is decoded once more than the run itself needs.)

    Parameters
    ----------
    pixel_um
        Of level 0, in micrometres; None where it is not known.
    limit
        Bytes that a piece of the file may take when it is decoded.

    Raises
    ------
    InputError
        For images that are not slides in colour, and where no tissue is found.
    """
    if image.bands != 3 or image.dtype.kind != "u":
        bands = "1 band" if image.bands == 1 else f"{image.bands} bands"
        raise InputError(
            f"{image.path}: has {bands} of {image.dtype.name}, and tissue is found by the colour "
            f"of RGB slides; {WAY_OUT}"
        )
    level, times = _resolution(image, pixel_um)
    check_bounded(image, level, limit)
    small, valid = shrunk(image, level, times)
    size = image.levels[level]
    place = Placement(step=(size.scale_y * times, size.scale_x * times))
    saturation, dark = _saturation(small, np.iinfo(image.dtype).max)
    if dark[valid].mean() > MOSTLY:
        raise InputError(
            f"{image.path}: is mostly dark, as fluorescence is, and tissue is found by its colour "
            f"on a bright ground; {WAY_OUT}"
        )
    threshold = _threshold(saturation[valid])
    tissue = _cleaned((saturation > threshold) & valid)
    if not tissue.any():
        raise InputError(
            f"{image.path}: no tissue was found: nothing is coloured (saturation above "
            f"{threshold:.2f}); {WAY_OUT}"
        )
    how = f"saturation above {threshold:.2f} at level {level}"
    return tissue, place, how + (f", {times} x {times} pixels together" if times > 1 else "")


def is_stained(pixels: NDArray[Any]) -> Bools | None:
    """Tell which pixels are stained tissue, by their colour alone.

    Parameters
    ----------
    pixels
        Of an RGB image, shape (n, 3), unsigned integers.

    Returns
    -------
    ndarray of bool, shape (n,), or None
        None where the image is not brightfield: most of it is dark.
    """
    saturation, dark = _saturation(
        pixels[None].astype(np.float32), float(np.iinfo(pixels.dtype).max)
    )
    if not pixels.size or dark.mean() > MOSTLY:
        return None
    stained: Bools = (saturation > _threshold(saturation))[0]
    return stained


def otsu(values: NDArray[Any]) -> float:
    """Find the threshold between the two most distant classes of values in 0 .. 1 (Otsu 1979)."""
    counts, edges = np.histogram(values, 256, (0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()
    above = below[-1] - below
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][np.nan_to_num(between).argmax()])


def shrunk(image: Image, level: int, times: int) -> tuple[NDArray[np.float32], Bools]:
    """Average ``times`` x ``times`` pixels of a level to one; which of these hold data.

    Returns
    -------
    ndarray of float32, shape (rows, columns, bands)
    ndarray of bool, shape (rows, columns)
    """

    def look(piece: Window) -> tuple[NDArray[Any], Bools]:
        pixels, valid = read_with_valid(image, piece, level)
        if valid is None:
            return pixels, np.ones((*piece.shape, 1), np.bool_)
        # A colour is known where all of its bands are.
        known = np.asarray(valid.all(axis=2, keepdims=True))
        return pixels * known, known

    size = image.levels[level]
    rows, columns = (np.arange(0, side, times) for side in (size.height, size.width))
    return averaged(image, level, rows, columns, image.bands, look, np.float32)


def _resolution(image: Image, pixel_um: float | None) -> tuple[int, int]:
    """Choose the level to read, and how many of its pixels, along an axis, become one."""
    height, width, _ = image.shape
    wanted = PIXEL_UM / pixel_um if pixel_um else max(height, width) / 1024
    wanted = min(wanted, max(height, width) / LEAST_SIDE)
    wanted = max(wanted, math.sqrt(height * width / MOST_PIXELS), 1.0)
    scales = [max(level.scale_y, level.scale_x) for level in image.levels]
    level = max((i for i, scale in enumerate(scales) if scale <= 1.05 * wanted), default=0)
    return level, max(1, round(wanted / scales[level]))


def _threshold(saturation: NDArray[np.float32]) -> float:
    return float(np.clip(otsu(saturation), LEAST_SATURATION, MOST_SATURATION))


def _saturation(small: NDArray[np.float32], white: float) -> tuple[NDArray[np.float32], Bools]:
    """(max - min) / max of the bands, 0 where it is dark; and where that is."""
    # Band by band: along an axis of three, numpy takes ten times as long.
    bands = np.moveaxis(small, 2, 0)
    high, low = reduce(np.maximum, bands), reduce(np.minimum, bands)
    if white > 255:
        white = max(1.0, float(np.percentile(high, 99.9)))  # 10 or 12 bits in 16
    dark = high < DARK * white
    return np.where(dark, np.float32(0), (high - low) / np.maximum(high, 1)), dark


def _cleaned(tissue: Bools) -> Bools:
    """Remove specks and small holes, and grow the rest a little."""
    from scipy import ndimage

    tissue = _without_small(tissue, SPECK)
    tissue = ~_without_small(~tissue, HOLE)
    reach = np.hypot(*np.mgrid[-RIM : RIM + 1, -RIM : RIM + 1]) <= RIM
    return np.asarray(ndimage.binary_dilation(tissue, reach))


def _without_small(mask: Bools, pixels: int) -> Bools:
    """Remove connected parts of up to so many pixels."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask)
    large = np.bincount(parts.ravel()) > pixels
    large[0] = False
    return np.asarray(large[parts])
