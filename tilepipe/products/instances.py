"""Objects of a mask as a pyramid of numbers (instance labels), in OME-Zarr.

A group of its own: ``objects/`` within the mask, or anywhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.base import Placed
from tilepipe.products import ngff
from tilepipe.products.arrays import create_pyramid
from tilepipe.products.base import MaskSpec
from tilepipe.products.content import Content, Form
from tilepipe.products.layer import BROKEN, Arrays, Layer, open_levels
from tilepipe.products.product import PixelForm
from tilepipe.products.reduction import mode_of_objects
from tilepipe.storage import StoragePath
from tilepipe.storage.fsync import fsync_below
from tilepipe.storage.zarr_store import SealingStore, zarr_store
from tilepipe.text import first_line

FORMAT = 1


class Instances(PixelForm):
    """The number of the object at each pixel, uint32; 0 where there is none."""

    name = "objects"
    flat = True
    has_classes = False
    averaged = False
    dtype = np.dtype("uint32")
    fill = 0

    def reduce(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The most frequent number of each 2 x 2 pixels; in a tie, an object before none."""
        return mode_of_objects(stored)


class InstanceLayer(Layer, Placed):
    """The numbers of objects on the grid of a mask, by windows; see `create_instances`.

    Chunks that are not stored have no objects.
    """

    def __init__(self, path: StoragePath, spec: MaskSpec, arrays: Arrays) -> None:
        super().__init__(path, Instances(), arrays)
        self.spec = spec
        """The mask that the objects were found in."""
        self.grid = spec.grid

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        return self.levels[0]


class InstanceContent(Content):
    """The numbers of objects as they are exported: one plane of uint32, 0 where there is none."""

    def __init__(self, numbers: InstanceLayer) -> None:
        super().__init__(numbers, Form.of_objects(numbers.spec))
        self._numbers = numbers

    def read_plane(self, plane: int, window: Window, level: int = 0) -> NDArray[Any]:
        """The numbers of a window, shape (H, W)."""
        return self._numbers.read_plane(plane, window, level)

    def stored_chunks(self, level: int, plane: int) -> set[tuple[int, int]]:
        """The chunks that have objects."""
        return self._numbers.stored_chunks(level, plane)


def create_instances(
    path: StoragePath, spec: MaskSpec, *, source: str | None = None
) -> InstanceLayer:
    """Create a pyramid of numbers of objects, all 0, with the place and levels of a mask.

    The attributes are written last, so an interrupted creation can be repeated.

    Parameters
    ----------
    path
        The folder of the group.
    spec
        The mask that the objects are found in.
    source
        The path of the image or mask that the objects belong to, relative to ``path``, such as
        ``../`` for ``objects/`` within a mask.

    Raises
    ------
    InputError
        When there already are objects, or a file, at ``path``.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; remove it or choose another output.")
    store = zarr_store(path)
    root = zarr.open_group(store, mode="a", zarr_format=spec.zarr_format)
    if root.attrs:
        raise InputError(f"{path} already exists; remove it or choose another output.")
    create_pyramid(store, "", spec, Instances())
    document = {"objects": FORMAT, "mask": spec.to_json()}
    ome = ngff.instance_attributes(spec, Instances(), source)
    root.update_attributes({**ome, "tilepipe": document})
    fsync_below(path)
    return open_instances(path)


def open_instances(path: StoragePath) -> InstanceLayer:
    """Open what `create_instances` made; InputError if it is anything else."""
    try:
        root = zarr.open_group(zarr_store(path, read_only=True), mode="r")
        document: Any = root.attrs["tilepipe"]
        if document["objects"] != FORMAT:
            raise ValueError(f"it has format {document['objects']}, made by a newer tilepipe")
        spec = MaskSpec.from_json(document["mask"])
        store = SealingStore(zarr_store(path))
        arrays = open_levels(store, spec.level_paths)
    except BROKEN as error:
        raise InputError(
            f"{path} cannot be opened as objects ({first_line(error)}); give the OME-Zarr folder "
            "of objects that tilepipe wrote."
        ) from error
    return InstanceLayer(path, spec, arrays)
