"""All the files that GDAL reads an image from: parts of a mosaic, overviews and masks beside it.

GDAL gives zeros for a part of a mosaic that it cannot open (it complains at the first read of a
dataset only) and for what a part lacks that is smaller than the mosaic says, and it leaves out a
mask that is broken. So each file is opened when the image is, and checked again at each read.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import MaskFlags

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images.gdal import DRIVERS, GDAL_ERRORS, TIFF, gdal_settings, open_dataset, reason
from tilepipe.images.levels import pyramid
from tilepipe.images.references import Part, parts_of
from tilepipe.images.segments import COMPRESSIONS
from tilepipe.images.windowed import UndecodableError
from tilepipe.places import ObjectPath, Place, is_url, place

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

Stamp = tuple[int, ...]
Box = tuple[float, float, float, float]
EVERYWHERE: Box = (-math.inf, -math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was when the image was opened."""

    path: Place
    stamp: Stamp
    box: Box
    """(y, x, stop y, stop x) of what is read from it, in pixels of the image's level 0."""
    used: Box | None = None
    """What of it that is, in its own pixels; of the GeoTIFFs of which GDAL passes over faults."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found of a file, and in it."""

    shape: tuple[int, int]
    count: int
    dtypes: tuple[str, ...]
    masked: bool
    files: tuple[_File, ...]
    """The file itself first."""


@dataclass(frozen=True, slots=True)
class PartWindow:
    """What a window of a mosaic shows of one of its parts."""

    path: Place
    box: Box
    """(y, x, stop y, stop x) in pixels of the part."""
    reduction: float
    """Rows of the part for each of the window."""


class FileSet:
    """The files of one image, each of which was opened and found to be what is said of it."""

    def __init__(self, files: Sequence[_File], beside: dict[Place, Stamp]) -> None:
        self._files = files
        self._beside = beside
        self._boxes = np.array([file.box for file in files])

    @property
    def paths(self) -> list[Place]:
        """Each file once: the one that was opened first, then the others in the order of naming."""
        return list(dict.fromkeys(file.path for file in self._files))

    def require_unchanged(
        self, window: Window | None = None, scale: tuple[float, float] = (1, 1)
    ) -> None:
        """Look whether files are there still, and as they were.

        Parameters
        ----------
        window
            Only at those that it is read from; otherwise at those that count everywhere: the image
            itself, its overviews and mask.
        scale
            Rows and columns of level 0 for each of the window's level.

        Raises
        ------
        UndecodableError
            Naming the first file that is not, or that GDAL could not open once.
        """
        for number in self._touched(window, scale):
            file = self._files[number]
            if file.path in _suspects:
                raise UndecodableError(f"{_suspects[file.path]} (in this process, once)")
            if not isinstance(file.path, ObjectPath) and _stamp(file.path) != file.stamp:
                what = "has changed since" if file.path.exists() else "was there when"
                raise UndecodableError(f"{file.path} {what} the image was opened")

    def suspect(self, window: Window, scale: tuple[float, float], why: str) -> None:
        """Note that GDAL could not open a part that a window shows: it is unreadable from now on.

        GDAL remembers such a part in a pool of the process. Another dataset that finds it there
        makes zeros of it, and says nothing. The parts are those that ``why`` names, or all.
        """
        parts = [self._files[number].path for number in self._touched(window, scale)]
        parts = [path for path in parts if path != self._files[0].path]
        named = [path for path in parts if str(path) in why]
        _suspects.update(dict.fromkeys(named or parts, why))

    def part_windows(self, window: Window, scale: tuple[float, float] = (1, 1)) -> list[PartWindow]:
        """What a window shows of those parts of a mosaic in which GDAL passes over faults."""
        y, x = scale
        wanted = (window.y * y, window.x * x, window.stop_y * y, window.stop_x * x)
        found = []
        for number in self._touched(window, scale):
            file = self._files[number]
            if file.used is None or file.box == EVERYWHERE:
                continue
            part = _mapped(_clipped(wanted, file.box), file.box, file.used)
            reduction = (file.used[2] - file.used[0]) / (file.box[2] - file.box[0]) * y
            found.append(PartWindow(file.path, part, reduction))
        return found

    @property
    def unchanged(self) -> bool:
        """Whether all of them are there still, as they were, and no others beside them."""
        stamps = self._beside | {file.path: file.stamp for file in self._files}
        return all(_stamp(path) == stamp for path, stamp in stamps.items())

    def _touched(self, window: Window | None, scale: tuple[float, float]) -> Iterator[int]:
        boxes = self._boxes
        if window is None:
            touched = np.isinf(boxes[:, 0])
        else:
            y, x = scale
            touched = (
                (boxes[:, 0] < window.stop_y * y)
                & (boxes[:, 2] > window.y * y)
                & (boxes[:, 1] < window.stop_x * x)
                & (boxes[:, 3] > window.x * x)
            )
        return (int(number) for number in np.flatnonzero(touched))


_suspects: dict[Place, str] = {}
"""Parts of mosaics that GDAL could not open once, and why."""

_known: dict[str, FileSet] = {}
_MOST_KNOWN = 16


def file_set(path: str) -> FileSet:
    """Look at all the files that an image is read from; again only if one of them has changed.

    Raises
    ------
    InputError
        Naming a part of a mosaic, an overview file or a mask that is missing, cannot be opened,
        or is not what it is said to be.
    RasterioError, CPLE_BaseError
        GDAL cannot open the image itself.
    """
    if is_url(path):
        return _object_set(path)
    found = _known.get(path)
    if found is None or not found.unchanged:
        found = _survey(path)
        while len(_known) >= _MOST_KNOWN:
            _known.pop(next(iter(_known)), None)
        _known[path] = found
    return found


@lru_cache(maxsize=_MOST_KNOWN)
def _object_set(path: str) -> FileSet:
    """Each look at an object is a request."""
    return _survey(path)


@dataclass(frozen=True, slots=True)
class _Survey:
    """What is known while the files of one image are looked at."""

    looks: dict[tuple[str, int | None], _Look] = field(default_factory=dict)
    """By path, and number of the overview that is used in the place of the image."""
    pending: set[str] = field(default_factory=set)
    """What is being looked at: mosaics, each of which is a part of another."""
    beside: dict[Place, Stamp] = field(default_factory=dict)
    """What GDAL would read with an image, if it were there."""


def _survey(path: str) -> FileSet:
    survey = _Survey()
    with gdal_settings(path):
        return FileSet(_look(place(path), survey).files, survey.beside)


def _look(
    path: Place,
    survey: _Survey,
    drivers: Sequence[str] = DRIVERS,
    overview: int | None = None,
) -> _Look:
    """Open a file and all that it is read with."""
    key = str(path), overview
    if key not in survey.looks:
        if key[0] in survey.pending or len(survey.pending) > DEEPEST:
            raise InputError(
                f"{path} is a mosaic of mosaics of mosaics without end; name images in it"
            )
        survey.pending.add(key[0])
        try:
            survey.looks[key] = _opened_look(path, survey, drivers, overview)
        finally:
            survey.pending.remove(key[0])
    return survey.looks[key]


def _opened_look(
    path: Place, survey: _Survey, drivers: Sequence[str], overview: int | None
) -> _Look:
    stamp = _stamp(path)
    for suffix in (*COMPANIONS, ".aux.xml"):
        beside = path.with_name(path.name + suffix)
        survey.beside[beside] = _stamp(beside)
    files = list(_look_at_parts(path, parts_of(path) or [], survey))
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
        used = _whole(dataset.shape) if _passes_over_faults(dataset) else None
        files.insert(0, _File(path, stamp, EVERYWHERE, used))
        masked = has_mask(dataset)
        return _Look(dataset.shape, dataset.count, dataset.dtypes, masked, tuple(files))
    finally:
        dataset.close()


def _check_place_of_pixels(path: Place, dataset: Any) -> None:
    """Refuse a file of the one kind that may name any other as that which holds its pixels."""
    if dataset.driver != "HFA":
        return
    for name in dataset.files:
        if Path(name).resolve().parent != Path(dataset.name).resolve().parent:
            raise InputError(
                f"{path} says that its pixels are in {name[:200]}, and only a file beside it is "
                "read on its behalf; move that there, or save it as a GeoTIFF (gdal_translate)"
            )


def _look_at_parts(mosaic: Place, parts: Sequence[Part], survey: _Survey) -> Iterator[_File]:
    faults: dict[str, str] = {}
    files: dict[_File, None] = {}
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


class _PartError(Exception):
    """What is wrong with a part, as the rest of a sentence that begins with its name."""


def _look_at_part(part: Part, survey: _Survey) -> list[_File]:
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
            f"has {height} x {width} pixels where {part.size[0]} x {part.size[1]} are named"
        )
    # Where it says nothing else, the mosaic reaches as far as it believes the part to.
    _, _, needed_y, needed_x = part.used or (0, 0, 0, 0)
    if not part.size and (needed_y > height + 1 or needed_x > width + 1):
        raise _PartError(
            f"has {height} x {width} pixels where {needed_y:g} x {needed_x:g} are used"
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


def _placed(file: _File, part: Part, shape: tuple[int, int]) -> _File:
    """A file of a part, with what is read from it in pixels of the mosaic."""
    if part.box is None or part.overview is not None:
        return _File(file.path, file.stamp, part.box or EVERYWHERE)
    everything = _whole(shape)
    inside = everything if file.box == EVERYWHERE else file.box
    box = _clipped(_mapped(inside, part.used or everything, part.box), part.box)
    used = None
    if file.used is not None:
        within = _mapped(box, part.box, part.used or everything)
        used = _mapped(within, inside, file.used)
    return _File(file.path, file.stamp, box, used)


def _whole(shape: tuple[int, int]) -> Box:
    return 0.0, 0.0, float(shape[0]), float(shape[1])


def _mapped(box: Box, before: Box, after: Box) -> Box:
    """A box on the grid on which ``before`` is ``after``."""
    y = (after[2] - after[0]) / (before[2] - before[0])
    x = (after[3] - after[1]) / (before[3] - before[1])
    return (
        after[0] + (box[0] - before[0]) * y,
        after[1] + (box[1] - before[1]) * x,
        after[0] + (box[2] - before[0]) * y,
        after[1] + (box[3] - before[1]) * x,
    )


def _clipped(box: Box, limits: Box) -> Box:
    """What two boxes have in common; of no area where they have nothing."""
    y, x = max(box[0], limits[0]), max(box[1], limits[1])
    return y, x, max(y, min(box[2], limits[2])), max(x, min(box[3], limits[3]))


def _look_at_overview_file(path: Place, dataset: Any, survey: _Survey) -> tuple[_File, ...]:
    """Overviews in a file that the metadata of an image name: one beside it, or none."""
    named = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if not named:
        return ()
    folder = Path(dataset.name).absolute().parent
    below = named.removeprefix(":::BASE:::")
    file = Path(named).absolute() if below == named else folder / below
    if file.parent != folder or not file.is_file():
        raise InputError(
            f"{path} says that its overviews are in {named[:80]}, and only a file beside it is "
            "opened on its behalf; save it without that (gdal_translate)"
        )
    return _look(file, survey, drivers=(*TIFF, "HFA")).files


def _look_at_companion(
    path: Place, beside: Place, dataset: Any, survey: _Survey
) -> tuple[_File, ...]:
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


def _fault_of_companion(beside: Place, look: _Look, dataset: Any) -> str | None:
    height, width = look.shape
    full = "{} x {}".format(*dataset.shape)
    if beside.suffix == ".msk":
        if look.shape != dataset.shape:
            return f"has {height} x {width} pixels, not {full}"
        return None if has_mask(dataset) else "is no mask that GDAL takes"
    if (look.count, look.dtypes) != (dataset.count, dataset.dtypes):
        wanted = f"{dataset.count} of {dataset.dtypes[0]}"
        return f"has {look.count} bands of {look.dtypes[0]}, not {wanted}"
    if len(pyramid([dataset.shape, look.shape], snap=False)) == 1 and look.shape != dataset.shape:
        return f"its {height} x {width} pixels are no smaller version of {full}"
    return None


def _passes_over_faults(dataset: Any) -> bool:
    compression = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "").upper()
    return dataset.driver == "GTiff" and compression in COMPRESSIONS


def has_mask(dataset: Any) -> bool:
    """Whether there is a mask, or an alpha band, that the pixels' values do not tell."""
    told = ([MaskFlags.all_valid], [MaskFlags.nodata])
    return any(flags not in told for flags in dataset.mask_flag_enums)


def _stamp(path: Place) -> Stamp:
    """What changes when a file does; nothing of an object, nor of what is no file."""
    if not isinstance(path, Path):
        return ()
    try:
        found = path.stat()
    except OSError:
        return ()
    if not stat.S_ISREG(found.st_mode):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
