"""Probabilities of the classes, beside a mask of labels or planes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.products.base import NO_ANSWER
from tilepipe.products.product import Product
from tilepipe.products.reduction import mean, rounded_mean

if TYPE_CHECKING:
    from tilepipe._torch import Tensor
    from tilepipe.models.specs import OutputSpec

UINT8_TOP = NO_ANSWER - 1
"""The uint8 value of a probability of 1."""


class Probabilities(Product):
    """A plane of probabilities for each class.

    Parameters
    ----------
    variant
        ``float16`` or ``float32``: unscaled, NaN for no answer. ``uint8``: times 254 and rounded,
        255 for no answer.
    """

    name = "probabilities"

    def __init__(self, variant: str = "float16") -> None:
        if variant not in ("float16", "float32", "uint8"):
            raise ValueError(f"probabilities are stored as float16 or uint8, not {variant}")
        self.dtype = np.dtype(variant)
        self._is_rounded = variant == "uint8"
        self.fill = NO_ANSWER if self._is_rounded else float("nan")
        self.top = float(UINT8_TOP) if self._is_rounded else 1.0

    @property
    def key(self) -> str:
        """The name and dtype."""
        return f"{self.name}:{self.dtype}"

    @property
    def attributes(self) -> dict[str, Any]:
        """The scale and the value of no answer, for readers."""
        no_answer = NO_ANSWER if self._is_rounded else "NaN"
        return {"probability": {"scale": 1 / self.top, "no_answer": no_answer}}

    def working_bytes(self, output: OutputSpec) -> int:
        """The bytes of a pixel, as float32 and in the stored form."""
        return 6 * len(output.classes)

    def unavailable(self, output: OutputSpec) -> str | None:
        """Why a model with this output has no probabilities, or None if it has."""
        return "it gives values" if output.activation == "linear" else None

    def encode(self, logits: Tensor, output: OutputSpec) -> Tensor:
        """The softmax or sigmoid, float32, (N, classes, H, W)."""
        from tilepipe._torch import torch

        if output.activation == "sigmoid":
            found = torch.sigmoid(logits.float())
            # A single sigmoid distinguishes two classes.
            return torch.cat((1 - found, found), 1) if found.shape[1] == 1 else found
        return torch.softmax(logits.float(), dim=1)

    def stored(self, encoded: NDArray[Any]) -> NDArray[Any]:
        """Probabilities, 0 .. 1 or NaN, in their stored form."""
        if not self._is_rounded:
            return encoded.astype(self.dtype)
        missing = np.isnan(encoded)
        known = np.where(missing, np.float32(0), np.clip(encoded, 0, 1)) * np.float32(UINT8_TOP)
        return np.where(missing, np.uint8(NO_ANSWER), np.rint(known).astype(np.uint8))

    def decoded(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Stored probabilities as float32, NaN for no answer."""
        if not self._is_rounded:
            return stored.astype(np.float32)
        scaled = stored.astype(np.float32) / np.float32(UINT8_TOP)
        return np.where(stored == NO_ANSWER, np.float32(np.nan), scaled)

    def reduce(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The mean of each 2 x 2 pixels, without those that have no answer."""
        return rounded_mean(stored, NO_ANSWER) if self._is_rounded else mean(stored)

    def sums(
        self, stored: NDArray[Any], classes: int, weights: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        """The expected number of pixels of each class: the (weighted) sum of its probabilities."""
        found = np.nan_to_num(self.decoded(stored).astype(np.float64))
        return np.asarray((found if weights is None else found * weights).sum(axis=(1, 2)))

    def deviation(
        self, stored: NDArray[Any], logits: NDArray[np.float64], output: OutputSpec
    ) -> NDArray[np.float64]:
        """The absolute difference of each probability."""
        if output.activation == "sigmoid":
            wanted = 1 / (1 + np.exp(-logits))
            wanted = np.concatenate((1 - wanted, wanted)) if len(wanted) == 1 else wanted
        else:
            wanted = np.exp(logits - logits.max(0))
            wanted = wanted / wanted.sum(0)
        return np.asarray(np.abs(wanted - self.decoded(stored)))

    def tolerance(self, tie_bound: float, span: float) -> float | None:
        """The rounding of the stored form plus the possible difference of two passes."""
        # A softmax has a slope of at most 1/4 for each of two logits.
        return (0.51 / UINT8_TOP if self._is_rounded else 2**-11) + tie_bound * span
