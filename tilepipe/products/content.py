"""What is exported of a mask: the mask itself, a product beside it, or a channel for each class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.products.layer import Layer
from tilepipe.products.product import Product
from tilepipe.products.shares import ShareForm
from tilepipe.products.store import ZarrMask

WHITE = "#ffffff"

OBJECTS = "objects"
"""What a file of the numbers of objects holds."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an export: its pixels, and what the file says of them."""

    spec: MaskSpec
    """The mask that it is made from."""
    planes: tuple[MaskClass, ...]
    """The name and colour of each plane. For labels, the name of the mask, and a colour that makes
    large labels bright."""
    dtype: np.dtype[Any]
    """The type of a pixel in the file."""
    fill: float | None
    """The value of no answer; None if nothing stands for it."""
    holds: str = "mask"
    """What the file holds if it is not the mask itself: ``entropy``, ``channels`` ..."""
    is_flat: bool = False
    """Whether it is one plane without an axis of channels."""
    shares: ShareForm | None = None
    """The form of shares, 0 .. 1; None if pixels are no shares."""

    @classmethod
    def of_mask(cls, spec: MaskSpec) -> Form:
        """The form of the mask itself."""
        flat = spec.product.flat
        planes = (MaskClass(spec.name, _only_colour(spec)),) if flat else spec.classes
        return cls(spec, planes, spec.dtype, spec.fill, is_flat=flat)

    @classmethod
    def of_product(cls, spec: MaskSpec, product: Product) -> Form:
        """The form of a product beside a mask."""
        dtype = file_dtype(product)
        planes = (MaskClass(product.name, WHITE),) if product.flat else spec.classes
        form = getattr(product, "form", None)
        shares = form if isinstance(form, ShareForm) else None
        return cls(spec, planes, dtype, product.fill, product.name, product.flat, shares)

    @classmethod
    def of_channels(cls, spec: MaskSpec) -> Form:
        """The form of a channel of 0 and 255 for each class except the background."""
        if not spec.product.has_classes:
            raise InputError("channels: the model gives values, which are channels already")
        planes = tuple(spec.classes[number] for number in channel_numbers(spec))
        return cls(spec, planes, np.dtype("uint8"), None, "channels")

    @classmethod
    def of_objects(cls, spec: MaskSpec) -> Form:
        """The form of the numbers of objects: 0 is none, and nodata."""
        plane = MaskClass(OBJECTS, _only_colour(spec))
        return cls(spec, (plane,), np.dtype("uint32"), 0, OBJECTS, is_flat=True)

    @property
    def is_labels(self) -> bool:
        """Whether each value is a class."""
        return self.holds == "mask" and self.spec.product.flat

    @property
    def is_measured(self) -> bool:
        """Whether the range of values depends on the mask, so that it is found by looking."""
        return self.holds == OBJECTS or (self.holds == "mask" and not self.spec.product.has_classes)

    @property
    def pixel_bytes(self) -> int:
        """The bytes of a pixel of all planes."""
        return len(self.planes) * self.dtype.itemsize

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """The shape of the array of a level of (height, width)."""
        return size if self.is_flat else (len(self.planes), *size)

    def to_json(self) -> dict[str, Any]:
        """The description that is stored in the file, as JSON-ready values.

        Only that of a mask itself is read as one: nothing else has its format number.
        """
        document = self.spec.to_json()
        return document if self.holds == "mask" else {**document, "format": 2, "holds": self.holds}


def file_dtype(product: Product) -> np.dtype[Any]:
    """The type of a product's pixels in a TIFF: halves become float32, as readers want them.

    Raises InputError if a TIFF does not hold the product.
    """
    dtype = np.dtype("float32") if product.dtype == np.float16 else product.dtype
    if dtype not in (np.dtype("uint8"), np.dtype("float32")):
        raise InputError(
            f"{product.name}: cannot be written as TIFF, because its pixels are {dtype}; write an "
            "OME-Zarr, -o MASK.ome.zarr"
        )
    return dtype


def channel_numbers(spec: MaskSpec) -> list[int]:
    """The classes that have a channel: all but the background, if there is any other."""
    numbers = [number for number in range(len(spec.classes)) if number != spec.background]
    return numbers or [0]


def _only_colour(spec: MaskSpec) -> str:
    """The colour of the only class that is not background; white if there are several."""
    numbers = channel_numbers(spec)
    return spec.classes[numbers[0]].colour if len(numbers) == 1 else WHITE


class Pyramid(Protocol):
    """What has levels: a mask, or the numbers of its objects."""

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level, largest first."""
        ...


class Content(ABC):
    """What is exported of a mask, read plane by plane and window by window."""

    def __init__(self, source: Pyramid, form: Form) -> None:
        self.form = form
        self.levels = source.levels

    @abstractmethod
    def read_plane(self, plane: int, window: Window, level: int = 0) -> NDArray[Any]:
        """A window of a plane, shape (H, W), in the form's dtype."""

    @abstractmethod
    def stored_chunks(self, level: int, plane: int) -> set[tuple[int, int]]:
        """(row, column) of the chunks of a plane that may have an answer."""

    @property
    def nothing(self) -> float:
        """The value of pixels without an answer."""
        return 0 if self.form.fill is None else self.form.fill


class OfMask(Content):
    """Content of a mask, whose classes a picture can show."""

    def __init__(self, mask: ZarrMask, form: Form) -> None:
        super().__init__(mask, form)
        self.mask = mask


class _Whole(OfMask):
    """The mask itself."""

    def read_plane(self, plane: int, window: Window, level: int = 0) -> NDArray[Any]:
        return self.mask.read_plane(plane, window, level)

    def stored_chunks(self, level: int, plane: int) -> set[tuple[int, int]]:
        return self.mask.stored_chunks(level, plane)


class _Beside(OfMask):
    """A product beside the mask."""

    def __init__(self, mask: ZarrMask, layer: Layer) -> None:
        assert isinstance(layer.product, Product), "as all layers of masks are"
        super().__init__(mask, Form.of_product(mask.spec, layer.product))
        self._layer = layer

    def read_plane(self, plane: int, window: Window, level: int = 0) -> NDArray[Any]:
        return self._layer.read_plane(plane, window, level).astype(self.form.dtype, copy=False)

    def stored_chunks(self, level: int, plane: int) -> set[tuple[int, int]]:
        return self._layer.stored_chunks(level, plane)


class _Channels(OfMask):
    """A channel for each class, 255 where the pixel belongs to it, and 0 elsewhere."""

    def read_plane(self, plane: int, window: Window, level: int = 0) -> NDArray[Any]:
        number = channel_numbers(self.form.spec)[plane]
        if self.form.spec.product.flat:
            inside = self.mask.read_plane(0, window, level) == number
        else:
            inside = self.mask.read_plane(number, window, level) == 1
        return np.where(inside, np.uint8(255), np.uint8(0))

    def stored_chunks(self, level: int, plane: int) -> set[tuple[int, int]]:
        flat = self.form.spec.product.flat
        return self.mask.stored_chunks(level, 0 if flat else channel_numbers(self.form.spec)[plane])


def content_of(mask: ZarrMask, product: str | None = None, *, channels: bool = False) -> OfMask:
    """What a file holds: a product beside the mask, channels, or by default the mask itself.

    Raises InputError for values as channels, and for a product that TIFF cannot hold; ValueError
    if the mask does not have the product.
    """
    if product is not None:
        return _Beside(mask, mask.layer(product))
    if channels:
        return _Channels(mask, Form.of_channels(mask.spec))
    return _Whole(mask, Form.of_mask(mask.spec))
