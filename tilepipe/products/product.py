"""What a run can make of a network's logits: the idea, and the products that there are.

A run makes one main product (labels, planes or values, whatever the model's output is) and any
number of others beside it, such as probabilities. Whoever needs to know how a product is encoded,
stored, reduced, counted or compared asks the product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tilepipe._torch import Tensor
    from tilepipe.models.specs import OutputSpec

ENTRY_POINTS = "tilepipe.products"
"""Entry points of other packages, each a `Product` class, under the product's name."""


class Product(ABC):
    """One thing that a run makes of logits, and how it lives on disk.

    Arrays of a block or window have the shape (H, W) where the product is `flat`, and otherwise
    (C, H, W), a plane for each class.
    """

    name: ClassVar[str]
    flat: ClassVar[bool] = False
    """Whether it is a single plane."""
    is_main: ClassVar[bool] = False
    """Whether it can be the mask itself, and not only lie beside one."""
    averaged: ClassVar[bool] = True
    """Whether coarser levels hold means; otherwise they hold the most frequent values."""
    dtype: np.dtype[Any]
    """Of a stored pixel."""
    fill: float
    """What a pixel without an answer holds, and so what an unwritten chunk reads as."""
    top: float = 1.0
    """The stored value that viewers show at full intensity."""

    @property
    def key(self) -> str:
        """Name and variant, from which `product_named` gives an equal product."""
        return self.name

    @property
    def attributes(self) -> dict[str, Any]:
        """What readers of the stored array must know beside its dtype, JSON-ready."""
        return {}

    def planes(self, classes: int) -> int:
        """Number of planes for so many classes."""
        return 1 if self.flat else classes

    def shape(self, classes: int, size: tuple[int, int]) -> tuple[int, ...]:
        """The shape of an array of (height, width) pixels."""
        return size if self.flat else (classes, *size)

    def nothing(self, classes: int, size: tuple[int, int]) -> NDArray[Any]:
        """An array of (height, width) pixels without an answer."""
        return np.full(self.shape(classes, size), self.fill, self.dtype)

    def working_bytes(self, output: OutputSpec) -> int:
        """Bytes of a pixel, all planes together, while it is made."""
        return self.planes(len(output.classes)) * self.dtype.itemsize

    def unavailable(self, output: OutputSpec) -> str | None:
        """Why a model with this output does not give the product, or None where it does."""
        return None

    @abstractmethod
    def encode(self, logits: Tensor, output: OutputSpec) -> Tensor:
        """The product of logits (N, outputs, H, W), on their device: (N, H, W) or (N, C, H, W).

        Runs on the GPU where there is one, and may be captured in a CUDA graph: no branch may
        depend on values.
        """

    def stored(self, encoded: NDArray[Any]) -> NDArray[Any]:
        """What `encode` gave, as `dtype` and in the form in which it is stored."""
        return encoded

    def unanswered(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        """Which stored pixels hold no answer, of the array's own shape."""
        return np.isnan(stored) if np.isnan(self.fill) else np.asarray(stored == self.fill)

    @abstractmethod
    def reduce(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Each 2 x 2 stored pixels as one; odd sides are padded with pixels without an answer."""

    @abstractmethod
    def sums(
        self, stored: NDArray[Any], classes: int, weights: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        """Pixels of each class (of values: pixels of each plane with an answer), or their weights.

        Parameters
        ----------
        stored
            Stored pixels.
        classes
            How many classes there are.
        weights
            Of each pixel, shape (H, W); counted as 1 by default.
        """

    @abstractmethod
    def deviation(
        self, stored: NDArray[Any], logits: NDArray[np.float64], output: OutputSpec
    ) -> NDArray[np.float64]:
        """How far stored pixels are from those that the logits make, shape (C, H, W).

        Of what a threshold or a contest of logits decides (see `tolerance`): how far the stored
        label's logit is from winning, in units of logits, and 0 where it wins. Of all else: the
        absolute difference of the stored value. Pixels without an answer may be anything.
        """

    def tolerance(self, tie_bound: float, span: float) -> float | None:
        """What `deviation` may be for two passes that agree.

        None where it is a gap between logits, which counts as a tie up to ``tie_bound``.

        Parameters
        ----------
        tie_bound
            What two passes may differ by, as a share of the range of the logits.
        span
            That range.
        """
        return None


_BUILT_IN = {
    "labels": "labels:Labels",
    "planes": "labels:Planes",
    "values": "values:Values",
    "probabilities": "probabilities:Probabilities",
}
_MAIN = ("values", "planes", "labels")
"""Tried in this order for the mask of a model's output."""

_registered: dict[str, type[Product]] = {}


def register_product(product: type[Product]) -> None:
    """Make a product known by its name in this process.

    Worker processes know it only where the package that has it declares an entry point in the
    group ``tilepipe.products``.
    """
    _registered[product.name] = product
    product_named.cache_clear()


@cache
def product_named(key: str) -> Product:
    """The product of a name, or of a name and a variant such as ``probabilities:uint8``.

    Raises
    ------
    ValueError
        Where no product has that name, or it has no such variant.
    """
    name, _, variant = key.partition(":")
    kind = _class_named(name)
    if kind is None:
        raise ValueError(
            f"there is no product called {name!r}; there are {', '.join(product_names())}"
        )
    try:
        return kind(*[variant] if variant else [])
    except TypeError as error:
        raise ValueError(f"the product {name} has no variants such as {variant!r}") from error


def product_names() -> list[str]:
    """The names of all products: built in, registered, and those of other packages."""
    others = (point.name for point in entry_points(group=ENTRY_POINTS))
    return sorted({*_BUILT_IN, *_registered, *others})


def main_product(output: OutputSpec) -> Product:
    """The product that is the mask of a model with this output."""
    mains = (product_named(name) for name in _MAIN)
    return next(product for product in mains if product.unavailable(output) is None)


def _class_named(name: str) -> type[Product] | None:
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found: type[Product] = getattr(import_module(f"tilepipe.products.{module}"), attribute)
        return found
    for point in entry_points(group=ENTRY_POINTS, name=name):
        loaded: type[Product] = point.load()
        return loaded
    return None
