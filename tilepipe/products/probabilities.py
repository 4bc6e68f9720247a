"""Probabilities of the classes, and how undecided the network is, beside a mask."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.products.product import Product
from tilepipe.products.shares import ShareForm

if TYPE_CHECKING:
    from tilepipe._torch import Tensor
    from tilepipe.models.specs import OutputSpec


class _Shares(Product):
    """Planes of shares, 0 .. 1.

    Parameters
    ----------
    variant
        ``float16`` or ``float32``: unscaled, NaN for no answer. ``uint8-from-1``: 1 + 254 times the
        share, rounded, and 0 for no answer.
    """

    def __init__(self, variant: str = "float16") -> None:
        form = ShareForm.named(variant)
        if form is None:
            raise ValueError(f"{self.name} is stored as float16 or uint8, not {variant}")
        self._variant, self.form = variant, form
        self.dtype, self.fill, self.top = form.dtype, form.fill, form.top

    @property
    def key(self) -> str:
        """The name and the variant."""
        return f"{self.name}:{self._variant}"

    @property
    def key_for_new(self) -> str:
        """The key under which new masks have the product: bytes start from 1."""
        return f"{self.name}:uint8-from-1" if self.form.is_rounded else self.key

    def unavailable(self, output: OutputSpec) -> str | None:
        """Why a model with this output has no such shares, or None if it has."""
        return "it gives values" if output.activation == "linear" else None

    @abstractmethod
    def exact(self, logits: NDArray[np.float64], output: OutputSpec) -> NDArray[np.float64]:
        """The shares of logits (outputs, H, W), as `encode` computes them: (C, H, W)."""

    def stored(self, encoded: NDArray[Any]) -> NDArray[Any]:
        """Shares, 0 .. 1 or NaN, in their stored form."""
        return self.form.stored(encoded)

    def decoded(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Stored shares as float32, NaN for no answer."""
        return self.form.decoded(stored)

    def reduce(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The mean of each 2 x 2 pixels, without those that have no answer."""
        return self.form.reduce(stored)

    def sums(
        self, stored: NDArray[Any], classes: int, weights: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        """The expected number of pixels of each class: the (weighted) sum of its shares."""
        found = np.nan_to_num(self.decoded(stored).astype(np.float64))
        summed = np.asarray((found if weights is None else found * weights).sum(axis=(-2, -1)))
        return np.full(classes, summed) if self.flat else summed

    def deviation(
        self, stored: NDArray[Any], logits: NDArray[np.float64], output: OutputSpec
    ) -> NDArray[np.float64]:
        """The absolute difference of each share."""
        return np.asarray(np.abs(self.exact(logits, output) - self.decoded(stored)))


class Probabilities(_Shares):
    """A plane of probabilities for each class."""

    name = "probabilities"

    @property
    def attributes(self) -> dict[str, Any]:
        """The scale and the value of no answer, for readers."""
        return {"probability": self.form.attributes}

    def working_bytes(self, output: OutputSpec) -> int:
        """The bytes of a pixel, as float32 and in the stored form."""
        return 6 * len(output.classes)

    def encode(self, logits: Tensor, output: OutputSpec) -> Tensor:
        """The softmax or sigmoid, float32, (N, classes, H, W)."""
        return _probabilities(logits, output)

    def exact(self, logits: NDArray[np.float64], output: OutputSpec) -> NDArray[np.float64]:
        """The softmax or sigmoid of logits (outputs, H, W)."""
        return _exact_probabilities(logits, output)

    def tolerance(self, tie_bound: float, span: float) -> float | None:
        """The rounding of the stored form plus the possible difference of two passes."""
        # A softmax has a slope of at most 1/4 for each of two logits.
        return self.form.rounding + tie_bound * span


class Entropy(_Shares):
    """How undecided the network is, in one plane: 0 where it is certain, 1 where all is alike.

    It is the entropy of the probabilities divided by its largest value, the logarithm of the number
    of classes. Where classes do not exclude each other, each has an entropy of its own, of being
    there or not, and the largest one counts.
    """

    name = "entropy"
    flat = True

    @property
    def attributes(self) -> dict[str, Any]:
        """The scale and the value of no answer, for readers."""
        return {"entropy": self.form.attributes}

    def working_bytes(self, output: OutputSpec) -> int:
        """The bytes of a pixel: the probabilities while they are computed, and the stored form."""
        return 8 * len(output.classes) + 6

    def encode(self, logits: Tensor, output: OutputSpec) -> Tensor:
        """The normalised entropy, float32, (N, H, W)."""
        from tilepipe._torch import torch

        shares = _probabilities(logits, output)
        parts: Tensor = torch.special.entr(shares)
        if _excludes(output):
            return parts.sum(dim=1) / float(np.log(max(2, shares.shape[1])))
        both: Tensor = parts + torch.special.entr(1 - shares)
        return both.amax(dim=1) / float(np.log(2))

    def exact(self, logits: NDArray[np.float64], output: OutputSpec) -> NDArray[np.float64]:
        """The normalised entropy of logits (outputs, H, W), shape (1, H, W)."""
        from scipy.special import entr

        shares = _exact_probabilities(logits, output)
        if _excludes(output):
            return np.asarray(entr(shares).sum(0, keepdims=True) / np.log(max(2, len(shares))))
        both = entr(shares) + entr(1 - shares)
        return np.asarray(both.max(0, keepdims=True) / np.log(2))

    def tolerance(self, tie_bound: float, span: float) -> float | None:
        """The rounding of the stored form plus the possible difference of two passes."""
        # Moving each logit by up to e moves the entropy by less than 0.7 e (for two classes 0.22),
        # before it is divided by at least log 2. The rest is the rounding of float32 near 0 and 1.
        return self.form.rounding + tie_bound * span + 1e-5


def _excludes(output: OutputSpec) -> bool:
    """Whether probabilities of a pixel sum to 1."""
    return output.activation == "softmax" or len(output.thresholds) == 1


def _probabilities(logits: Tensor, output: OutputSpec) -> Tensor:
    """The softmax or sigmoid, float32, (N, classes, H, W)."""
    from tilepipe._torch import torch

    if output.activation == "sigmoid":
        found = torch.sigmoid(logits.float())
        # A single sigmoid distinguishes two classes.
        return torch.cat((1 - found, found), 1) if found.shape[1] == 1 else found
    return torch.softmax(logits.float(), dim=1)


def _exact_probabilities(logits: NDArray[np.float64], output: OutputSpec) -> NDArray[np.float64]:
    """The softmax or sigmoid of logits (outputs, H, W), shape (classes, H, W)."""
    if output.activation == "sigmoid":
        found = 1 / (1 + np.exp(-logits))
        return np.concatenate((1 - found, found)) if len(found) == 1 else found
    shares = np.exp(logits - logits.max(0))
    return np.asarray(shares / shares.sum(0))
