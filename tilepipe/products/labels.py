"""Labels in one plane, or a plane of 0 and 1 for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.products.base import NO_ANSWER
from tilepipe.products.product import Product
from tilepipe.products.reduction import mode

if TYPE_CHECKING:
    from tilepipe._torch import Tensor
    from tilepipe.models.specs import OutputSpec


FEW_CLASSES = 20
"""Up to which counting each alone is faster than all at once."""


class _Voted(Product):
    """Values of uint8, of which coarser levels hold the most frequent."""

    is_main = True
    averaged = False
    dtype = np.dtype("uint8")
    fill = NO_ANSWER

    def reduce(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The most frequent value of each 2 x 2 pixels; the lower one in a tie."""
        return mode(stored, NO_ANSWER)


class Labels(_Voted):
    """One plane of uint8: the label of the class with the largest logit.

    A single sigmoid output makes two classes, 0 below its threshold and 1 above it.
    """

    name = "labels"
    flat = True

    def unavailable(self, output: OutputSpec) -> str | None:
        """Why a model with this output has no labels, or None if it has."""
        several = output.activation == "sigmoid" and len(output.thresholds) > 1
        if several or output.activation == "linear":
            return "its classes do not exclude each other"
        return None

    def working_bytes(self, output: OutputSpec) -> int:
        """The bytes of a pixel, which is stored as it is encoded."""
        return self.planes(len(output.classes))

    def encode(self, logits: Tensor, output: OutputSpec) -> Tensor:
        """The class of the largest logit, the lower one in a tie: (N, H, W) uint8."""
        from tilepipe._torch import torch

        labels: Tensor = _labels(logits, output, torch)
        return labels

    def encode_array(self, logits: NDArray[np.float32], output: OutputSpec) -> NDArray[Any]:
        """`encode` of a numpy array."""
        return np.asarray(_labels(logits, output, np))

    def sums(
        self, stored: NDArray[Any], classes: int, weights: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        """The number of pixels of each class, or the sums of their weights."""
        if weights is None and classes <= FEW_CLASSES:
            return np.array([np.count_nonzero(stored == label) for label in range(classes)])
        flat = None if weights is None else weights.ravel()
        return np.bincount(stored.ravel(), flat, minlength=NO_ANSWER + 1)[:classes]

    def deviation(
        self, stored: NDArray[Any], logits: NDArray[np.float64], output: OutputSpec
    ) -> NDArray[np.float64]:
        """How far the logit of each stored label is below the largest one, shape (1, H, W)."""
        if output.activation == "sigmoid":
            return _beyond_threshold(stored[None], logits, output)
        known = np.minimum(stored, len(logits) - 1).astype(np.intp)
        mine = np.take_along_axis(logits, known[None], 0)
        gap = logits.max(0)[None] - mine
        return np.asarray(np.where(stored[None] < len(logits), gap, np.inf))  # not a class


class Planes(_Voted):
    """A plane of 0 and 1 for each class, uint8, for classes that do not exclude each other."""

    name = "planes"

    def unavailable(self, output: OutputSpec) -> str | None:
        """Why a model with this output has no planes, or None if it has."""
        if output.activation == "sigmoid" and len(output.thresholds) > 1:
            return None
        return "its classes exclude each other"

    def working_bytes(self, output: OutputSpec) -> int:
        """The bytes of a pixel, which is stored as it is encoded."""
        return self.planes(len(output.classes))

    def encode(self, logits: Tensor, output: OutputSpec) -> Tensor:
        """1 where a class is above its threshold: (N, C, H, W) uint8."""
        from tilepipe._torch import torch

        planes: Tensor = _planes(logits, output, torch)
        return planes

    def encode_array(self, logits: NDArray[np.float32], output: OutputSpec) -> NDArray[Any]:
        """`encode` of a numpy array."""
        return np.asarray(_planes(logits, output, np))

    def sums(
        self, stored: NDArray[Any], classes: int, weights: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        """The number of pixels of each plane that are 1, or the sums of their weights."""
        inside = stored == 1
        return np.asarray((inside if weights is None else inside * weights).sum(axis=(1, 2)))

    def deviation(
        self, stored: NDArray[Any], logits: NDArray[np.float64], output: OutputSpec
    ) -> NDArray[np.float64]:
        """How far each logit is beyond the threshold that its stored value contradicts."""
        return _beyond_threshold(stored, logits, output)


def _labels(logits: Any, output: OutputSpec, library: Any) -> Any:
    """The labels of logits; both are of that library, torch or numpy."""
    if output.activation == "sigmoid":
        return (logits[:, 0] > _levels(output)[0]).view(library.uint8)
    if logits.shape[1] == 2:
        return (logits[:, 1] > logits[:, 0]).view(library.uint8)
    best = logits[:, 0]
    labels = library.zeros_like(best, dtype=library.uint8)
    for label in range(1, logits.shape[1]):
        higher = logits[:, label] > best
        if library is np:
            labels[higher] = label
        else:
            labels.masked_fill_(higher, label)  # which a CUDA graph can hold
        if label + 1 < logits.shape[1]:
            best = library.where(higher, logits[:, label], best)
    return labels


def _planes(logits: Any, output: OutputSpec, library: Any) -> Any:
    """The planes of logits; both are of that library, torch or numpy."""
    above = [logits[:, i] > level for i, level in enumerate(_levels(output))]
    return library.stack(above, 1).view(library.uint8)


def _levels(output: OutputSpec) -> list[float]:
    """Thresholds on logits; the sigmoid is monotone, so it need not be computed."""
    return [float(np.log(t / (1 - t))) for t in output.thresholds]


def _beyond_threshold(
    stored: NDArray[Any], logits: NDArray[np.float64], output: OutputSpec
) -> NDArray[np.float64]:
    levels = np.asarray(_levels(output))[: len(logits), None, None]
    above = logits - levels
    return np.asarray(np.where((above > 0) == (stored == 1), 0.0, np.abs(above) + 1e-300))
