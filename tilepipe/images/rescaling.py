"""A fixed linear map of an image's values onto those of a type: 16 bits to 8, say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.images.reading import Reading

SLAB_VALUES = 1 << 20
"""Values that are worked on at a time, as float64."""


@dataclass(frozen=True)
class Rescaling:
    """``low`` and ``high`` become the lowest and the highest value of an integer ``dtype``.

    What lies outside is clipped; numbers are rounded to the nearest, halves to the even one. To
    floating-point types, ``low`` becomes 0 and ``high`` 1, and nothing is clipped. All is computed
    in float64.
    """

    low: float
    high: float
    dtype: np.dtype[Any]
    _tables: dict[np.dtype[Any], NDArray[Any]] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, reading: Reading) -> Rescaling | None:
        """The rescaling that a reading asks for, if it does.

        Raises
        ------
        InputError
            Where it does not say which type the values are mapped to.
        """
        if reading.rescale is None:
            return None
        if reading.dtype is None:
            raise InputError(
                "rescale: name the type to map to as well, for example "
                'Reading(rescale=(0, 4000), dtype="uint8")'
            )
        low, high = reading.rescale
        return cls(low, high, np.dtype(reading.dtype))

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The pixels, rescaled; NaN, which is never data, becomes the lowest integer."""
        if pixels.dtype.kind in "ui" and pixels.dtype.itemsize <= 2:
            table = self._tables.get(pixels.dtype)
            if table is None:
                limits = np.iinfo(pixels.dtype)
                # Indexed by the bits of a value: negative ones come after the positive.
                values = np.arange(limits.max - limits.min + 1).astype(pixels.dtype)
                table = self._tables[pixels.dtype] = self._mapped(values)
            return np.asarray(table[pixels.view(f"u{pixels.dtype.itemsize}")])
        result = np.empty(pixels.shape, self.dtype)
        rows = max(1, SLAB_VALUES // max(1, pixels[:1].size))
        for row in range(0, len(pixels), rows):
            result[row : row + rows] = self._mapped(pixels[row : row + rows])
        return result

    def _mapped(self, values: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore", invalid="ignore"):
            share = (values.astype(np.float64) - self.low) / (self.high - self.low)
            if self.dtype.kind == "f":
                return share.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        share = np.nan_to_num(share.clip(0, 1), nan=0.0)
        values = np.rint(share * (float(limits.max) - limits.min) + limits.min)
        return np.asarray(values.astype(self.dtype))
