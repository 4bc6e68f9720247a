"""The mask of a run: an OME-Zarr pyramid, written by whole chunks.

All arrays exist from the start, with "no answer" as fill value, so unwritten chunks have no answer,
and chunks without any answer are not stored. Writers of different chunks need no lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from tilepipe.errors import InputError
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import Placed
from tilepipe.products import ngff
from tilepipe.products.arrays import create_pyramid
from tilepipe.products.base import NO_ANSWER, MaskClass, MaskSpec, lazy
from tilepipe.products.layer import BROKEN, Arrays, Layer, open_levels
from tilepipe.products.probabilities import Probabilities
from tilepipe.products.product import Product, product_named, product_names
from tilepipe.products.shown import ShownMask
from tilepipe.storage import StoragePath, remove_partials
from tilepipe.storage.fsync import fsync_below
from tilepipe.storage.zarr_store import SealingStore, group_attributes, zarr_store
from tilepipe.text import first_line


class ZarrMask(ShownMask, Placed):
    """A mask in OME-Zarr (see `tilepipe.products.base.Mask`): the main product and others."""

    def __init__(
        self, path: StoragePath, spec: MaskSpec, layers: tuple[Layer, ...], *, ours: bool = True
    ) -> None:
        main = layers[0]
        self.path, self.spec, self.layers = path, spec, layers
        self.kind: str = spec.kind
        self.classes: tuple[MaskClass, ...] | None = spec.classes
        self.planes, self.dtype = spec.planes, spec.dtype
        self.grid, self.levels = spec.grid, main.levels
        self._ours = ours

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        return self.levels[0]

    @property
    def ours(self) -> bool:
        """Whether tilepipe wrote it."""
        return self._ours

    @property
    def extras(self) -> tuple[str, ...]:
        """The keys of the products beside the mask, for `create_mask`."""
        return tuple(layer.key for layer in self.layers[1:])

    @property
    def products(self) -> tuple[Product, ...]:
        """The product of each layer."""
        return tuple(la.product for la in self.layers if isinstance(la.product, Product))

    def layer(self, name: str) -> Layer:
        """The layer of a product; ValueError if the mask does not have it."""
        for layer in self.layers:
            if layer.product.name == name:
                return layer
        raise ValueError(f"{self.path} was made without {name}")

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """The pixels of a window: (H, W) for labels, otherwise (C, H, W)."""
        return self.layers[0].read(window, level)

    def read_plane(self, plane: int, window: Window, level: int = 0) -> NDArray[Any]:
        """One plane of a window, shape (H, W); labels have only plane 0."""
        return self.layers[0].read_plane(plane, window, level)

    def read_probabilities(self, window: Window, level: int = 0) -> NDArray[np.float32]:
        """The probabilities in a window, shape (C, H, W); NaN for no answer."""
        layer = self.layer("probabilities")
        assert isinstance(layer.product, Probabilities), "as its name says"
        return layer.product.decoded(layer.read(window, level))

    def write(self, window: Window, *stored: NDArray[Any], level: int = 0) -> None:
        """Write whole chunks of the mask, or of all layers, an array each; see `Layer.write`."""
        self._require_ours()
        if len(stored) not in (1, len(self.layers)):
            raise ValueError(f"{self.path} has {len(self.layers)} layers, not {len(stored)}")
        for layer, pixels in zip(self.layers, stored, strict=False):
            layer.write(window, pixels, level)

    def chunk_keys(self, window: Window | None = None, level: int = 0) -> Iterator[str]:
        """The chunks of a window (or a level), stored or not, as paths in the mask's folder.

        They come product by product, plane by plane and row by row.
        """
        window = window or Window(0, 0, *self.levels[level])
        for layer in self.layers:
            yield from layer.chunk_keys(window, level)

    def take_seals(self, window: Window, level: int = 0) -> str:
        """The seals of the chunks of a window that this object has just written.

        They are in the order of `chunk_keys`, separated by spaces, and computed from the bytes that
        were passed to the disk or object store, not read back (`tilepipe.storage.hashing.seal`).
        """
        return " ".join(layer.take_seals(window, level) for layer in self.layers)

    def stored_chunks(self, level: int = 0, plane: int = 0) -> set[tuple[int, int]]:
        """(row, column) of the stored chunks of a plane; others have no answer."""
        self._require_ours()
        return self.layers[0].stored_chunks(level, plane)

    def stored_bytes(self, window: Window | None = None, level: int = 0) -> int:
        """The size on disk of the chunks of a window (or a level), of all products, in bytes."""
        files = (file for layer in self.layers for file in layer.files(window, level))
        return sum(file.stat().st_size for file in files if file.exists())

    def flush(self, window: Window | None = None, level: int = 0) -> None:
        """Flush the chunks of a window (or a level), of all products, to the disk."""
        for layer in self.layers:
            layer.flush(window, level)

    def as_dask(self, level: int = 0) -> Any:
        """A level as a lazy dask array of shape (H, W) for labels, otherwise (C, H, W)."""
        return lazy(self, level, CHUNK)

    def remove_partials(self) -> int:
        """Remove the partial files of killed writers, when no writer runs, and return their number.

        A chunk is renamed when it is complete, so partial files have other names.
        """
        return remove_partials(self.path)

    def close(self) -> None:
        """Do nothing, because no file is kept open."""

    def _require_ours(self) -> None:
        if not self._ours:
            raise ValueError(f"{self.path} was not made by tilepipe, so its chunks are unknown")


def create_mask(path: StoragePath, spec: MaskSpec, extras: Sequence[str] = ()) -> ZarrMask:
    """Create an empty mask with all its metadata, and ``extras`` such as ``probabilities:uint8``.

    The attributes are written last, so an interrupted creation can be repeated. Other files in the
    folder are left alone. Raises InputError if there already is a mask or a file at ``path``.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; remove it or choose another output.")
    if group_attributes(path):
        raise InputError(f"{path} already exists; remove it or choose another output.")
    layers = _create(zarr_store(path), spec, extras)
    fsync_below(path)
    return ZarrMask(path, spec, tuple(Layer(path, product, arrays) for product, arrays in layers))


def metadata_documents(spec: MaskSpec, extras: Sequence[str] = ()) -> dict[str, bytes]:
    """Each file that `create_mask` writes, by its path in the mask's folder.

    These are the metadata of groups and arrays, and the chunks of coordinates.
    """
    documents: dict[str, Any] = {}
    _create(MemoryStore(documents), spec, extras)
    return {name: content.to_bytes() for name, content in sorted(documents.items())}


def _create(store: Any, spec: MaskSpec, extras: Sequence[str]) -> list[tuple[Product, Arrays]]:
    root = zarr.open_group(store, mode="a", zarr_format=spec.zarr_format)
    layers = [(spec.product, create_pyramid(store, "", spec, spec.product))]
    document = spec.to_json()
    for product in map(product_named, extras):
        group = zarr.open_group(store, path=product.name, mode="a", zarr_format=spec.zarr_format)
        layers.append((product, create_pyramid(store, f"{product.name}/", spec, product)))
        ome = ngff.product_attributes(spec, product)
        group.update_attributes({**ome, "tilepipe": product.attributes})
    document |= _document_of_extras(product.key for product, _ in layers[1:])
    root.update_attributes({**ngff.mask_attributes(spec), "tilepipe": document})
    return layers


def _document_of_extras(keys: Iterable[str]) -> dict[str, Any]:
    """The products beside a mask in its metadata."""
    document: dict[str, Any] = {}
    for key in keys:
        name, _, variant = key.partition(":")
        if name == "probabilities":  # as in masks from before there were others
            document["probabilities"] = variant
        else:
            document.setdefault("products", []).append(key)
    return document


def _extras_in(document: dict[str, Any]) -> list[str]:
    """The keys that `_document_of_extras` stored, of products that are installed."""
    variant = document.get("probabilities")
    others = [str(key) for key in document.get("products", [])]
    # Without the package that adds a product, the mask itself can still be read.
    others = [key for key in others if key.partition(":")[0] in product_names()]
    return [*([f"probabilities:{variant}"] if variant else []), *others]


def require_products(path: StoragePath, keys: Iterable[str]) -> None:
    """Refuse products of a mask that no installed package knows."""
    missing = [key for key in keys if key.partition(":")[0] not in product_names()]
    if missing:
        raise InputError(
            f"{path}: was made with {', '.join(missing)}, which no installed package adds; install "
            "the package that does"
        )


def open_zarr_mask(path: StoragePath) -> ZarrMask:
    """Open a mask in OME-Zarr, made by tilepipe or others; InputError if that is impossible."""
    if not path.exists():
        raise InputError(f"{path} does not exist; give the path of a mask.")
    if not path.is_dir():
        raise InputError(f"{path} is not a folder, as an OME-Zarr mask is; give that folder.")
    try:
        root = zarr.open_group(zarr_store(path, read_only=True), mode="r")
        document: Any = root.attrs.get("tilepipe")
        ours = document is not None
        spec, names = _ours(document) if ours else _theirs(root)
        store = SealingStore(zarr_store(path))
        layers = [Layer(path, spec.product, open_levels(store, names))]
        for product in map(product_named, _extras_in(document) if ours else ()):
            nested = [f"{product.name}/{name}" for name in names]
            layers.append(Layer(path, product, open_levels(store, nested)))
    except BROKEN as error:
        raise InputError(
            f"{path} cannot be opened as a mask ({first_line(error)}); give an OME-Zarr image of "
            "labels."
        ) from error
    return ZarrMask(path, spec, tuple(layers), ours=ours)


def _ours(document: dict[str, Any]) -> tuple[MaskSpec, list[str]]:
    spec = MaskSpec.from_json(document)
    return spec, list(spec.level_paths)


def _theirs(root: zarr.Group) -> tuple[MaskSpec, list[str]]:
    """The description of a mask by others: labels (y, x), or planes (c, y, x)."""
    attributes: Any = root.attrs.get("ome", dict(root.attrs))
    if "multiscales" not in attributes:
        raise ValueError("it has no multiscales metadata")
    multiscale = attributes["multiscales"][0]
    names = [str(dataset["path"]) for dataset in multiscale["datasets"]]
    first = root[names[0]]
    if not isinstance(first, zarr.Array):
        raise ValueError(f"{names[0]} is not an array")
    axes = "".join(str(axis["name"]) for axis in multiscale["axes"])
    if axes not in ("yx", "cyx"):
        raise ValueError(f"its axes are {axes}, not yx or cyx")
    if first.dtype not in (np.dtype("uint8"), np.dtype("float32")):
        raise ValueError(f"its pixels are {first.dtype}, not uint8 or float32")
    if axes == "yx" and first.dtype == np.float32:
        raise ValueError("its pixels are float32, so they are not labels")
    kind = "labels"
    if axes == "cyx":
        kind = "values" if first.dtype == np.float32 else "planes"
    pixel_size, origin = ngff.read_pixel_size(multiscale)
    classes = _their_classes(attributes, 2 if kind == "labels" else int(first.shape[0]))
    height, width = int(first.shape[-2]), int(first.shape[-1])
    name = str(multiscale.get("name", "mask"))
    return MaskSpec(height, width, kind, classes, pixel_size, None, None, origin, name), names


def _their_classes(attributes: Any, least: int) -> tuple[MaskClass, ...]:
    label = attributes.get("image-label", {})
    names = {
        int(p["label-value"]): str(p.get("name", p["label-value"]))
        for p in label.get("properties", [])
    }
    colours = {
        int(c["label-value"]): "#{:02x}{:02x}{:02x}".format(*c["rgba"][:3])
        for c in label.get("colors", [])
        if c.get("rgba")
    }
    known = [value for value in (*names, *colours) if 0 <= value < NO_ANSWER]
    count = max([least, *(value + 1 for value in known)])
    return tuple(
        MaskClass(names.get(value, str(value)), colours.get(value, "#808080"))
        for value in range(count)
    )
