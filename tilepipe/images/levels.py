"""The pyramid among the resolutions in a file, and how coarse each level is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import truediv

from tilepipe.images.base import Level

ASPECT_TOLERANCE = 0.02
"""How much more one axis of a level may be reduced than the other, beyond rounding of its size."""


def pyramid(sizes: Sequence[tuple[int, int]], *, snap: bool = True) -> dict[int, Level]:
    """Find the levels of a pyramid among images of some (height, width), by their number.

    A level is a smaller version of the first image and of the level before it. Others, such as
    thumbnails of another aspect, are left out.

    Slides are reduced by whole factors and their sizes rounded: with ``snap``, a scale is that
    factor. GDAL spreads an overview over the whole extent, whatever its size: without, it is the
    ratio of the sizes.
    """
    height, width = sizes[0]
    levels = {0: Level(height, width, 1.0, 1.0)}
    smallest = sizes[0]
    for number, size in enumerate(sizes):
        if size[0] >= smallest[0] or size[1] >= smallest[1] or not _same_aspect(sizes[0], size):
            continue
        scale = whole_scale if snap else truediv
        levels[number] = Level(*size, scale(height, size[0]), scale(width, size[1]))
        smallest = size
    return levels


def _same_aspect(full: tuple[int, int], size: tuple[int, int]) -> bool:
    # A size may be rounded up or down, once a level: some pixels more or less on either axis.
    low = max(axis / (part + 2) for axis, part in zip(full, size, strict=True))
    high = min(axis / max(part - 2, 0.5) for axis, part in zip(full, size, strict=True))
    return low <= high * (1 + ASPECT_TOLERANCE)


def whole_scale(full: int, size: int) -> float:
    """Rows of the full image for each of a level: whole where rounding explains the rest."""
    ratio = full / size
    # Powers of two first: 57 rows halved three times are 8, which is also a seventh.
    for whole in (2 ** round(math.log2(ratio)), round(ratio)):
        if abs(full / whole - size) < 1:
            return float(whole)
    return ratio
