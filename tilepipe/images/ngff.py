"""OME-Zarr 0.1 to 0.5 (https://ngff.openmicroscopy.org), read with zarr-python."""

from __future__ import annotations

import binascii
import lzma
import math
import zlib
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import zarr
import zarr.errors
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.bands import narrowed
from tilepipe.images.base import Level, PixelSize, RasterGrid, Series, Transform, show_pixel_size
from tilepipe.images.bombs import GuardedStore
from tilepipe.images.control import GroundControl
from tilepipe.images.fingerprints import SAMPLES, fingerprint_files
from tilepipe.images.levels import whole_scale
from tilepipe.images.ngff_layout import Entry, below, entries_of
from tilepipe.images.probe import Probe
from tilepipe.images.scaling import Scaling, scaling_of
from tilepipe.images.series import choose
from tilepipe.images.source import LARGEST_SIDE, Description, UndecodableError
from tilepipe.images.units import unit_name
from tilepipe.storage import StoragePath
from tilepipe.storage.zarr_store import zarr_store

ATTRIBUTE = "tilepipe"
"""Key of the group's attributes that holds what NGFF has no place for: the georeference."""

BAND_NAMES = "bands"
"""Key of what that holds of the bands' names: OMERO's are for channels with colours only."""

DISPLAY_LABELS = ("R", "G", "B")
"""Labels of three bands that nobody named, which say how they are shown, not what they are."""

VALID = "valid"
"""Folder in the image of a level's validity, where that is more than what pixels tell."""

BROKEN_CHUNK = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    binascii.Error,
    lzma.LZMAError,
    zlib.error,
    zarr.errors.BaseZarrError,
)
"""What zarr and its codecs raise on chunks that are damaged."""

DOCUMENTS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
"""Metadata of zarr 3 and 2."""

LARGEST_EXTRA = 64 * 2**20
"""Bytes that a chunk may hold beyond the pixels of its rows and columns."""

CHUNK_SAMPLES = 4
"""Places looked at in each chunk file, for the fingerprint."""


AXES_BEFORE_0_3 = ("t", "c", "z", "y", "x")
"""Of all images of 0.1 and 0.2, which do not name them."""

SCALE_SLACK = 0.02
"""How much more a level may be reduced than its scale says, beyond rounding of its size."""


def recognises(probe: Probe) -> bool:
    """Tell whether it is a folder; one without an OME-Zarr image is refused when it is opened."""
    return probe.is_folder


def open_source(probe: Probe) -> NgffSource:
    """Open an image of an OME-Zarr folder: the main one, unless another is chosen.

    The folder is that of an image, of several (bioformats2raw), of a well or a plate. An image of a
    plate is named ``ROW/COLUMN/FIELD``, one of a well by its field.

    Raises
    ------
    InputError
        The folder is not an OME-Zarr image, or not of one plane; or none of several is chosen.
    """
    path, series = probe.path, probe.series
    try:
        wanted = series.strip("/") if isinstance(series, str) else series
        entries = entries_of(path, probe.place, wanted)
        listed = tuple(_series(entry) for entry in entries)
        number = choose(path, listed, wanted).number
        entry = next(entry for entry in entries if entry.number == number)
        return NgffSource(path, entry, listed)
    except (*BROKEN_CHUNK, ArithmeticError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path} cannot be read as OME-Zarr ({error!r}); if other programs cannot open it "
            "either, copy it again from where it came"
        ) from error


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where rows, columns and bands lie among the axes of an array."""

    y: int
    x: int
    band: int | None
    count: int
    bands: tuple[int, ...] | None = None
    """Those that are read; None: all."""

    @classmethod
    def of(cls, names: list[str]) -> _Axes:
        band = names.index("c") if "c" in names else None
        return cls(names.index("y"), names.index("x"), band, len(names))

    def band_count(self, shape: tuple[int, ...]) -> int:
        return 1 if self.band is None else shape[self.band]

    def size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return shape[self.y], shape[self.x]

    def read(self, array: zarr.Array[Any], window: Window) -> NDArray[Any]:
        """Pixels of a window, shape (height, width, bands): a view, whatever the order of axes."""
        # Every other axis has one entry, and so vanishes.
        index: list[Any] = [0] * self.count
        index[self.y], index[self.x] = window.slices()
        kept = [self.y, self.x]
        if self.band is not None:
            index[self.band] = (
                slice(None) if self.bands is None else slice(min(self.bands), max(self.bands) + 1)
            )
            kept.append(self.band)
        pixels = np.asarray(array[tuple(index)])
        order = [sorted(kept).index(axis) for axis in kept]
        pixels = pixels.transpose(order)
        if self.band is None:
            pixels = pixels.reshape(*window.shape, -1)
        if self.bands is None:
            return pixels
        first = 0 if self.band is None else min(self.bands)
        return pixels[..., [band - first for band in self.bands]]


class NgffSource:
    """The levels of a multiscale image as zarr arrays."""

    def __init__(self, path: str, entry: Entry, listed: tuple[Series, ...]) -> None:
        multiscale, folder = entry.multiscale, entry.folder
        self._folder = folder
        paths = [dataset["path"] for dataset in multiscale["datasets"]]
        self._arrays = [_array(below(folder, name)) for name in paths]
        self._names = paths
        names = _axis_names(path, multiscale, self._arrays[0])
        _check_planes(path, names, self._arrays[0])
        self._axes = _Axes.of(names)
        own = entry.attributes.get(ATTRIBUTE, {})
        self._valid = (
            [_array(folder / VALID / str(level)) for level in range(len(paths))]
            if own.get(VALID)
            else []
        )
        dtype = self._arrays[0].dtype.newbyteorder("=")
        _check(path, self._arrays, dtype)
        _check_sides(path, self._arrays, self._axes)
        scales = [_scale(multiscale, level, len(names)) for level in range(len(paths))]
        levels = tuple(
            self._level(array, scales[level], scales[0]) for level, array in enumerate(self._arrays)
        )
        grid, doubt = _grid(levels[0], multiscale, self._axes, scales[0], own)
        bands = self._axes.band_count(self._arrays[0].shape)
        # In xarray's words (the CF conventions), where the image is not of our own making.
        packed = dict(self._arrays[0].attrs)
        nodata = own.get("nodata") or _packed_nodata(packed, bands)
        self.description = Description(
            path=path,
            kind="OME-Zarr",
            levels=levels,
            bands=bands,
            dtype=np.dtype(np.uint8) if dtype == np.bool_ else dtype,
            chunks=tuple(self._axes.size(array.chunks) for array in self._arrays),
            grid=grid,
            pixel_size_doubt=doubt,
            scaling=_scaling(own.get("scaling"), bands) or _packed_scaling(packed, bands),
            nodata=() if nodata is None else tuple(None if n is None else float(n) for n in nodata),
            masked=bool(self._valid),
            band_names=_band_names(entry.attributes),
            series=listed,
            series_number=entry.number,
            notes=self._notes(scales),
        )

    def read(self, window: Window, level: int) -> NDArray[Any]:
        """As `Source.read`. A chunk that is missing reads as the fill value, as zarr has it."""
        try:
            pixels = self._axes.read(self._arrays[level], window)
        except BROKEN_CHUNK as error:
            raise UndecodableError(
                f"a chunk of {self._names[level]} is broken ({error})"
            ) from error
        dtype = self.description.dtype
        return pixels.astype(dtype, copy=False)

    def read_masked(self, window: Window, level: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `Source.read_masked`."""
        pixels = self.read(window, level)
        try:
            valid = np.asarray(self._valid[level][window.slices()])
        except BROKEN_CHUNK as error:
            raise UndecodableError(f"a chunk of {VALID}/{level} is broken ({error})") from error
        return pixels, valid != 0

    def select(self, bands: Sequence[int]) -> NgffSource:
        """As `Source.select`. All between the first and the last of them are decoded."""
        selected = copy(self)
        selected._axes = replace(self._axes, bands=tuple(bands))
        selected.description = narrowed(self.description, bands)
        return selected

    def fingerprint(self) -> str:
        """As `Image.fingerprint`: metadata, and samples of the chunks of level 0."""
        folders = [self._folder, *(self._folder / name for name in self._names)]
        documents = (folder / name for folder in folders for name in DOCUMENTS)
        texts = [document.read_bytes() for document in documents if document.is_file()]
        array, folder = self._arrays[0], self._folder / self._names[0]
        return fingerprint_files(
            [folder / key for key in _sampled_chunks(array)], texts, CHUNK_SAMPLES
        )

    def close(self) -> None:
        """Nothing to release: zarr opens a file for each read."""

    def _level(
        self, array: zarr.Array[Any], scale: list[float] | None, full: list[float] | None
    ) -> Level:
        size, whole = self._axes.size(array.shape), self._axes.size(self._arrays[0].shape)
        reduced = [whole_scale(all_, part) for all_, part in zip(whole, size, strict=True)]
        if scale is not None and full is not None:
            stated = [scale[axis] / full[axis] for axis in (self._axes.y, self._axes.x)]
            if all(map(_fits, stated, whole, size)):
                reduced = stated
        return Level(*size, *reduced)

    def _notes(self, scales: list[list[float] | None]) -> tuple[str, ...]:
        """What the scales of its levels say that their sizes contradict."""
        whole = self._axes.size(self._arrays[0].shape)
        for level, array in enumerate(self._arrays):
            scale, full = scales[level], scales[0]
            if scale is None or full is None:
                continue
            stated = [scale[axis] / full[axis] for axis in (self._axes.y, self._axes.x)]
            if not all(map(_fits, stated, whole, self._axes.size(array.shape))):
                return (
                    f"its metadata state that level {level} is {stated[1]:g} x {stated[0]:g} times "
                    "as coarse as level 0 (width x height), which its size contradicts; the size "
                    "is used",
                )
        return ()


def _fits(stated: float, full: int, part: int) -> bool:
    """Whether a level of ``part`` rows may be reduced by ``stated``, with sizes rounded."""
    low, high = full / (part + 2), full / max(part - 2, 0.5)
    return low / (1 + SCALE_SLACK) <= stated <= high * (1 + SCALE_SLACK)


def _grid(
    level: Level,
    multiscale: dict[str, Any],
    axes: _Axes,
    scale: list[float] | None,
    own: dict[str, Any],
) -> tuple[RasterGrid, str | None]:
    """The grid of level 0, and why its pixel size is in doubt."""
    size, doubt = _pixel_size(multiscale, axes, scale, own)
    control = GroundControl.from_json(own["control"]) if own.get("control") else None
    transform = _transform(own.get("transform"))
    return RasterGrid(level.height, level.width, size, own.get("crs"), transform, control), doubt


def _pixel_size(
    multiscale: dict[str, Any], axes: _Axes, scale: list[float] | None, own: dict[str, Any]
) -> tuple[PixelSize | None, str | None]:
    """The pixel size, and why it is in doubt where the metadata make no sense."""
    if scale is None:
        return None, None
    described = multiscale.get("axes") or [{}] * axes.count
    units = [
        described[axis].get("unit") if isinstance(described[axis], dict) else None
        for axis in (axes.y, axes.x)
    ]
    if own.get("unit"):
        units = [own["unit"]] * 2
    units = [unit_name(unit) if isinstance(unit, str) else None for unit in units]
    if units[0] != units[1]:
        return None, f"its axes are in {units[0] or 'no unit'} and {units[1] or 'no unit'}"
    if not units[0]:
        return None, None
    size = PixelSize(scale[axes.y], scale[axes.x], units[0])
    return (size, None) if size.is_sound else (None, f"its axes say {show_pixel_size(size)}")


def _series(entry: Entry) -> Series:
    """What there is to choose; an image that cannot be read has no pixels."""
    try:
        array = _array(below(entry.folder, entry.multiscale["datasets"][0]["path"]))
        names = _axis_names(entry.name, entry.multiscale, array)
        axes = _Axes.of(names)
        scale = _scale(entry.multiscale, 0, len(names))
        own = entry.attributes.get(ATTRIBUTE, {})
        size, _ = _pixel_size(entry.multiscale, axes, scale, own)
        dtype = "uint8" if array.dtype == np.bool_ else array.dtype.name
        bands = axes.band_count(array.shape)
        return Series(entry.number, entry.name, *axes.size(array.shape), bands, dtype, size)
    except (*BROKEN_CHUNK, ArithmeticError, AttributeError, IndexError, InputError):
        return Series(entry.number, entry.name, 0, 0, 0, "unreadable")


def unnamed(number: int) -> str:
    """What a band without a name, counted from 0, is called in viewers."""
    return f"band {number + 1}"


def _band_names(attributes: dict[str, Any]) -> tuple[str, ...]:
    """As tilepipe writes them, or the labels of channels in OMERO's rendering settings."""
    if own := attributes.get(ATTRIBUTE, {}).get(BAND_NAMES):
        return tuple(str(name) for name in own)
    ome = attributes.get("ome", attributes)
    try:
        labels = tuple(str(channel["label"]) for channel in ome["omero"]["channels"])
    except (KeyError, TypeError):
        return ()
    placeholders = tuple(map(unnamed, range(len(labels))))
    return () if labels in (DISPLAY_LABELS, placeholders) else labels


def _array(folder: StoragePath) -> zarr.Array[Any]:
    return GuardedStore.open_array(zarr_store(folder, read_only=True))


def _axis_names(path: str, multiscale: dict[str, Any], array: zarr.Array[Any]) -> list[str]:
    """Names of the axes: objects since 0.4, texts in 0.3, and fixed before."""
    given = multiscale.get("axes")
    if given is None and str(multiscale.get("version") or "0.1") in {"0.1", "0.2"}:
        given = AXES_BEFORE_0_3 if array.ndim == len(AXES_BEFORE_0_3) else ()
    names = [str(axis["name"] if isinstance(axis, dict) else axis).lower() for axis in given or ()]
    if len(names) != array.ndim or not {"y", "x"} <= set(names):
        said = f"axes {', '.join(names)}" if names else "it does not name its axes"
        raise InputError(
            f"{path} is not an image of rows and columns ({said}; its array has {array.ndim})"
        )
    return names


def _check_planes(path: str, names: list[str], array: zarr.Array[Any]) -> None:
    for name, size in zip(names, array.shape, strict=True):
        if name not in {"y", "x", "c"} and size > 1:
            raise InputError(
                f"{path} has {size} planes along axis {name}, and tilepipe reads one: save the "
                "plane you want as an image of its own"
            )


def _check(path: str, arrays: list[zarr.Array[Any]], dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "buif":
        raise InputError(
            f"{path} holds {dtype} numbers, which tilepipe does not read: save it with integer or "
            "floating-point ones"
        )
    if any(array.dtype != arrays[0].dtype for array in arrays):
        raise InputError(f"{path} has levels of different types; write its pyramid again")
    if any(array.ndim != arrays[0].ndim for array in arrays):
        raise InputError(f"{path} has levels of different axes; write its pyramid again")


def _check_sides(path: str, arrays: list[zarr.Array[Any]], axes: _Axes) -> None:
    """Refuse levels of no pixels or other bands, and chunks that hold more than pixels."""
    for array in arrays:
        if not all(0 < side <= LARGEST_SIDE for side in (*array.shape, *_stored(array))):
            raise InputError(
                f"{path} is a broken OME-Zarr image: a level of {array.shape} in chunks of "
                f"{_stored(array)}; write it again"
            )
        if axes.band is not None and array.shape[axes.band] != arrays[0].shape[axes.band]:
            raise InputError(f"{path} has levels of different bands; write its pyramid again")
        rows, columns = axes.size(array.chunks)
        bands = axes.band_count(array.shape)
        # What is said of a level's chunks is their rows and columns: the rest must be small.
        decoded = math.prod(array.chunks)
        index = 2 * math.prod(_stored(array)) // decoded
        for what, values in (("chunks", decoded), ("index of a shard", index)):
            if values * 8 > LARGEST_EXTRA and values > rows * columns * bands:
                raise InputError(
                    f"{path} cannot be read in pieces: its {what} would hold {values:,} values "
                    f"where the image has {bands} bands; write it again in smaller chunks"
                )


def _stored(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Sides of what is one file: a chunk, or a shard."""
    return array.shards or array.chunks


def _scale(multiscale: dict[str, Any], level: int, axes: int) -> list[float] | None:
    """Scale of a level along each axis: of its dataset, times that of the whole; None if unsaid."""
    scale, said = [1.0] * axes, False
    for transformation in (
        *multiscale["datasets"][level].get("coordinateTransformations", ()),
        *multiscale.get("coordinateTransformations", ()),
    ):
        if transformation.get("type") == "scale":
            scale = [a * b for a, b in zip(scale, transformation["scale"], strict=True)]
            said = True
    return scale if said else None


def _scaling(pairs: list[list[float]] | None, bands: int) -> Scaling:
    if not pairs:
        return ()
    if len(pairs) != bands:
        raise ValueError(f"scale and offset of {len(pairs)} bands, where there are {bands}")
    return tuple((float(scale), float(offset)) for scale, offset in pairs)


def _packed_scaling(attributes: dict[str, Any], bands: int) -> Scaling:
    scale, offset = attributes.get("scale_factor", 1.0), attributes.get("add_offset", 0.0)
    return scaling_of((float(scale),) * bands, (float(offset),) * bands)


def _packed_nodata(attributes: dict[str, Any], bands: int) -> list[float] | None:
    value = attributes.get("_FillValue", attributes.get("missing_value"))
    # Zarr 3 has it encoded as text, which is zarr's own business.
    return [float(value)] * bands if isinstance(value, int | float) else None


def _transform(values: list[float] | None) -> Transform | None:
    if values is None:
        return None
    a, b, c, d, e, f = (float(value) for value in values)
    return a, b, c, d, e, f


def _sampled_chunks(array: zarr.Array[Any]) -> Iterator[str]:
    """File names of evenly spaced chunks, or of shards where chunks lie in them."""
    stored = _stored(array)
    grid = [-(-size // chunk) for size, chunk in zip(array.shape, stored, strict=True)]
    total = math.prod(grid)
    if total <= SAMPLES:
        places = list(product(*(range(count) for count in grid)))
    else:
        numbers = [total * i // SAMPLES for i in range(SAMPLES)]
        places = [_place(n, grid) for n in numbers]
    return (array.metadata.encode_chunk_key(place) for place in places)


def _place(number: int, grid: list[int]) -> tuple[int, ...]:
    """Indices of a chunk by its number; numpy has this for numbers of up to 64 bits."""
    place = []
    for count in reversed(grid):
        number, index = divmod(number, count)
        place.append(index)
    return tuple(reversed(place))
