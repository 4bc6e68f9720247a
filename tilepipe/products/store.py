"""The mask as it is computed: an OME-Zarr 0.5 pyramid, written by whole chunks.

Every array is there from the start, and its fill value is "no answer", so what has not been
written reads as such. A chunk that holds nothing else is not stored. Writers of different chunks
need no lock, in one process or in many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from tilepipe.errors import DamagedMaskError, InputError
from tilepipe.grid import CHUNK, Window
from tilepipe.images.base import Placed
from tilepipe.products import ngff
from tilepipe.products.base import (
    NO_ANSWER,
    Kind,
    MaskClass,
    MaskSpec,
    lazy,
    require_inside,
)
from tilepipe.schema import load_json
from tilepipe.storage import StoragePath, remove_partials
from tilepipe.storage.fsync import fsync_files
from tilepipe.storage.zarr_store import SealingStore, zarr_store
from tilepipe.text import first_line

Precision = Literal["float16", "uint8"]
"""How probabilities are stored: as they are, or times 254 and rounded, with 255 for no answer."""

UINT8_TOP = NO_ANSWER - 1
"""The uint8 that stands for a probability of 1."""

_Arrays = tuple["zarr.Array[Any]", ...]


class ZarrMask(Placed):
    """A mask in OME-Zarr; see `tilepipe.products.base.Mask` for what reading offers."""

    def __init__(
        self,
        path: StoragePath,
        spec: MaskSpec,
        arrays: _Arrays,
        probability_arrays: _Arrays = (),
        *,
        ours: bool = True,
    ) -> None:
        self.path = path
        self.spec = spec
        self.kind: Kind = spec.kind
        self.classes: tuple[MaskClass, ...] | None = spec.classes
        self.planes = spec.planes
        self.dtype = spec.dtype
        self.grid = spec.grid
        self.levels: tuple[tuple[int, int], ...] = tuple(
            (int(a.shape[-2]), int(a.shape[-1])) for a in arrays
        )
        self._arrays = arrays
        self._probability_arrays = probability_arrays
        self._ours = ours

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        return self.levels[0]

    @property
    def probabilities(self) -> Precision | None:
        """How probabilities are stored; None when they are not."""
        if not self._probability_arrays:
            return None
        return "float16" if self._probability_arrays[0].dtype == np.float16 else "uint8"

    def read(self, window: Window, level: int = 0) -> NDArray[Any]:
        """The pixels of a window inside the mask: (H, W) of labels, otherwise (C, H, W)."""
        return self._read(self._arrays, window, level)

    def read_plane(self, plane: int, window: Window, level: int = 0) -> NDArray[Any]:
        """One plane of a window inside the mask, shape (H, W); labels have plane 0 only."""
        require_inside(window, self.levels[level])
        array = self._arrays[level]
        sides = _sides(window)
        return self._decoded(array, sides if array.ndim == 2 else (plane, *sides))

    def read_probabilities(self, window: Window, level: int = 0) -> NDArray[np.float32]:
        """Probabilities of a window, shape (C, H, W); NaN where there is no answer."""
        stored = self.read_stored_probabilities(window, level)
        if stored.dtype == np.float16:
            return stored.astype(np.float32)
        scaled = stored.astype(np.float32) / np.float32(UINT8_TOP)
        return np.where(stored == NO_ANSWER, np.float32(np.nan), scaled)

    def read_stored_probabilities(self, window: Window, level: int = 0) -> NDArray[Any]:
        """Probabilities of a window as they are stored, shape (C, H, W), float16 or uint8."""
        return self._read(self._require_probabilities(), window, level)

    def write(self, window: Window, labels: NDArray[Any], level: int = 0) -> None:
        """Write whole chunks: (H, W) of labels, otherwise (C, H, W).

        Parameters
        ----------
        window : Window
            Starts and ends on chunk boundaries, or ends at the mask's edge.
        labels : ndarray
            Of the mask's dtype; the same shape as the window, planes first.
        level : int
            Of the pyramid; the levels below it are for `tilepipe.products.pyramid`.

        Raises
        ------
        ValueError
            When the window cuts a chunk, or the array does not fit it.
        OSError
            As the file system raises it, for one when the disk is full.
        """
        if labels.dtype != self.dtype:
            raise ValueError(f"the mask holds {self.dtype}, not {labels.dtype}")
        if self.kind == "values":
            # One bit pattern for all NaN, so that equal masks are equal bytes.
            labels = np.where(np.isnan(labels), np.float32(np.nan), labels)
        self._write(self._arrays, window, labels, level)

    def write_probabilities(
        self, window: Window, probabilities: NDArray[np.floating[Any]], level: int = 0
    ) -> None:
        """Write whole chunks of probabilities, shape (C, H, W), 0 .. 1, NaN for no answer."""
        arrays = self._require_probabilities()
        self._write(arrays, window, _stored(probabilities, arrays[0].dtype), level)

    def write_stored_probabilities(
        self, window: Window, stored: NDArray[Any], level: int = 0
    ) -> None:
        """Write whole chunks of what `read_stored_probabilities` gives."""
        self._write(self._require_probabilities(), window, stored, level)

    def chunk_keys(self, window: Window | None = None, level: int = 0) -> Iterator[str]:
        """The chunks of a window (or a level), there or not, as paths from the mask's folder on.

        Plane by plane and row by row; after them, in the same order, those of probabilities.
        """
        window = window or Window(0, 0, *self.levels[level])
        for arrays in (self._arrays, self._probability_arrays):
            if arrays:
                yield from _chunk_keys(arrays[level], window)

    def take_seals(self, window: Window, level: int = 0) -> str:
        """The seals of the chunks of a window, which this object has just written.

        In the order of `chunk_keys`, with spaces between; see `tilepipe.storage.hashing.seal`. They
        are made of the bytes that were handed to the disk or object store, not read back.
        """
        store = self._arrays[0].store
        if not isinstance(store, SealingStore):
            raise ValueError(f"{self.path} was not opened by open_zarr_mask")
        return store.take_seals(self.chunk_keys(window, level))

    def stored_chunks(self, level: int = 0, plane: int = 0) -> set[tuple[int, int]]:
        """(row, column) of the chunks of a plane that are stored; all others have no answer."""
        self._require_ours()
        folder = self.path / self._arrays[level].path / "c"
        if self._arrays[level].ndim > 2:
            folder = folder / str(plane)
        return set(_numbered(folder))

    def stored_bytes(self, window: Window | None = None, level: int = 0) -> int:
        """Bytes of the chunks of a window (or a level) on a disk, probabilities too."""
        return sum(f.stat().st_size for f in self._files(window, level) if f.exists())

    def flush(self, window: Window | None = None, level: int = 0) -> None:
        """Return when the chunks of a window (or a level) are on the disk, probabilities too."""
        if isinstance(self.path, Path):  # an object is kept for good when its writing returns
            fsync_files(self._files(window, level), self.path)

    def as_dask(self, level: int = 0) -> Any:
        """The level as a lazy dask array of shape (H, W) for labels, otherwise (C, H, W)."""
        return lazy(self, level, CHUNK)

    def remove_partials(self) -> int:
        """Remove what killed writers left half-written, and say how many files that was.

        To be called when no writer runs. A chunk is written beside its place and then renamed,
        so what bears its name is whole.
        """
        return remove_partials(self.path)

    def close(self) -> None:
        """Nothing is held open."""

    def _require_ours(self) -> None:
        if not self._ours:
            raise ValueError(f"{self.path} was not made by tilepipe: its chunks may be any")

    def _require_probabilities(self) -> _Arrays:
        if not self._probability_arrays:
            raise ValueError(f"{self.path} was made without probabilities")
        return self._probability_arrays

    def _files(self, window: Window | None, level: int) -> Iterator[Path]:
        """The chunk files of a window, there or not, or those of a level that are there.

        On an object store none.
        """
        if not isinstance(self.path, Path):
            return
        if window is not None:
            yield from (self.path / key for key in self.chunk_keys(window, level))
            return
        for arrays in (self._arrays, self._probability_arrays):
            if arrays:
                yield from _stored_files(self.path, arrays[level])

    def _read(self, arrays: _Arrays, window: Window, level: int) -> NDArray[Any]:
        require_inside(window, self.levels[level])
        return self._decoded(arrays[level], _selection(arrays[level], window))

    def _decoded(self, array: zarr.Array[Any], selection: tuple[int | slice, ...]) -> NDArray[Any]:
        try:
            return np.asarray(array[selection])
        except (RuntimeError, ValueError) as error:
            # What the codecs raise for a chunk that is torn.
            raise DamagedMaskError(
                f"{self.path} is damaged ({first_line(error)}); write it again."
            ) from error

    def _write(self, arrays: _Arrays, window: Window, data: NDArray[Any], level: int) -> None:
        self._require_ours()
        _require_whole_chunks(window, self.levels[level])
        array = arrays[level]
        expected = (*array.shape[:-2], *window.shape)
        if data.shape != expected:
            raise ValueError(f"{window} takes an array of shape {expected}, not {data.shape}")
        array[_selection(array, window)] = data


def create_mask(
    path: StoragePath, spec: MaskSpec, probabilities: Precision | None = None
) -> ZarrMask:
    """Create an empty mask: all metadata, not one chunk.

    Its attributes are written last: a folder in which creation was interrupted is taken up again,
    and other files in it are left alone.

    Parameters
    ----------
    path : Path
        A folder that may exist, but holds no zarr data.
    spec : MaskSpec
        What is to be written.
    probabilities : {"float16", "uint8"}, optional
        Keep them too, one plane for each class, in the nested image ``probabilities``.

    Raises
    ------
    InputError
        When there already is something at ``path``.
    """
    if probabilities is not None and spec.kind == "values":
        raise ValueError("a mask of values has no probabilities")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; remove it or choose another output.")
    if (path / "zarr.json").exists() and _attributes(path):
        raise InputError(f"{path} already exists; remove it or choose another output.")
    store = zarr_store(path)
    arrays, probability_arrays = _create(store, spec, probabilities)
    if isinstance(path, Path):
        fsync_files(path.rglob("zarr.json"), path)
    return ZarrMask(path, spec, arrays, probability_arrays)


def metadata_documents(spec: MaskSpec, probabilities: Precision | None = None) -> dict[str, bytes]:
    """What `create_mask` writes: each ``zarr.json``, by its path from the mask's folder on."""
    documents: dict[str, Any] = {}
    _create(MemoryStore(documents), spec, probabilities)
    return {name: content.to_bytes() for name, content in sorted(documents.items())}


def _create(store: Any, spec: MaskSpec, probabilities: Precision | None) -> tuple[_Arrays, _Arrays]:
    root = zarr.open_group(store, mode="a", zarr_format=3)
    names = ("y", "x") if spec.kind == "labels" else ("c", "y", "x")
    arrays = _create_levels(store, "", spec, spec.dtype, spec.fill, names)
    attributes: dict[str, Any] = {"ome": ngff.mask_attributes(spec), "tilepipe": spec.to_json()}
    probability_arrays: _Arrays = ()
    if probabilities is not None:
        group = zarr.open_group(store, path="probabilities", mode="a", zarr_format=3)
        dtype = np.dtype(probabilities)
        top = 1.0 if probabilities == "float16" else float(UINT8_TOP)
        fill = float("nan") if probabilities == "float16" else NO_ANSWER
        probability_arrays = _create_levels(
            store, "probabilities/", spec, dtype, fill, ("c", "y", "x")
        )
        scaling = {"scale": 1 / top, "no_answer": "NaN" if np.isnan(fill) else fill}
        ome = ngff.probability_attributes(spec, top)
        group.update_attributes({"ome": ome, "tilepipe": {"probability": scaling}})
        attributes["tilepipe"]["probabilities"] = probabilities
    root.update_attributes(attributes)
    return arrays, probability_arrays


def open_zarr_mask(path: StoragePath) -> ZarrMask:
    """Open a mask in OME-Zarr, ours or one whose form is understood.

    Raises
    ------
    InputError
        When there is none at ``path``, or none that is understood.
    """
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
        arrays = _open_levels(store, names)
        probability_arrays: _Arrays = ()
        if ours and document.get("probabilities"):
            probability_arrays = _open_levels(store, [f"probabilities/{name}" for name in names])
    except (
        ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError
    ) as error:  # fmt: skip
        raise InputError(
            f"{path} is no mask that can be opened ({first_line(error)});"
            " give an OME-Zarr image of labels."
        ) from error
    return ZarrMask(path, spec, arrays, probability_arrays, ours=ours)


def _create_levels(
    store: Any,
    prefix: str,
    spec: MaskSpec,
    dtype: np.dtype[Any],
    fill: float,
    names: tuple[str, ...],
) -> _Arrays:
    planes = () if len(names) == 2 else (len(spec.classes),)
    return tuple(
        zarr.create_array(
            store,
            name=f"{prefix}{number}",
            shape=(*planes, *shape),
            chunks=(*(1 for _ in planes), CHUNK, CHUNK),
            dtype=dtype,
            fill_value=fill,
            # With a checksum, so that a damaged chunk is an error and never other labels.
            compressors=[ZstdCodec(level=3, checksum=True)],
            dimension_names=names,
            zarr_format=3,
            overwrite=True,
            config={"write_empty_chunks": False},
        )
        for number, shape in enumerate(spec.levels)
    )


def _open_levels(store: SealingStore, names: list[str]) -> _Arrays:
    return tuple(zarr.open_array(store, path=name, mode="r+") for name in names)


def _ours(document: dict[str, Any]) -> tuple[MaskSpec, list[str]]:
    spec = MaskSpec.from_json(document)
    return spec, [str(level) for level in range(len(spec.levels))]


def _theirs(root: zarr.Group) -> tuple[MaskSpec, list[str]]:
    """A mask of another's making: labels of (y, x), or planes of (c, y, x)."""
    attributes: Any = root.attrs.get("ome", dict(root.attrs))
    if "multiscales" not in attributes:
        raise ValueError("it has no multiscales metadata")
    multiscale = attributes["multiscales"][0]
    names = [str(dataset["path"]) for dataset in multiscale["datasets"]]
    first = root[names[0]]
    if not isinstance(first, zarr.Array):
        raise ValueError(f"{names[0]} is no array")
    axes = "".join(str(axis["name"]) for axis in multiscale["axes"])
    if axes not in ("yx", "cyx"):
        raise ValueError(f"its axes are {axes}, not yx or cyx")
    if first.dtype not in (np.dtype("uint8"), np.dtype("float32")):
        raise ValueError(f"its pixels are {first.dtype}, not uint8 or float32")
    if axes == "yx" and first.dtype == np.float32:
        raise ValueError("its pixels are float32, so they are no labels")
    kind: Kind = "labels"
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


def _attributes(path: StoragePath) -> dict[str, Any]:
    document = load_json((path / "zarr.json").read_text(encoding="utf-8"))
    attributes: dict[str, Any] = document.get("attributes", {})
    return attributes


def _chunk_keys(array: zarr.Array[Any], window: Window) -> Iterator[str]:
    """Where the chunks that a window touches lie in the array's store."""
    planes = [""] if array.ndim == 2 else [f"{plane}/" for plane in range(array.shape[0])]
    for plane in planes:
        for row in range(window.y // CHUNK, -(-window.stop_y // CHUNK)):
            for column in range(window.x // CHUNK, -(-window.stop_x // CHUNK)):
                yield f"{array.path}/c/{plane}{row}/{column}"


def _stored_files(mask: Path, array: zarr.Array[Any]) -> Iterator[Path]:
    """The files of the chunks that are there, however many there could be."""
    folder = mask / array.path / "c"
    planes = [""] if array.ndim == 2 else [str(plane) for plane in range(array.shape[0])]
    for plane in planes:
        for row, column in sorted(_numbered(folder / plane)):
            yield folder / plane / str(row) / str(column)


def _numbered(folder: StoragePath) -> Iterator[tuple[int, int]]:
    """What lies in a folder of chunks under names that are numbers: (row, column)."""
    if isinstance(folder, Path):
        if not folder.is_dir():
            return
        names = (
            (row.name, column.name)
            for row in os.scandir(folder)
            if row.name.isdecimal() and row.is_dir()
            for column in os.scandir(row)
        )
    else:
        names = ((chunk.parent.name, chunk.name) for chunk in folder.objects())
    yield from ((int(r), int(c)) for r, c in names if r.isdecimal() and c.isdecimal())


def _selection(array: zarr.Array[Any], window: Window) -> tuple[slice, ...]:
    return _sides(window) if array.ndim == 2 else (slice(None), *_sides(window))


def _sides(window: Window) -> tuple[slice, slice]:
    return slice(window.y, window.stop_y), slice(window.x, window.stop_x)


def _require_whole_chunks(window: Window, shape: tuple[int, int]) -> None:
    require_inside(window, shape)
    starts = window.y % CHUNK == 0 and window.x % CHUNK == 0
    stops = all(
        stop % CHUNK == 0 or stop == size
        for stop, size in zip((window.stop_y, window.stop_x), shape, strict=True)
    )
    if not (starts and stops):
        raise ValueError(f"{window} cuts through chunks of {CHUNK} x {CHUNK} pixels")


def _stored(probabilities: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    missing = np.isnan(probabilities)
    if dtype == np.float16:
        return np.where(missing, np.float16(np.nan), probabilities.astype(np.float16))
    scaled = np.where(missing, np.float32(0), np.clip(probabilities, 0, 1)) * np.float32(UINT8_TOP)
    return np.where(missing, np.uint8(NO_ANSWER), np.rint(scaled).astype(np.uint8))
