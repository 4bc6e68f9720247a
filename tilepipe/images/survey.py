"""Opening every file of an image when the image is opened, to check each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilepipe.errors import InputError
from tilepipe.images.corruption import COMPRESSIONS
from tilepipe.images.file_sets import (
    EVERYWHERE,
    Box,
    File,
    FileSet,
    Stamp,
    clipped,
    mapped,
    stamp_of,
    whole,
)
from tilepipe.images.gdal import DRIVERS, GDAL_ERRORS, TIFF, gdal_settings, open_dataset, reason
from tilepipe.images.gdal_bands import has_validity
from tilepipe.images.levels import pyramid
from tilepipe.images.mosaic_parts import Part, parts_of
from tilepipe.storage import ObjectPath, StoragePath, as_path, is_url

COMPANIONS = (".ovr", ".msk")
"""Overviews and a mask of an image, in TIFFs beside it."""

DEEPEST = 8
"""Mosaics of mosaics."""

GDAL_TYPES = {
    "byte": "uint8",
    "cint16": "complex_int16",
    "cint32": "complex_int32",
    "cfloat32": "complex64",
    "cfloat64": "complex128",
}
"""GDAL's names of types, in lower case, where rasterio has others."""

_known: dict[str, FileSet] = {}
_MOST_KNOWN = 16


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found of a file, and in it."""

    shape: tuple[int, int]
    count: int
    dtypes: tuple[str, ...]
    masked: bool
    files: tuple[File, ...]
    """The file itself first."""
    filled: tuple[Box, ...] | None = None
    """What parts fill of a mosaic, in its own pixels; None where that is all of it."""
    block: tuple[int, int] = (1, 1)
    """(rows, columns) that are decoded together, of a mosaic in the part where that is most."""


def file_set(path: str) -> FileSet:
    """Survey all the files that an image is read from; again only if one of them has changed.

    Raises
    ------
    InputError
        Naming a part of a mosaic, an overview file or a mask that is missing, cannot be opened,
        or is not what it is said to be.
    RasterioError, CPLE_BaseError
        GDAL cannot open the image itself.
    """
    with gdal_settings(path):
        files, dataset = open_surveyed(path)
        dataset.close()
    return files


def open_surveyed(path: str) -> tuple[FileSet, Any]:
    """Open an image with GDAL, within `gdal_settings`, and survey all its files as `file_set`."""
    found = _known.get(path)
    # Each look at an object is a request.
    if found is not None and (is_url(path) or found.unchanged):
        return found, open_dataset(path)
    survey = _Survey(as_path(path))
    look = _look(survey.path, survey)
    found = FileSet(look.files, survey.beside, look.shape, look.filled, look.block)
    while len(_known) >= _MOST_KNOWN:
        _known.pop(next(iter(_known)), None)
    _known[path] = found
    return found, survey.datasets[0]


@dataclass(frozen=True, slots=True)
class _Survey:
    """What is known while the files of one image are looked at."""

    path: StoragePath
    """Of the image itself."""
    datasets: list[Any] = field(default_factory=list)
    """The one of the image itself, which stays open."""
    looks: dict[tuple[str, int | None], _Look] = field(default_factory=dict)
    """By path, and number of the overview that is used in the place of the image."""
    pending: set[str] = field(default_factory=set)
    """What is being looked at: mosaics, each of which is a part of another."""
    beside: dict[StoragePath, Stamp] = field(default_factory=dict)
    """What GDAL would read with an image, if it were there."""


def _look(
    path: StoragePath,
    survey: _Survey,
    drivers: Sequence[str] = DRIVERS,
    overview: int | None = None,
) -> _Look:
    """Open a file and all that it is read with."""
    key = str(path), overview
    if key not in survey.looks:
        if key[0] in survey.pending or len(survey.pending) > DEEPEST:
            raise InputError(
                f"{path} is a mosaic of mosaics nested too deeply; build it from images"
            )
        survey.pending.add(key[0])
        try:
            survey.looks[key] = _opened_look(path, survey, drivers, overview)
        finally:
            survey.pending.remove(key[0])
    return survey.looks[key]


def _opened_look(
    path: StoragePath, survey: _Survey, drivers: Sequence[str], overview: int | None
) -> _Look:
    stamp = stamp_of(path)
    for suffix in (*COMPANIONS, ".aux.xml"):
        beside = path.with_name(path.name + suffix)
        survey.beside[beside] = stamp_of(beside)
    parts = parts_of(path)
    files = list(_look_at_parts(path, parts or [], survey))
    options: dict[str, Any] = {} if overview is None else {"OVERVIEW_LEVEL": overview}
    dataset = open_dataset(str(path), drivers=drivers, **options)
    try:
        # GDAL opens none of these before it is asked for overviews or masks.
        files += _look_at_overview_file(path, dataset, survey)
        for suffix in COMPANIONS:
            beside = path.with_name(path.name + suffix)
            if beside.is_file() if isinstance(beside, ObjectPath) else beside.exists():
                files += _look_at_companion(path, beside, dataset, survey)
        _check_place_of_pixels(path, dataset)
        used = whole(dataset.shape) if _passes_over_faults(dataset) else None
        files.insert(0, File(path, stamp, EVERYWHERE, used))
        masked = has_validity(dataset)
        filled = None if parts is None else _filled(parts, survey)
        blocks = [survey.looks[str(part.place), part.overview].block for part in parts or ()]
        block = max((tuple(dataset.block_shapes[0]), *blocks), key=math.prod)
        look = _Look(
            dataset.shape, dataset.count, dataset.dtypes, masked, tuple(files), filled, block
        )
        if path == survey.path and overview is None:
            survey.datasets.append(dataset)
        return look
    finally:
        if dataset not in survey.datasets:
            dataset.close()


def _check_place_of_pixels(path: StoragePath, dataset: Any) -> None:
    """Refuse a file of the one kind that may name any other as that which holds its pixels."""
    if dataset.driver != "HFA":
        return
    for name in dataset.files:
        if Path(name).resolve().parent != Path(dataset.name).resolve().parent:
            raise InputError(
                f"{path} keeps its pixels in {name[:200]}, and only a file beside it is read; move "
                "that there, or save it as a GeoTIFF (gdal_translate)"
            )


def _look_at_parts(mosaic: StoragePath, parts: Sequence[Part], survey: _Survey) -> Iterator[File]:
    faults: dict[str, str] = {}
    files: dict[File, None] = {}
    for part in parts:
        if part.name in faults:
            continue
        try:
            for file in _look_at_part(part, survey):
                files[file] = None
        except _PartError as error:
            faults[part.name] = str(error)
    if faults:
        name, fault = next(iter(faults.items()))
        total = len({part.name for part in parts})
        others = f" ({len(faults)} of its {total} parts have faults)" if len(faults) > 1 else ""
        raise InputError(
            f"{mosaic} is a mosaic, and its part {name[:200]} {fault}{others}; put back "
            "what it is made of, or write it again (gdalbuildvrt)"
        )
    yield from files


def _filled(parts: Sequence[Part], survey: _Survey) -> tuple[Box, ...] | None:
    """The boxes of a mosaic that its parts, which were looked at, fill; None where that is all."""
    boxes: dict[Box, None] = {}
    for part in parts:
        if part.of_mask:
            continue
        if part.box is None:
            return None
        look = survey.looks[str(part.place), part.overview]
        if look.filled is None:
            boxes[part.box] = None
            continue
        used = part.used or whole(look.shape)
        for box in look.filled:
            boxes[clipped(mapped(box, used, part.box), part.box)] = None
    return tuple(boxes)


class _PartError(Exception):
    """What is wrong with a part, as the rest of a sentence that begins with its name."""


def _look_at_part(part: Part, survey: _Survey) -> list[File]:
    if not part.place.is_file():
        raise _PartError("is not a file" if part.place.exists() else "is missing")
    try:
        look = _look(part.place, survey, overview=part.overview)
    except GDAL_ERRORS as error:
        why = "GDAL cannot" if isinstance(part.place, ObjectPath) else reason(error)
        raise _PartError(f"cannot be opened ({why})") from error
    height, width = look.shape
    if part.size and part.size != look.shape:
        raise _PartError(
            f"has {width} x {height} pixels (width x height) where the mosaic states "
            f"{part.size[1]} x {part.size[0]}"
        )
    # Where it says nothing else, the mosaic reaches as far as it believes the part to.
    _, _, needed_y, needed_x = part.used or (0, 0, 0, 0)
    if not part.size and (needed_y > height + 1 or needed_x > width + 1):
        raise _PartError(
            f"has {width} x {height} pixels (width x height) where the mosaic uses "
            f"{needed_x:g} x {needed_y:g}"
        )
    if part.band > look.count:
        raise _PartError(f"has {look.count} bands where band {part.band} is used")
    if part.of_mask and not look.masked:
        raise _PartError("has no mask where its mask is used")
    dtype = look.dtypes[part.band - 1]
    if part.dtype and GDAL_TYPES.get(part.dtype.lower(), part.dtype.lower()) != dtype:
        raise _PartError(f"holds {dtype} numbers where {part.dtype} ones are named")
    # Whatever a part of a mosaic is read with counts where the part does.
    placed = [_placed(file, part, look.shape) for file in look.files]
    return [file for file in placed if file.box[0] < file.box[2] and file.box[1] < file.box[3]]


def _placed(file: File, part: Part, shape: tuple[int, int]) -> File:
    """A file of a part, with what is read from it in pixels of the mosaic."""
    if part.box is None or part.overview is not None:
        return File(file.path, file.stamp, part.box or EVERYWHERE)
    everything = whole(shape)
    inside = everything if file.box == EVERYWHERE else file.box
    box = clipped(mapped(inside, part.used or everything, part.box), part.box)
    used = None
    if file.used is not None:
        within = mapped(box, part.box, part.used or everything)
        used = mapped(within, inside, file.used)
    return File(file.path, file.stamp, box, used)


def _look_at_overview_file(path: StoragePath, dataset: Any, survey: _Survey) -> tuple[File, ...]:
    """Overviews in a file that the metadata of an image name: one beside it, or none."""
    named = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if not named:
        return ()
    folder = Path(dataset.name).absolute().parent
    below = named.removeprefix(":::BASE:::")
    file = Path(named).absolute() if below == named else folder / below
    if file.parent != folder or not file.is_file():
        raise InputError(
            f"{path} keeps its overviews in {named[:80]}, and only a file beside it is opened; "
            "save it without them (gdal_translate)"
        )
    return _look(file, survey, drivers=(*TIFF, "HFA")).files


def _look_at_companion(
    path: StoragePath, beside: StoragePath, dataset: Any, survey: _Survey
) -> tuple[File, ...]:
    """An overview file or a mask beside an image, which GDAL would not miss if it were broken."""
    what = "the overviews" if beside.suffix == ".ovr" else "the mask"
    try:
        look = _look(beside, survey, drivers=TIFF)
    except GDAL_ERRORS as error:
        why = "GDAL cannot" if isinstance(beside, ObjectPath) else reason(error)
        fault: str | None = f"cannot be opened ({why})"
    else:
        fault = _fault_of_companion(beside, look, dataset)
    if fault:
        raise InputError(
            f"{beside} holds {what} of {path.name} but {fault}; make it again, or remove it to do "
            "without"
        )
    return look.files


def _fault_of_companion(beside: StoragePath, look: _Look, dataset: Any) -> str | None:
    height, width = look.shape
    full = f"{dataset.width} x {dataset.height} (width x height)"
    if beside.suffix == ".msk":
        if look.shape != dataset.shape:
            return f"has {width} x {height} pixels, not {full}"
        return None if has_validity(dataset) else "is not a mask that GDAL accepts"
    if (look.count, look.dtypes) != (dataset.count, dataset.dtypes):
        wanted = f"{dataset.count} of {dataset.dtypes[0]}"
        return f"has {look.count} bands of {look.dtypes[0]}, not {wanted}"
    if len(pyramid([dataset.shape, look.shape], snap=False)) == 1 and look.shape != dataset.shape:
        return f"its {width} x {height} pixels are not a smaller version of {full}"
    return None


def _passes_over_faults(dataset: Any) -> bool:
    compression = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "").upper()
    return dataset.driver == "GTiff" and compression in COMPRESSIONS
