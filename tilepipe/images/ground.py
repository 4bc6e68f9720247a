"""The true size of pixels on the Earth, where the lengths of a CRS are distorted.

Web Mercator stretches both axes by two at 60 degrees north, and degrees are no lengths at all.
Distances and areas are taken on the ellipsoid of the CRS (with pyproj), which may be the Moon's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images.base import UNITS_IN_METRES, Image, PixelSize, RasterGrid, Transform

if TYPE_CHECKING:
    from pyproj import Geod, Transformer

    Earth = tuple[Transformer, Geod]
    """From a CRS to longitude and latitude, and its ellipsoid."""

Floats = NDArray[np.float64]

TOLERANCE = 0.01
"""Lengths of a CRS no further from those on the ground than this share are taken as they are."""

PROBES = 9
"""Places down and across an image at which its CRS is judged."""

LEAST_STEP = 100.0
"""Metres over which a pixel is measured, so that rounding of degrees does not count."""

NODES_APART = 50_000.0
"""Metres at most between places at which areas are computed; those between are interpolated."""

LARGEST_NODE = 256
"""Most pixels between places at which areas are computed."""


@dataclass(frozen=True, slots=True)
class Ground:
    """The true size of an image's pixels."""

    pixel_size: PixelSize
    """Of level 0, at the image's centre: in the unit of the CRS, or in metres for degrees."""
    crs_pixel_size: PixelSize
    """Pixel size according to the CRS."""
    spread: float
    """How many times as long, or as short, a pixel's side is elsewhere in the image: at least 1."""


def ground_of(image: Image) -> Ground | None:
    """Measure the true size of an image's pixels; None where the CRS is right, or unknown.

    True is what differs by no more than `TOLERANCE` on either axis, all over the image.
    """
    return ground_of_grid(image.grid)


@lru_cache(maxsize=64)
def ground_of_grid(grid: RasterGrid) -> Ground | None:
    """Measure the true size of a grid's pixels; see `ground_of`."""
    said = grid.pixel_size
    if grid.crs is None or grid.transform is None or said is None or not said.is_sound:
        return None
    earth = _earth(grid.crs)
    if earth is None:
        return None
    rows, columns = (np.linspace(0, side, PROBES) for side in grid.shape)
    down, across, areas = _measured(earth, grid.transform, rows[:, None], columns[None, :])
    middle = PROBES // 2
    centre = down[middle, middle], across[middle, middle]
    if not np.isfinite(centre).all():
        return None
    nominal = said.metres()
    if nominal is not None:
        off = np.abs([down / nominal[0] - 1, across / nominal[1] - 1])
        if np.nanmax(off) <= TOLERANCE:
            return None
    unit = "meter" if nominal is None else said.unit
    factor = UNITS_IN_METRES[unit]
    sides = np.sqrt(areas / areas[middle, middle])
    spread = float(max(np.nanmax(sides), 1 / max(np.nanmin(sides), 1e-9)))
    size = PixelSize(float(centre[0]) / factor, float(centre[1]) / factor, unit)
    return Ground(size, said, spread)


class PixelAreas:
    """Square metres on the ground of the pixels of a window of a grid.

    Parameters
    ----------
    crs, transform
        Of the grid.
    window
        In it.
    metres
        About the length of a pixel's longer side.
    """

    def __init__(self, crs: str, transform: Transform, window: Window, metres: float) -> None:
        self._window = window
        self._node = node = int(min(max(NODES_APART / metres, 1), LARGEST_NODE))
        self._first = window.y // node, window.x // node
        last = -(-window.stop_y // node) + 1, -(-window.stop_x // node) + 1
        rows, columns = (
            np.arange(first, stop, dtype=np.float64) * node + 0.5
            for first, stop in zip(self._first, last, strict=True)
        )
        earth = _earth(crs)
        assert earth is not None, "asked only where the CRS was understood"
        areas = _measured(earth, transform, rows[:, None], columns[None, :])[2]
        # Beyond the ends of the Earth there is no area.
        self._nodes = np.nan_to_num(areas, posinf=0.0)

    def rows(self, start: int, stop: int) -> Floats:
        """Of some rows of the window, counted from its first: (stop - start, width)."""
        whole = self._window
        return self.read(Window(whole.y + start, whole.x, stop - start, whole.width))

    def read(self, window: Window) -> Floats:
        """Of a window of the grid that lies in the first one: (H, W)."""
        rows, columns = np.arange(window.y, window.stop_y), np.arange(window.x, window.stop_x)
        down = self._between(self._nodes, rows, self._first[0])
        return self._between(down.T, columns, self._first[1]).T

    def _between(self, nodes: Floats, places: NDArray[np.intp], first: int) -> Floats:
        """Values at pixels of the first axis, from those at the nodes."""
        number, beyond = np.divmod(places, self._node)
        share = (beyond / self._node)[:, None]
        number -= first
        return np.asarray(nodes[number] * (1 - share) + nodes[number + 1] * share)


def _measured(
    earth: Earth, transform: Transform, rows: Floats, columns: Floats
) -> tuple[Floats, Floats, Floats]:
    """Of pixels centred on places (that broadcast): metres down, metres across, square metres.

    Not finite off the map.
    """
    transformer, geod = earth
    a, b, c, d, e, f = transform
    rows, columns = np.broadcast_arrays(rows, columns)

    def geographic(down: float, across: float) -> tuple[Any, Any]:
        y, x = rows + down, columns + across
        return transformer.transform(a * x + b * y + c, d * x + e * y + f)

    def length(down: float, across: float) -> Floats:
        """Metres of a step about the places."""
        start, end = (geographic(s * down / 2, s * across / 2) for s in (-1, 1))
        return np.asarray(geod.inv(*start, *end)[2], np.float64)

    with np.errstate(invalid="ignore", over="ignore"):
        return _sides_and_area(length)


def _sides_and_area(length: Callable[[float, float], Floats]) -> tuple[Floats, Floats, Floats]:
    """As `_measured`, of a function that gives the metres of a step of pixels, down and across."""
    step = 1.0
    seen = length(step, 0)
    usual = float(np.median(seen[np.isfinite(seen)])) if np.isfinite(seen).any() else LEAST_STEP
    if usual < LEAST_STEP:
        step = LEAST_STEP / max(usual, 1e-6)
        seen = length(step, 0)
    down, across = seen / step, length(0, step) / step
    # By the diagonals, as azimuths mean nothing at the poles.
    product = (length(step, step) ** 2 - length(step, -step) ** 2) / (2 * step) ** 2
    return down, across, np.sqrt(np.maximum(0, (down * across) ** 2 - product**2))


@lru_cache(maxsize=64)
def _earth(crs: str) -> Earth | None:
    """From a CRS to longitude and latitude, and its ellipsoid; None where it has neither."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    try:
        known = CRS.from_wkt(crs)
        geographic, geod = known.geodetic_crs, known.get_geod()
        if geographic is None or geod is None:
            return None
        return Transformer.from_crs(known, geographic, always_xy=True), geod
    except ProjError:
        return None


def true_pixel_size(image: Image) -> PixelSize | None:
    """Return the pixel size of level 0: on the ground where the CRS distorts it, or the file's."""
    ground = ground_of(image)
    return image.pixel_size if ground is None else ground.pixel_size


def crs_name(crs: str) -> str:
    """Return the printable name of a CRS from its WKT."""
    parts = crs.split('"')
    name = parts[1] if len(parts) > 1 else crs
    return "".join(c if c.isprintable() else "\ufffd" for c in name)
