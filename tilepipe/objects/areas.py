"""Areas of a mask: of its pixels, on the ground where a CRS distorts them, and of its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import CHUNK, Window, WindowGrid
from tilepipe.images.ground import PixelAreas, ground_of_grid
from tilepipe.products.base import Mask, MaskSpec
from tilepipe.products.product import product_named

Bools = NDArray[np.bool_]

Inside = Callable[[Window], Bools]
"""Tells which pixels of a window of a mask are inside a region, shape (H, W)."""

SIDE = 4 * CHUNK
"""Side of a window that is looked at, in pixels."""

STRIP_ROWS = 64
"""Rows whose areas on the ground are in memory at a time, at eight bytes a pixel."""

HECTARES_UP_TO = 1.0
"""Side of a pixel in metres up to which densities are per hectare: trees, not lakes."""

SQUARE_METRES = {"um2": 1e-12, "mm2": 1e-6, "m2": 1.0, "ha": 1e4, "km2": 1e6}
"""Of each unit of area; pixels have none."""

SHOWN = {"um2": "µm²", "mm2": "mm²", "m2": "m²", "ha": "ha", "km2": "km²", "px2": "px²",
         "Mpx": "million pixels", "um": "µm", "m": "m", "px": "px"}  # fmt: skip
"""Units for people."""


@dataclass(frozen=True, slots=True)
class AreaUnit:
    """The units of areas in one mask."""

    small: str
    """Of an object: ``um2``, ``m2``, or ``px2`` if the pixel size is unknown."""
    large: str
    """Of a mask, and that per which objects are counted: ``mm2``, ``ha``, ``km2`` or ``Mpx``."""

    @property
    def smalls(self) -> float:
        """How many of the small unit the large one has."""
        if self.small == "px2":
            return 1e6
        return SQUARE_METRES[self.large] / SQUARE_METRES[self.small]


@dataclass(frozen=True, slots=True)
class Area:
    """How large a part of a mask is."""

    pixels: int
    size: float
    """In the large unit."""


class PixelArea:
    """The area of each pixel of a mask.

    Parameters
    ----------
    spec : MaskSpec
        The mask. Its pixels are as large as it says, unless its CRS tells that they differ.
    """

    def __init__(self, spec: MaskSpec) -> None:
        self._spec = spec
        ground = ground_of_grid(spec.grid)
        size = spec.pixel_size if ground is None else ground.pixel_size
        metres = size.metres() if size is not None and size.is_sound else None
        self.differs = ground is not None and metres is not None
        """Whether pixels differ in area, so that counting them is not enough."""
        self.metres = metres
        """(y, x): the length of a pixel, on the ground at the mask's centre; None if unknown."""
        if metres is None:
            self.unit = AreaUnit("px2", "Mpx")
        elif max(metres) < 1e-3:  # as in summaries of runs: slides in mm2, scenes in km2
            self.unit = AreaUnit("um2", "mm2")
        else:
            self.unit = AreaUnit("m2", "ha" if max(metres) <= HECTARES_UP_TO else "km2")

    @property
    def usual(self) -> float:
        """The area of a pixel at the mask's centre, in the large unit."""
        if self.metres is None:
            return 1e-6
        return self.metres[0] * self.metres[1] / SQUARE_METRES[self.unit.large]

    def converted(self, unit: str) -> float:
        """How much of the large unit an area of 1 in a unit of the table is."""
        if unit == self.unit.small:
            return 1 / self.unit.smalls
        if unit == "px2":
            return self.usual
        if self.metres is None:
            raise ValueError(f"areas in {unit} need a mask whose pixel size is known")
        return SQUARE_METRES[unit] / SQUARE_METRES[self.unit.large]

    def of(self, window: Window, inside: Bools) -> float:
        """The area of some of the pixels of a window, in the large unit."""
        if not self.differs:
            return int(np.count_nonzero(inside)) * self.usual
        return float(self.summed(window, inside, np.zeros(1, np.intp)).sum())

    def summed(
        self, window: Window, inside: Bools, starts: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """The same in each row, of columns from one of ``starts`` to before the next; (H, n)."""
        if not self.differs:
            return np.add.reduceat(inside, starts, axis=1, dtype=np.int64) * self.usual
        assert self._spec.crs is not None, "by which areas were found to differ"
        assert self._spec.transform is not None
        assert self.metres is not None
        areas = PixelAreas(self._spec.crs, self._spec.transform, window, max(self.metres))
        sums = [
            np.add.reduceat(
                inside[row : row + STRIP_ROWS]
                * areas.rows(row, min(row + STRIP_ROWS, window.height)),
                starts,
                axis=1,
            )
            for row in range(0, window.height, STRIP_ROWS)
        ]
        return np.concatenate(sums) / SQUARE_METRES[self.unit.large]


def require_its_mask(mask: Mask, spec: MaskSpec) -> None:
    """Refuse a mask that is not the one of which a table has the description."""
    if mask.shape != (spec.height, spec.width):
        (height, width) = mask.shape
        raise InputError(
            f"{mask.path}: has {width} x {height} pixels, and the objects are those of a mask of "
            f"{spec.width} x {spec.height}; give that mask, or make the objects again"
        )


def answered(mask: Mask, window: Window) -> Bools:
    """Which pixels of a window have an answer, in any plane; shape (H, W)."""
    product = product_named(mask.kind)
    unanswered = product.unanswered(mask.read(window))
    return ~np.asarray(unanswered if product.flat else unanswered.all(0), np.bool_)


def answered_area(mask: Mask, spec: MaskSpec, inside: Inside | None = None) -> Area:
    """How much of a mask has an answer; or how much of a region of it, tissue for example.

    Parameters
    ----------
    mask : Mask
        Opened; its level 0 is read once, window by window.
    spec : MaskSpec
        Its description, as the table of its objects has it.
    inside : callable, optional
        Which pixels of a window are in the region (`tilepipe.regions.cells.Region.inside`).

    Raises
    ------
    InputError
        If it is not the mask described.
    """
    require_its_mask(mask, spec)
    return area_within(mask, PixelArea(spec), Window(0, 0, *mask.shape), inside)


def area_within(mask: Mask, of: PixelArea, window: Window, inside: Inside | None = None) -> Area:
    """The same of a window of the mask."""
    pixels, size = 0, 0.0
    for part in pieces(window, mask.planes):
        within = None if inside is None else inside(part)
        if within is not None and not within.any():
            continue
        found = answered(mask, part)
        if within is not None:
            found &= within
        pixels += int(np.count_nonzero(found))
        if of.differs and found.any():
            size += of.of(part, found)
    return Area(pixels, size if of.differs else pixels * of.usual)


def pieces(window: Window, planes: int) -> list[Window]:
    """Windows that cover one, cut where chunks of the mask end; smaller ones of many planes."""
    side = SIDE if planes == 1 else min(SIDE, CHUNK)
    whole = WindowGrid(Window(0, 0, window.stop_y, window.stop_x), (side, side))
    rows = range(window.y // side, -(-window.stop_y // side))
    columns = range(window.x // side, -(-window.stop_x // side))
    cut = (whole.window(row, column).intersect(window) for row in rows for column in columns)
    return [each for each in cut if each is not None]
