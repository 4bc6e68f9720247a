"""The size of a mask's pixels, for measuring objects in it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images.base import Transform
from tilepipe.images.ground import PixelAreas
from tilepipe.objects.areas import PixelArea
from tilepipe.objects.measuring import Layer, Scale
from tilepipe.products.base import MaskSpec

FRACTION = 2.0**-24
"""Areas of pixels on the ground are rounded to this share of a pixel of usual size."""


def scale_of(spec: MaskSpec) -> Scale:
    """The size of a mask's pixels: in micrometres on slides, in metres on the ground.

    In pixels where it is unknown. Where the CRS stretches areas, each pixel has its own.
    """
    area = PixelArea(spec)
    if area.metres is None:
        return Scale()
    unit, factor = ("um", 1e6) if area.unit.small == "um2" else ("m", 1.0)
    y, x = (float(f"{side * factor:.12g}") for side in area.metres)
    if not area.differs:
        return Scale(y, x, unit)
    ground = _Ground(spec.crs, spec.transform, spec.height, spec.width, max(area.metres))
    squared = factor * factor
    layer = Layer("ground", ground, y * x / squared * FRACTION, squared, unit=f"{unit}2")
    return Scale(y, x, unit, layer)


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
