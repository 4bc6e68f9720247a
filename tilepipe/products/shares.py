"""How a share, 0 .. 1, is stored in a pixel: as a float, or rounded to a byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.products.reduction import mean, rounded_mean

STEPS = 254
"""The distance of the bytes of 0 and 1; the one value that is left stands for no answer."""


@dataclass(frozen=True, slots=True)
class ShareForm:
    """The form of shares on disk.

    Floats are unscaled, NaN for no answer. In bytes, 0 stands for no answer and 1 .. 255 for the
    shares 0 .. 1, so that viewers which know nothing of it show no answer as black, not as certain.
    """

    dtype: np.dtype[Any]
    zero: int = 0
    """The byte of a share of 0; other bytes follow in steps of 1 / 254."""
    fill: float = float("nan")
    """The value of no answer."""

    @classmethod
    def named(cls, variant: str) -> ShareForm | None:
        """The form of a variant, None if there is none.

        ``float16`` or ``float32``; ``uint8-from-1`` (see the class); ``uint8`` for the bytes of
        masks from before there was ``uint8-from-1``: 0 .. 254, and 255 for no answer.
        """
        if variant in ("float16", "float32"):
            return cls(np.dtype(variant))
        bytes_of = {"uint8-from-1": (1, 0), "uint8": (0, STEPS + 1)}
        return cls(np.dtype("uint8"), *bytes_of[variant]) if variant in bytes_of else None

    @property
    def is_rounded(self) -> bool:
        """Whether shares are bytes."""
        return self.dtype.kind == "u"

    @property
    def top(self) -> float:
        """The stored value of a share of 1."""
        return float(self.zero + STEPS) if self.is_rounded else 1.0

    @property
    def scale(self) -> float:
        """The share of a step of one in the stored value."""
        return 1 / STEPS if self.is_rounded else 1.0

    @property
    def offset(self) -> float:
        """The share that a stored 0 would be."""
        return -self.zero / STEPS if self.is_rounded else 0.0

    @property
    def rounding(self) -> float:
        """The largest difference of a share and its stored form."""
        if self.dtype == np.float16:
            return 2.0**-11
        return 0.51 / STEPS if self.is_rounded else 2.0**-24

    @property
    def attributes(self) -> dict[str, Any]:
        """Scale, offset and the value of no answer, as JSON-ready values."""
        found: dict[str, Any] = {"scale": self.scale}
        if self.offset:
            found["offset"] = self.offset
        return {**found, "no_answer": int(self.fill) if self.is_rounded else "NaN"}

    def stored(self, shares: NDArray[Any]) -> NDArray[Any]:
        """Shares, 0 .. 1 or NaN, in their stored form."""
        if not self.is_rounded:
            return shares.astype(self.dtype)
        missing = np.isnan(shares)
        known = np.where(missing, np.float32(0), np.clip(shares, 0, 1)) * np.float32(STEPS)
        rounded = np.rint(known).astype(np.uint8) + np.uint8(self.zero)
        return np.where(missing, np.uint8(self.fill), rounded)

    def decoded(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Stored shares as float32, NaN for no answer."""
        if not self.is_rounded:
            return stored.astype(np.float32)
        scaled = (stored.astype(np.float32) - np.float32(self.zero)) / np.float32(STEPS)
        return np.where(stored == self.fill, np.float32(np.nan), scaled)

    def reduce(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The mean of each 2 x 2 stored pixels, without those that have no answer."""
        return rounded_mean(stored, int(self.fill)) if self.is_rounded else mean(stored)
