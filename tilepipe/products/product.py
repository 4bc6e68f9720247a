"""The base class of products, and the registry of all products.

A run makes one main product from the network's logits (labels, planes or values, depending on the
model) and any number of others beside it, such as probabilities. All differences in how they are
encoded, stored, reduced, counted and compared are in the product's class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.plugins import made, plugin, plugin_names

if TYPE_CHECKING:
    from tilepipe._torch import Tensor
    from tilepipe.models.specs import OutputSpec

ENTRY_POINTS = "tilepipe.products"
"""The group of entry points by which other packages add `Product` classes."""


class PixelForm(ABC):
    """The form in which a pyramid of pixels is stored (`tilepipe.products.layer.Layer`).

    Arrays have the shape (H, W) if the form is `flat`, and otherwise (C, H, W), with a plane for
    each class.
    """

    name: ClassVar[str]
    flat: ClassVar[bool] = False
    """Whether there is a single plane."""
    has_classes: ClassVar[bool] = True
    """Whether each pixel belongs to classes; otherwise it holds measured values."""
    averaged: ClassVar[bool] = True
    """Whether coarser levels hold means; otherwise they hold the most frequent values."""
    dtype: np.dtype[Any]
    """The type of a stored pixel."""
    fill: float
    """The value of a pixel without an answer, and so of all pixels in an unwritten chunk."""
    top: float = 1.0
    """The stored value that viewers show at full intensity."""

    @property
    def key(self) -> str:
        """The name and variant; `product_named` returns an equal product for it."""
        return self.name

    @property
    def key_for_new(self) -> str:
        """The key of the form in which new masks have the product, if there is an older one."""
        return self.key

    @property
    def attributes(self) -> dict[str, Any]:
        """Metadata that readers of the stored array need, as JSON-ready values."""
        return {}

    def planes(self, classes: int) -> int:
        """The number of planes for a number of classes."""
        return 1 if self.flat else classes

    def shape(self, classes: int, size: tuple[int, int]) -> tuple[int, ...]:
        """The shape of an array of (height, width) pixels."""
        return size if self.flat else (classes, *size)

    def nothing(self, classes: int, size: tuple[int, int]) -> NDArray[Any]:
        """An array of (height, width) pixels without an answer."""
        return np.full(self.shape(classes, size), self.fill, self.dtype)

    def unanswered(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        """Which stored pixels have no answer, in the shape of the array."""
        return np.isnan(stored) if np.isnan(self.fill) else np.asarray(stored == self.fill)

    @abstractmethod
    def reduce(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Combine each 2 x 2 stored pixels; odd sides are padded with pixels without an answer."""


class Product(PixelForm):
    """One result that a run makes from logits, and its form on disk."""

    is_main: ClassVar[bool] = False
    """Whether the product can be the mask itself, and not only lie beside one."""

    def working_bytes(self, output: OutputSpec) -> int:
        """The bytes of a pixel of all planes, while it is computed: as encoded, and as stored."""
        return self.planes(len(output.classes)) * (4 + self.dtype.itemsize)

    def unavailable(self, output: OutputSpec) -> str | None:
        """Why a model with this output cannot have the product, or None if it can."""
        return None

    @abstractmethod
    def encode(self, logits: Tensor, output: OutputSpec) -> Tensor:
        """Turn logits (N, outputs, H, W) into the product, (N, H, W) or (N, C, H, W).

        Runs on the logits' device, and may be captured in a CUDA graph, so no branch may depend on
        values. Other products are made of the same logits, which must not be changed in place.
        """

    def encode_array(self, logits: NDArray[np.float32], output: OutputSpec) -> NDArray[Any]:
        """`encode` of a numpy array, with the same result to the bit.

        By default torch does it. Products that most runs make have no need of it, as loading torch
        may take longer than such a run.
        """
        from tilepipe._torch import torch

        with torch.inference_mode():
            return np.asarray(self.encode(torch.from_numpy(logits), output).numpy())

    def stored(self, encoded: NDArray[Any]) -> NDArray[Any]:
        """Convert the result of `encode` to its stored form, of type `dtype`."""
        return encoded

    @abstractmethod
    def sums(
        self, stored: NDArray[Any], classes: int, weights: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        """The number of pixels of each class, or the sums of their weights, shape (H, W).

        For planes, pixels that are 1; for values, pixels of each plane with an answer.
        """

    @abstractmethod
    def deviation(
        self, stored: NDArray[Any], logits: NDArray[np.float64], output: OutputSpec
    ) -> NDArray[np.float64]:
        """How far stored pixels are from the product of the logits, shape (C, H, W).

        For labels (see `tolerance`): how far the logit of the stored label is from winning, 0 where
        it wins. For other products: the absolute difference of the stored value. Pixels without an
        answer may have any value.
        """

    def tolerance(self, tie_bound: float, span: float) -> float | None:
        """The largest `deviation` of two passes that agree.

        None if the deviation is a gap between logits, which is a tie up to ``tie_bound``, a share
        of the logits' range ``span``.
        """
        return None


_BUILT_IN = {
    "labels": "labels:Labels",
    "planes": "labels:Planes",
    "values": "values:Values",
    "probabilities": "probabilities:Probabilities",
    "entropy": "probabilities:Entropy",
}
_WITH_VARIANTS = ("probabilities", "entropy")
_MAIN = ("values", "planes", "labels")
"""The products that can be a mask, in the order in which they are tried for a model."""

_registered: dict[str, type[Product]] = {}


def register_product(product: type[Product]) -> None:
    """Make a product available by its name in this process.

    Worker processes find a product only by an entry point in the group ``tilepipe.products``.
    """
    _registered[product.name] = product
    product_named.cache_clear()


@cache
def product_named(key: str) -> Product:
    """The product of a name, or of a name and a variant such as ``probabilities:uint8``.

    Raises ValueError if there is no such product or variant.
    """
    name, _, variant = key.partition(":")
    kind = _class_named(name)
    if kind is None:
        raise ValueError(
            f"there is no product called {name!r}; there are {', '.join(product_names())}"
        )
    if name in _BUILT_IN and variant and name not in _WITH_VARIANTS:
        raise ValueError(f"the product {name} has no variants such as {variant!r}")
    if name in _BUILT_IN:
        return kind(*[variant] if variant else [])
    product: Product = made(ENTRY_POINTS, name, kind, *[variant] if variant else [])
    return product


def canonical_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Keys of new masks, with the variant that applies where they name none.

    Raises InputError for unknown ones.
    """
    try:
        return tuple(product_named(key).key_for_new for key in keys)
    except ValueError as error:
        raise InputError(f"product: {error}") from error


def product_names() -> list[str]:
    """The names of all products: built in, registered, and those of other packages."""
    return sorted({*_BUILT_IN, *_registered, *plugin_names(ENTRY_POINTS)})


def main_product(output: OutputSpec) -> Product:
    """The product that is the mask for a model with this output."""
    mains = (product_named(name) for name in _MAIN)
    return next(product for product in mains if product.unavailable(output) is None)


def _class_named(name: str) -> type[Product] | None:
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found: type[Product] = getattr(import_module(f"tilepipe.products.{module}"), attribute)
        return found
    found_elsewhere: type[Product] | None = plugin(ENTRY_POINTS, name)
    return found_elsewhere
