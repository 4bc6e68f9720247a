"""What every mask is to the rest of tilepipe, whatever file holds it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images.base import PixelSize, Placed, RasterGrid, Transform
from tilepipe.images.control import GroundControl
from tilepipe.products.product import Product, product_named
from tilepipe.schema import decode
from tilepipe.storage import StoragePath

NO_ANSWER = 255
"""The label of pixels without an answer; never a class."""

SMALLEST_LEVEL = 512
"""A pyramid ends with the first level that is no larger than this on both sides."""

Kind = str
"""Name of a product that can be a mask: ``labels``, ``planes``, ``values``."""


@dataclass(frozen=True, slots=True)
class MaskClass:
    """A class: what it is called and how it is shown."""

    name: str
    colour: str
    """``#rrggbb``."""

    def __post_init__(self) -> None:
        if not re.fullmatch("#[0-9a-fA-F]{6}", self.colour):
            raise ValueError(f"the colour of class {self.name!r} is {self.colour!r}, not #rrggbb")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 .. 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """A mask, described before a byte of it is written."""

    height: int
    """Rows of level 0 of the mask."""
    width: int
    """Columns."""
    kind: str
    """Name of its product: ``labels``, ``planes``, ``values``."""
    classes: tuple[MaskClass, ...]
    """Labels: value i is ``classes[i]``. Planes and values: one for each plane."""
    pixel_size: PixelSize | None = None
    """Of the mask's own level 0; the unit ``pixel`` stands for pixels of the image's level 0."""
    crs: str | None = None
    """Coordinate reference system as WKT."""
    transform: Transform | None = None
    """Of the mask's own grid."""
    origin: tuple[float, float] = (0.0, 0.0)
    """Centre of the first pixel (y, x), from that of the image's, in the unit of `pixel_size`.

    A mask computed at a level that is f times coarser starts (f - 1) / 2 image pixels further in.
    """
    name: str = "mask"
    background: int | None = None
    """The class that is drawn transparent."""
    control: GroundControl | None = None
    """Ground control points or RPCs, on the mask's own grid, where the image has no transform."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a mask of {self.height} x {self.width} has no pixels")
        if not self.product.is_main:
            raise ValueError(f"{self.kind} cannot be a mask by themselves")
        if not 1 <= len(self.classes) <= NO_ANSWER:
            raise ValueError(f"a mask has 1 to {NO_ANSWER} classes, not {len(self.classes)}")
        if self.background is not None and not 0 <= self.background < len(self.classes):
            raise ValueError(f"background {self.background} is none of {len(self.classes)} classes")

    @property
    def product(self) -> Product:
        """What the mask is: labels, planes or values, and how they live."""
        return product_named(self.kind)

    @property
    def grid(self) -> RasterGrid:
        """The grid of level 0 and its place."""
        place = self.pixel_size, self.crs, self.transform, self.control
        return RasterGrid(self.height, self.width, *place, self.origin)

    @property
    def planes(self) -> int:
        """Planes of the array: 1 for labels."""
        return self.product.planes(len(self.classes))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a pixel."""
        return self.product.dtype

    @property
    def fill(self) -> float:
        """What a pixel without an answer holds."""
        return self.product.fill

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level of the pyramid: halves, rounded up."""
        shapes = [(self.height, self.width)]
        while max(shapes[-1]) > SMALLEST_LEVEL:
            height, width = shapes[-1]
            shapes.append((-(-height // 2), -(-width // 2)))
        return tuple(shapes)

    def to_json(self) -> dict[str, Any]:
        """As a document of plain JSON types."""
        document: dict[str, Any] = {"format": 1, **asdict(self)}
        document["classes"] = [asdict(c) for c in self.classes]
        document["transform"] = None if self.transform is None else list(self.transform)
        del document["control"]
        if self.control is not None:
            document["control"] = self.control.to_json()
        document["origin"] = list(self.origin)
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> MaskSpec:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            When the document describes no mask that this version knows.
        """
        if not isinstance(document, dict) or document.get("format") != 1:
            raise ValueError("it is not a description of a mask of format 1")
        parts = {
            field.name: document[field.name] for field in fields(cls) if field.name in document
        }
        if "origin" not in parts:
            raise ValueError("origin is missing")
        if parts.get("control") is not None:
            parts["control"] = GroundControl.from_json(parts["control"])
        return decode(cls, parts)


@runtime_checkable
class Mask(Placed, Protocol):
    """An opened mask of any format; never held whole. Reading is safe from several threads."""

    path: StoragePath
    kind: str
    """Name of its product, guessed from the array's form where the file does not say."""
    classes: tuple[MaskClass, ...] | None
    """None when the file does not name them."""
    levels: tuple[tuple[int, int], ...]
    """(height, width) of each level, largest first."""
    planes: int
    """1 for labels."""
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        ...

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """The pixels of a window inside the mask: (H, W) of labels, otherwise (C, H, W).

        Raises
        ------
        ValueError
            Where the window reaches outside the level.
        """
        ...

    def as_dask(self, level: int = 0) -> Any:
        """The level as a lazy dask array of shape (H, W) for labels, otherwise (C, H, W)."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def as_transform(numbers: Any) -> Transform:
    """Six numbers as a transform."""
    a, b, c, d, e, f = (float(number) for number in numbers)
    return a, b, c, d, e, f


def require_inside(window: Window, shape: tuple[int, int]) -> None:
    """Raise ValueError where a window reaches outside a level of ``shape``."""
    if window.y < 0 or window.x < 0 or window.stop_y > shape[0] or window.stop_x > shape[1]:
        raise ValueError(f"{window} reaches outside the mask, {shape[0]} x {shape[1]}")


def lazy(mask: Mask, level: int, chunk: int) -> Any:
    """A dask array that reads square pieces of a mask when they are asked for."""
    import dask.array as da

    height, width = mask.levels[level]
    planes = () if product_named(mask.kind).flat else (mask.planes,)

    side = (_pieces(height, chunk), _pieces(width, chunk))
    return da.map_blocks(
        partial(_read_piece, mask, level),
        # Never twice the same: a mask may have been written to since.
        name=f"tilepipe-mask-{uuid4().hex}",
        chunks=(*((n,) for n in planes), *side),
        dtype=mask.dtype,
        meta=np.empty((0,) * (len(planes) + 2), mask.dtype),
    )


def _read_piece(mask: Mask, level: int, block_info: Any) -> NDArray[Any]:
    (y, stop_y), (x, stop_x) = block_info[None]["array-location"][-2:]
    return mask.read(Window(y, x, stop_y - y, stop_x - x), level)


def _pieces(size: int, chunk: int) -> tuple[int, ...]:
    return tuple(min(chunk, size - start) for start in range(0, size, chunk))
