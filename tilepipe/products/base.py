"""Masks of any format: their description, and the interface of an opened mask."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.base import PixelSize, Placed, RasterGrid, Transform
from tilepipe.images.control import GroundControl
from tilepipe.products.product import Product, product_named
from tilepipe.schema import decode
from tilepipe.storage import StoragePath
from tilepipe.text import one_line

NO_ANSWER = 255
"""The label of pixels without an answer; never a class."""

SMALLEST_LEVEL = 512
"""A pyramid ends with the first level that has at most this many pixels on each side."""

MOST_LEVELS = 64
"""Of a pyramid, however it is halved."""

Ngff = Literal["0.4", "0.5"]
"""A version of OME-Zarr (NGFF) that masks are written in."""

ZarrFormat = Literal[2, 3]


class ForViewersError(InputError):
    """A file that tilepipe made of a mask for other programs to show, and does not read as one."""


Kind = str
"""The name of a product that can be a mask: ``labels``, ``planes``, ``values``."""


@dataclass(frozen=True, slots=True)
class MaskClass:
    """The name and colour of a class."""

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
    """The description of a mask, made before any of it is written."""

    height: int
    """Rows of the mask's level 0."""
    width: int
    """Columns of the mask's level 0."""
    kind: str
    """The name of its product: ``labels``, ``planes``, ``values``."""
    classes: tuple[MaskClass, ...]
    """The classes of the labels 0, 1, 2 ..., or of the planes."""
    pixel_size: PixelSize | None = None
    """The pixel size of level 0; the unit ``pixel`` means pixels of the image's level 0."""
    crs: str | None = None
    """The coordinate reference system as WKT."""
    transform: Transform | None = None
    """The transform of the mask's own grid."""
    origin: tuple[float, float] = (0.0, 0.0)
    """The centre of the first pixel (y, x), relative to that of the image, in `pixel_size` units.

    A mask computed at a level that is f times coarser starts (f - 1) / 2 image pixels further in.
    """
    name: str = "mask"
    background: int | None = None
    """The class that is drawn transparent."""
    control: GroundControl | None = None
    """Ground control points or RPCs on the mask's own grid, if the image has no transform."""
    partial: bool = False
    """Whether it was made of an unfinished run, whose missing blocks have no answer."""
    level_count: int | None = None
    """The number of levels; None: as many as it takes to be at most 512 pixels on each side."""
    source: str | None = None
    """The path from the mask's group to that of the image, if it lies within the image."""
    ngff: Ngff = "0.5"
    """The version of OME-Zarr in which it is stored: 0.5 in zarr format 3, 0.4 in format 2."""
    has_coordinates: bool = False
    """Whether CF coordinates lie beside level 0, as in all masks with a transform but older ones.

    The coarser levels then lie in a group of their own, because xarray opens all arrays of a group
    together, and refuses those whose sizes differ."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a mask of {self.width} x {self.height} pixels is empty")
        if not self.product.is_main:
            raise ValueError(f"{self.kind} cannot be a mask by themselves")
        if not 1 <= len(self.classes) <= NO_ANSWER:
            raise ValueError(f"a mask has 1 to {NO_ANSWER} classes, not {len(self.classes)}")
        if self.level_count is not None and not 1 <= self.level_count <= MOST_LEVELS:
            raise ValueError(f"a mask has 1 to {MOST_LEVELS} levels, not {self.level_count}")
        if self.has_coordinates and self.transform is None:
            raise ValueError("a mask without a transform has no coordinates")
        if self.background is not None and not 0 <= self.background < len(self.classes):
            raise ValueError(f"background {self.background} is not one of the classes")

    @property
    def product(self) -> Product:
        """The product that the mask holds: labels, planes or values."""
        return product_named(self.kind)

    @property
    def grid(self) -> RasterGrid:
        """The grid of level 0 and its place."""
        place = self.pixel_size, self.crs, self.transform, self.control
        return RasterGrid(self.height, self.width, *place, self.origin)

    @property
    def planes(self) -> int:
        """The number of planes: 1 for labels."""
        return self.product.planes(len(self.classes))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a pixel."""
        return self.product.dtype

    @property
    def fill(self) -> float:
        """The value of a pixel without an answer."""
        return self.product.fill

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each pyramid level, half the one before, rounded up."""
        shapes = [(self.height, self.width)]
        count = self.level_count
        while max(shapes[-1]) > SMALLEST_LEVEL if count is None else len(shapes) < count:
            height, width = shapes[-1]
            shapes.append((-(-height // 2), -(-width // 2)))
        return tuple(shapes)

    @property
    def level_paths(self) -> tuple[str, ...]:
        """The path of each level's array in the mask's group."""
        coarser = "overviews/" if self.has_coordinates else ""
        return ("0", *(f"{coarser}{level}" for level in range(1, len(self.levels))))

    @property
    def zarr_format(self) -> ZarrFormat:
        """The format of its zarr groups and arrays."""
        return 2 if self.ngff == "0.4" else 3

    def to_json(self) -> dict[str, Any]:
        """The description as JSON-ready values."""
        document: dict[str, Any] = {"format": 1, **asdict(self)}
        document["classes"] = [asdict(c) for c in self.classes]
        document["transform"] = None if self.transform is None else list(self.transform)
        del document["control"]
        if self.control is not None:
            document["control"] = self.control.to_json()
        document["origin"] = list(self.origin)
        if not self.partial:  # as in masks from before there were such
            del document["partial"]
        # Masks that older versions can read are described as by these.
        for name, default in _LATER.items():
            if document[name] == default:
                del document[name]
            else:
                document["format"] = 2
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> MaskSpec:
        """Read what `to_json` returned.

        Raises ValueError for anything else, ForViewersError for what tilepipe makes of masks.
        """
        if isinstance(document, dict) and isinstance(document.get("holds"), str):
            raise ForViewersError(
                f"holds {one_line(document['holds'])} for viewers, not a mask; give the mask itself"
            )
        if not isinstance(document, dict) or document.get("format") not in (1, 2):
            raise ValueError("it is not a description of a mask of format 1 or 2")
        parts = {f.name: document[f.name] for f in fields(cls) if f.name in document}
        if "origin" not in parts:
            raise ValueError("origin is missing")
        if parts.get("control") is not None:
            parts["control"] = GroundControl.from_json(parts["control"])
        return decode(cls, parts)


_LATER = {"ngff": "0.5", "has_coordinates": False, "level_count": None, "source": None}
"""What a description of format 1 does not state."""


@runtime_checkable
class Mask(Placed, Protocol):
    """An opened mask of any format; never held whole. Reading is safe from several threads."""

    path: StoragePath
    kind: str
    """The name of its product, guessed from the form of the array if the file has no name."""
    classes: tuple[MaskClass, ...] | None
    """The classes; None if the file does not name them."""
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
        """The pixels of a window: (H, W) for labels, otherwise (C, H, W).

        Raises ValueError if the window reaches outside the level.
        """
        ...

    def as_dask(self, level: int = 0) -> Any:
        """The level as a lazy dask array of shape (H, W) for labels, otherwise (C, H, W)."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def require_inside(window: Window, shape: tuple[int, int]) -> None:
    """Raise ValueError if a window reaches outside a level of ``shape``."""
    if not Window(0, 0, *shape).contains(window):
        raise ValueError(
            f"{window} reaches outside the mask of {shape[1]} x {shape[0]} pixels (width x height)"
        )


def lazy(mask: Mask, level: int, chunk: int) -> Any:
    """A dask array that reads square pieces of a mask lazily."""
    import dask.array as da

    height, width = mask.levels[level]
    planes = () if product_named(mask.kind).flat else (mask.planes,)

    side = (_pieces(height, chunk), _pieces(width, chunk))
    return da.map_blocks(
        partial(_read_piece, mask, level),
        # Always a new name, because the mask may have been written to since.
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
