"""The range of values that a viewer shows from black to bright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

    @property
    def ngff(self) -> dict[str, float]:
        """The range as the ``window`` of a channel (OME-NGFF, ``omero``)."""
        return {"min": self.least, "max": self.most, "start": self.low, "end": self.high}
