"""The range of values that viewers show: of measured values it depends on the mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.products.content import Content

_SHOWN = (1.0, 99.0)
"""Percentiles of the values that become black and bright."""


@dataclass(frozen=True, slots=True)
class ShownRange:
    """The values that a viewer shows as black and bright, and the least and largest ones."""

    low: float = 0.0
    high: float = 1.0
    least: float = 0.0
    most: float = 1.0

    @classmethod
    def of(cls, values: NDArray[Any]) -> ShownRange:
        """The range from the 1st to the 99th percentile of all values that are finite."""
        known = values[np.isfinite(values)].astype(np.float64)
        if known.size == 0:
            return cls()
        least, low, high, most = (
            float(each) for each in np.percentile(known, (0, *_SHOWN, 100), method="nearest")
        )
        if low == high:
            low, high = least, most
        if low == high:  # all is alike
            high = most = low + 1
        return cls(low, high, least, most)


def shown_ranges(content: Content) -> list[ShownRange]:
    """The range of each plane; that of measured values is taken from the smallest level.

    So it depends on the mask alone, and costs at most a few hundred pixels a side.
    """
    form = content.form
    measured = form.holds == "mask" and not form.spec.product.has_classes
    if not measured:
        return [ShownRange()] * len(form.planes)
    level = len(content.levels) - 1
    whole = Window(0, 0, *content.levels[level])
    planes = range(len(form.planes))
    return [ShownRange.of(content.read_plane(plane, whole, level)) for plane in planes]
