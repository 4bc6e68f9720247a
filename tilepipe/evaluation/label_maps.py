"""Masks and truths of any format, opened alike: their pixels, their grid, what 255 means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import CHUNK, Window, round_down
from tilepipe.images.base import PixelSize, Transform
from tilepipe.products.base import Kind
from tilepipe.storage import local
from tilepipe.text import shortened

SIDE = 2048
"""Side of what is read at a time, where the files' tiles and the memory allow it."""

LONGEST_NAME = 200
"""Characters of a class's name, in a file of anybody's making."""

LEAST_ROWS = 16
"""Of a window, however wide the strips of a file are."""

LARGEST_PICTURE = 512 * 2**20
"""Pixels of a PNG with a palette beyond which it is not held whole."""


@dataclass(frozen=True, slots=True)
class LabelMap:
    """An opened mask or truth; never held whole."""

    path: Path
    kind: Kind
    shape: tuple[int, int]
    """(height, width)."""
    planes: int
    """1 for labels."""
    dtype: np.dtype[Any]
    read: Callable[[Window], NDArray[Any]]
    """The pixels of a window, (C, H, W); NaN where values are none."""
    close: Callable[[], None]
    classes: tuple[str, ...] | None = None
    """None when the file does not name them."""
    ours: bool = False
    """Written by tilepipe, so that 255 is "no answer" for certain."""
    nodata: int | None = None
    """The label that the file itself declares to be none, other than 0."""
    pixel_size: PixelSize | None = None
    crs: str | None = None
    transform: Transform | None = None
    chunk: tuple[int, int] = (CHUNK, CHUNK)
    """(rows, columns) that are decoded together."""

    def __enter__(self) -> LabelMap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def georeferenced(self) -> bool:
        """Whether it has a CRS and a transform."""
        return self.crs is not None and self.transform is not None


def open_label_map(path: Path, memory: int) -> LabelMap:
    """Open a mask or a truth: what tilepipe writes, or a TIFF, PNG, GeoTIFF or OME-Zarr of labels.

    Parameters
    ----------
    path : Path
        A file, or an OME-Zarr folder.
    memory : int
        Bytes that a piece of the file may take that can only be decoded whole.

    Raises
    ------
    InputError
        There is none, or none that holds labels or values.
    """
    path = local(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise InputError(f"{path} is a JPEG, which does not keep labels; give a PNG or a TIFF")
    return _open_mask(path) or _open_palette(path) or _open_picture(path, memory)


def windows(shape: tuple[int, int], chunks: list[tuple[int, int]], side: int = SIDE) -> Grid:
    """Windows that cover a map, along the tiles or strips of the files it is read from."""
    height, width = shape
    # A file in strips is decoded a whole row at a time, so it is read that way too.
    across = max(chunk[1] for chunk in chunks)
    columns = min(width, max(across, round_down(side, across)))
    rows = max(LEAST_ROWS, side * side // columns)
    down = max(chunk[0] for chunk in chunks)
    return Grid(shape, (min(height, round_down(rows, down) or rows), columns))


@dataclass(frozen=True, slots=True)
class Grid:
    """Windows of one size, row by row; the last ones are smaller."""

    shape: tuple[int, int]
    tile: tuple[int, int]

    def __iter__(self) -> Iterator[Window]:
        (height, width), (rows, columns) = self.shape, self.tile
        for y in range(0, height, rows):
            for x in range(0, width, columns):
                yield Window(y, x, min(rows, height - y), min(columns, width - x))


def _open_mask(path: Path) -> LabelMap | None:
    """A mask that tilepipe wrote, or an OME-Zarr of the same form."""
    from tilepipe.products import open_mask

    try:
        mask = open_mask(path)
    except UnreadableError:
        raise
    except InputError:
        return None
    ours = _is_ours(path) if path.is_dir() else mask.classes is not None
    if not ours and not path.is_dir():
        # Readers of images know how such a file is laid out, and what its nodata is.
        mask.close()
        return None

    names = [shortened(c.name, LONGEST_NAME) for c in mask.classes or ()]
    if not ours and all(name.isdecimal() for name in names):
        # Not named in the file, only numbered.
        names = []

    def read(window: Window) -> NDArray[Any]:
        pixels = mask.read(window)
        return pixels if pixels.ndim == 3 else pixels[None]

    return LabelMap(
        path=path,
        kind=mask.kind,
        shape=mask.shape,
        planes=mask.planes,
        dtype=mask.dtype,
        read=read,
        close=mask.close,
        classes=_distinct(names) if names else None,
        ours=ours,
        pixel_size=mask.pixel_size,
        crs=mask.crs,
        transform=mask.transform,
    )


def _is_ours(path: Path) -> bool:
    import zarr

    return "tilepipe" in zarr.open_group(path, mode="r").attrs


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Names of classes by which they can be told apart."""
    return tuple(
        name if names.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(names)
    )


def _open_palette(path: Path) -> LabelMap | None:
    """A PNG with a palette: its labels are the indices, not the colours."""
    from PIL import PngImagePlugin

    from tilepipe.images.picture import BROKEN
    from tilepipe.images.probe import PNG_SIGNATURE

    if path.is_dir():
        return None
    with path.open("rb") as file:
        if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
            return None
    try:
        with PngImagePlugin.PngImageFile(path) as picture:
            if picture.mode != "P" or picture.width * picture.height > LARGEST_PICTURE:
                return None
            pixels = np.asarray(picture)
    except BROKEN as error:
        raise InputError(f"{path} is a broken PNG ({error}); copy it again") from error
    return LabelMap(
        path=path,
        kind="labels",
        shape=(pixels.shape[0], pixels.shape[1]),
        planes=1,
        dtype=pixels.dtype,
        read=lambda window: pixels[window.slices()][None],
        close=lambda: None,
        chunk=(pixels.shape[0], pixels.shape[1]),
    )


def _open_picture(path: Path, memory: int) -> LabelMap:
    """Any other file that can be read as an image of labels, or of values."""
    from tilepipe.images import open_image
    from tilepipe.images.ground import true_pixel_size
    from tilepipe.images.windowed import check_bounded, read_with_valid

    image = open_image(path)
    kind: Kind = "labels" if image.bands == 1 else "planes"
    if image.dtype.kind == "f":
        kind = "values"
    elif image.dtype.kind not in "uib" or (kind == "planes" and image.dtype != np.uint8):
        image.close()
        raise InputError(
            f"{path} has {image.bands} bands of {image.dtype}, which are no labels; "
            "give one band of integers"
        )
    check_bounded(image, 0, memory)

    def read(window: Window) -> NDArray[Any]:
        if kind != "values":
            return np.moveaxis(image.read(window), 2, 0)
        pixels, valid = read_with_valid(image, window)
        return np.moveaxis(pixels if valid is None else np.where(valid, pixels, np.nan), 2, 0)

    nodata = image.nodata
    return LabelMap(
        path=path,
        kind=kind,
        shape=image.shape[:2],
        planes=image.bands,
        dtype=image.dtype,
        read=read,
        close=image.close,
        # Many label maps declare their background, 0, to be "no data"; it is a class all the same.
        nodata=int(nodata) if nodata and kind != "values" and np.isfinite(nodata) else None,
        pixel_size=true_pixel_size(image),
        crs=image.crs,
        transform=image.transform,
        chunk=image.chunks[0],
    )
