"""Label maps of any format, opened in one way: their pixels, their grid, what 255 means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError, UnreadableError
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import Placed, RasterGrid
from tilepipe.images.mirroring import mirroring
from tilepipe.products.base import ForViewersError, Kind
from tilepipe.storage import local
from tilepipe.text import shortened

LONGEST_NAME = 200
"""Characters of a class's name that are kept; a file of unknown origin may hold any number."""

NO_LABEL = int(np.iinfo(np.int64).min)
"""The value of a pixel that a file's mask band or alpha leaves out; no file holds it."""

LARGEST_PALETTE_PNG = 512 * 2**20
"""Pixels of the largest PNG with a palette that is opened, as it is held whole."""


@dataclass(frozen=True, slots=True)
class LabelMap(Placed):
    """An opened mask or truth of any format; a large one is never held whole."""

    path: Path
    kind: Kind
    grid: RasterGrid
    """Its size, pixel size, and place on the Earth."""
    planes: int
    """Planes of the map: 1 for labels."""
    dtype: np.dtype[Any]
    read: Callable[[Window], NDArray[Any]]
    """Reads a window inside the map, (C, H, W); values that are missing are NaN, and labels that
    the file leaves out `NO_LABEL`."""
    close: Callable[[], None]
    classes: tuple[str, ...] | None = None
    """Names of the classes; None if the file does not have them."""
    ours: bool = False
    """Whether tilepipe wrote the file, so that 255 certainly means "no answer"."""
    nodata: int | None = None
    """The label other than 0 that the file declares as nodata."""
    chunk: tuple[int, int] = (CHUNK, CHUNK)
    """(rows, columns) that are decoded together."""
    held_bytes: int = 0
    """Memory that the map's pixels take; 0 if they stay in the file."""

    def __enter__(self) -> LabelMap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.grid.shape

    @property
    def georeferenced(self) -> bool:
        """Whether it has a CRS and a transform."""
        return self.crs is not None and self.transform is not None

    def read_mirrored(self, window: Window) -> NDArray[Any]:
        """The pixels of a window, (C, H, W); outside the map, it is mirrored."""
        span, mirrored = mirroring(window, *self.shape)
        return np.moveaxis(mirrored(np.moveaxis(self.read(span), 0, 2)), 2, 0)

    def in_memory(self) -> LabelMap:
        """The same map, read as a whole; its file is closed."""
        whole = self.read(Window(0, 0, *self.shape))
        self.close()
        return replace(
            self,
            read=lambda window: whole[(slice(None), *window.slices())],
            close=lambda: None,
            held_bytes=whole.nbytes,
        )


def open_label_map(path: Path, memory: int) -> LabelMap:
    """Open a mask of tilepipe, or a TIFF, PNG, GeoTIFF or OME-Zarr with labels or values.

    Parameters
    ----------
    path : Path
        A file, or an OME-Zarr folder.
    memory : int
        Largest size in bytes of a piece of the file that can only be decoded as a whole.

    Raises
    ------
    InputError
        There is no such file, or it holds neither labels nor values.
    """
    path = local(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise InputError(f"{path} is a JPEG, which does not preserve labels; use a PNG or a TIFF")
    return _open_mask(path) or _open_palette(path) or _open_image(path, memory)


def _open_mask(path: Path) -> LabelMap | None:
    """A mask that tilepipe wrote, or an OME-Zarr of the same form."""
    from tilepipe.products import open_mask

    try:
        mask = open_mask(path)
    except (UnreadableError, ForViewersError):
        raise
    except InputError:
        return None
    ours = _is_ours(path) if path.is_dir() else mask.classes is not None
    if not ours and not path.is_dir():
        # The readers of images know more of such a file: its layout and its nodata.
        mask.close()
        return None

    names = [shortened(c.name, LONGEST_NAME) for c in mask.classes or ()]
    if not ours and all(name.isdecimal() for name in names):
        # The file numbers its classes, but does not name them.
        names = []

    def read(window: Window) -> NDArray[Any]:
        pixels = mask.read(window)
        return pixels if pixels.ndim == 3 else pixels[None]

    return LabelMap(
        path=path,
        kind=mask.kind,
        grid=mask.grid,
        planes=mask.planes,
        dtype=mask.dtype,
        read=read,
        close=mask.close,
        classes=_distinct(names) if names else None,
        ours=ours,
    )


def _is_ours(path: Path) -> bool:
    import zarr

    return "tilepipe" in zarr.open_group(path, mode="r").attrs


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Names of classes; those that occur twice are numbered."""
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
            if picture.mode != "P" or picture.width * picture.height > LARGEST_PALETTE_PNG:
                return None
            pixels = np.asarray(picture)
    except BROKEN as error:
        raise InputError(f"{path} is a broken PNG ({error}); copy it again") from error
    return LabelMap(
        path=path,
        kind="labels",
        grid=RasterGrid(pixels.shape[0], pixels.shape[1]),
        planes=1,
        dtype=pixels.dtype,
        read=lambda window: pixels[window.slices()][None],
        close=lambda: None,
        chunk=(pixels.shape[0], pixels.shape[1]),
        held_bytes=pixels.nbytes,
    )


def _open_image(path: Path, memory: int) -> LabelMap:
    """Any other file that can be read as an image of labels or values."""
    from tilepipe.images import open_image
    from tilepipe.images.ground import true_pixel_size
    from tilepipe.images.windowed import WindowedImage, check_bounded, read_with_valid

    image = open_image(path)
    kind: Kind = "labels" if image.bands == 1 else "planes"
    if image.dtype.kind == "f":
        kind = "values"
    elif image.dtype.kind not in "uib" or (kind == "planes" and image.dtype != np.uint8):
        image.close()
        raise InputError(
            f"{path} has {image.bands} bands of {image.dtype}, which cannot be labels; use one "
            "band of integers"
        )
    check_bounded(image, 0, memory)
    nodata, shown = image.nodata, image
    if kind != "values" and isinstance(image, WindowedImage) and not image.palette:
        # What the mask band or alpha leaves out; a label that is declared as nodata is kept.
        shown = image.read_as(replace(image.reading, nodata="none"))

    def read(window: Window) -> NDArray[Any]:
        pixels, valid = read_with_valid(shown, window)
        if valid is not None:
            wide = pixels if kind == "values" else pixels.astype(np.int64)
            pixels = np.where(valid, wide, np.nan if kind == "values" else NO_LABEL)
        return np.moveaxis(pixels, 2, 0)

    def close() -> None:
        shown.close()
        image.close()

    return LabelMap(
        path=path,
        kind=kind,
        grid=replace(image.grid, pixel_size=true_pixel_size(image)),
        planes=image.bands,
        dtype=image.dtype,
        read=read,
        close=close,
        # Many label maps declare their background, 0, as nodata; it is a class all the same.
        nodata=int(nodata) if nodata and kind != "values" and np.isfinite(nodata) else None,
        chunk=image.chunks[0],
    )
