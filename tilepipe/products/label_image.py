"""A label image of any format that the readers of images know, as a mask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import CHUNK, Window
from tilepipe.images import open_image, read_with_valid
from tilepipe.images.base import Placed
from tilepipe.images.validity import is_of
from tilepipe.images.windowed import WindowedImage, check_bounded
from tilepipe.products.base import NO_ANSWER, MaskClass, lazy, require_inside
from tilepipe.products.shown import ShownMask
from tilepipe.storage import StoragePath, as_path


class LabelImage(ShownMask, Placed):
    """One band of whole numbers from 0 to 255 as a mask; see `tilepipe.products.base.Mask`.

    The numbers may be stored in any type. What the file declares as nodata has no answer, unless
    that is 0, which many label maps declare although it is a class.

    Parameters
    ----------
    path
        Of a file, or an OME-Zarr folder.
    largest_piece
        Bytes of the file that may be decoded at a time.

    Raises
    ------
    InputError
        It cannot be opened, has several bands, or holds no whole numbers; or it can only be decoded
        in larger pieces.
    """

    kind = "labels"
    planes = 1
    dtype = np.dtype("uint8")
    classes: tuple[MaskClass, ...] | None = None

    def __init__(self, path: str, largest_piece: int) -> None:
        self.path: StoragePath = as_path(path)
        opened = open_image(path)
        try:
            if opened.bands != 1 or opened.dtype.kind not in "uib":
                raise InputError(
                    f"{path} has {opened.bands} bands of {opened.dtype}, which cannot be the "
                    "labels of a mask; give one band of whole numbers"
                )
            check_bounded(opened, 0, largest_piece)
            self._nodata = opened.nodata if is_of(opened.nodata, opened.dtype) else None
            # Read again without its nodata, so that a background of 0 is not taken for it.
            self._image = opened
            if isinstance(opened, WindowedImage):
                self._image = opened.read_as(replace(opened.reading, nodata="none"))
        finally:
            if opened is not getattr(self, "_image", None):
                opened.close()
        self.grid = self._image.grid
        self.levels: tuple[tuple[int, int], ...] = (self.grid.shape,)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.grid.shape

    @property
    def declares_gaps(self) -> bool:
        """Whether the file says which of its pixels have no answer."""
        masked = isinstance(self._image, WindowedImage) and self._image.masked
        return bool(self._nodata) or masked

    def read(self, window: Window, level: int = 0) -> NDArray[np.uint8]:
        """The labels of a window, (H, W); InputError where one is not 0 .. 255."""
        require_inside(window, self.levels[level])
        pixels, valid = read_with_valid(self._image, window, level)
        labels = pixels[:, :, 0]
        known = np.ones(labels.shape, np.bool_) if valid is None else valid[:, :, 0].copy()
        if self._nodata:
            known &= labels != self._nodata
        found = labels[known]
        for label in (int(found.min()), int(found.max())) if found.size else ():
            if not 0 <= label <= NO_ANSWER:
                raise InputError(
                    f"{self.path} holds the label {label}, and masks hold labels from 0 to "
                    f"{NO_ANSWER - 1}; if labels are the numbers of objects, give a mask of classes"
                )
        return np.where(known, labels, NO_ANSWER).astype(np.uint8)

    def as_dask(self, level: int = 0) -> Any:
        """The labels as a lazy dask array, (H, W)."""
        return lazy(self, level, CHUNK)

    def close(self) -> None:
        """Close the file."""
        self._image.close()
