"""The size of a mask's pixels, for measuring objects in it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images.base import Transform
from tilepipe.images.ground import PixelAreas
from tilepipe.objects.measuring import Layer, Scale
from tilepipe.products.base import MaskSpec

LARGEST_MICROSCOPIC = 1e-4
"""Pixels without a place on a map up to this many metres a side are measured in micrometres."""

FRACTION = 2.0**-24
"""Areas of pixels on the ground are rounded to this share of a pixel of usual size."""


def scale_of(spec: MaskSpec, *, distorted: bool = False) -> Scale:
    """The size of a mask's pixels; in pixels where it is unknown.

    Parameters
    ----------
    spec : MaskSpec
        Of the mask, with its true pixel size.
    distorted : bool
        Whether its CRS stretches areas, so that each pixel has its own (`ground_of` tells).
    """
    size = spec.pixel_size
    metres = None if size is None or not size.is_sound else size.metres()
    if metres is None:
        return Scale()
    y, x = metres
    if spec.crs is None and max(y, x) <= LARGEST_MICROSCOPIC:
        return Scale(y * 1e6, x * 1e6, "um")
    if not distorted or spec.crs is None or spec.transform is None:
        return Scale(y, x, "m")
    ground = _Ground(spec.crs, spec.transform, spec.height, spec.width, max(y, x))
    return Scale(y, x, "m", Layer("ground", ground, y * x * FRACTION, unit="m2"))


class _Ground:
    """Reads the areas of pixels; travels to other processes without them."""

    def __init__(self, *place: Any) -> None:
        self._place = place

    def __call__(self, window: Window, labels: NDArray[Any]) -> NDArray[Any]:
        return _areas(*self._place).read(window)


@lru_cache(maxsize=4)
def _areas(crs: str, transform: Transform, height: int, width: int, metres: float) -> PixelAreas:
    # Of the whole mask at once, so that they do not depend on the window.
    return PixelAreas(crs, transform, Window(0, 0, height, width), metres)
