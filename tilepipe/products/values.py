"""Values: the unchanged outputs of a linear network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.products.product import Product
from tilepipe.products.reduction import mean

if TYPE_CHECKING:
    from tilepipe._torch import Tensor
    from tilepipe.models.specs import OutputSpec


class Values(Product):
    """A float32 plane for each quantity of a linear network; NaN where there is no answer."""

    name = "values"
    is_main = True
    has_classes = False
    dtype = np.dtype("float32")
    fill = float("nan")

    def unavailable(self, output: OutputSpec) -> str | None:
        """Why a model with this output has no values, or None if it has."""
        return None if output.activation == "linear" else "it gives classes"

    def working_bytes(self, output: OutputSpec) -> int:
        """The bytes of a pixel, which is stored as it is encoded."""
        return 4 * len(output.classes)

    def encode(self, logits: Tensor, output: OutputSpec) -> Tensor:
        """The outputs as float32, (N, C, H, W)."""
        return logits.float()

    def encode_array(self, logits: NDArray[np.float32], output: OutputSpec) -> NDArray[Any]:
        """`encode` of a numpy array."""
        return logits.astype(np.float32, copy=False)

    def reduce(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The mean of each 2 x 2 pixels without NaN."""
        return mean(stored)

    def sums(
        self, stored: NDArray[Any], classes: int, weights: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        """The number of pixels of each plane with an answer, or the sums of their weights."""
        known = ~np.isnan(stored)
        return np.asarray((known if weights is None else known * weights).sum(axis=(1, 2)))

    def deviation(
        self, stored: NDArray[Any], logits: NDArray[np.float64], output: OutputSpec
    ) -> NDArray[np.float64]:
        """The absolute difference as a share of the range of the network's outputs."""
        return np.asarray(np.abs(logits - stored) / (float(np.ptp(logits)) or 1.0))

    def tolerance(self, tie_bound: float, span: float) -> float | None:
        """The possible difference of two passes, or the rounding to float32."""
        return max(tie_bound, 1e-6)
