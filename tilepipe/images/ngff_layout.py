"""Where the images of an OME-Zarr folder lie: one, several, the fields of a well or a plate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import zarr
import zarr.errors

from tilepipe.errors import InputError
from tilepipe.images.other_formats import refuse_folder
from tilepipe.images.series import MOST_NAMED
from tilepipe.storage import StoragePath
from tilepipe.storage.zarr_store import zarr_store

NO_GROUP = (
    AttributeError,
    OSError,
    RecursionError,
    ValueError,
    KeyError,
    TypeError,
    zarr.errors.BaseZarrError,
    json.JSONDecodeError,
)
"""What zarr raises on what is no group."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One multiscale image."""

    number: int
    """From 0; of a field of a well, its name."""
    name: str
    """Of a field, its path in the plate; of others their own, or else that of the folder."""
    folder: StoragePath
    multiscale: dict[str, Any]
    attributes: dict[str, Any]
    """All those of its group."""


def entries_of(path: str, folder: StoragePath, series: int | str | None) -> list[Entry]:
    """The images in a folder; of a well or a plate, only the one that is wanted.

    None of the fields of a plate is the main one, and there may be thousands.

    Raises
    ------
    InputError
        There is none; or there are several fields, and none is chosen.
    """
    attributes = attributes_of(folder)
    ome = _ome(attributes)
    if _multiscales(attributes):
        return _images(folder, "", attributes)
    for what, fields in (("plate", _plate_fields(folder, ome)), ("well", _well_fields(ome))):
        if isinstance(ome.get(what), dict):
            return _field(path, folder, what, fields, series)
    found: list[Entry] = []
    for name in _numbered(folder):
        group = below(folder, name)
        found += _images(group, name, attributes_of(group), len(found))
    if not found:
        refuse_folder(path, folder)
        raise InputError(
            f"{path} is a folder without an OME-Zarr image in it (no `multiscales` in its "
            "attributes); give an image file, or the folder whose name ends in .zarr"
        )
    return found


def attributes_of(folder: StoragePath) -> dict[str, Any]:
    """The attributes of a group; empty where there is none."""
    try:
        return dict(zarr.open_group(zarr_store(folder, read_only=True), mode="r").attrs)
    except NO_GROUP:
        return {}


def _ome(attributes: dict[str, Any]) -> dict[str, Any]:
    """Where NGFF keeps its own: under a key since 0.5, at the root before."""
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def _multiscales(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    found = _ome(attributes).get("multiscales")
    return found if isinstance(found, list) else []


def _images(
    folder: StoragePath, name: str, attributes: dict[str, Any], first: int = 0
) -> list[Entry]:
    """The images of one group, as a rule one, numbered from ``first``."""
    version = _ome(attributes).get("version")
    found = []
    for number, multiscale in enumerate(_multiscales(attributes), first):
        own = str(multiscale.get("name") or "").strip("/") or name
        found.append(Entry(number, own, folder, {"version": version, **multiscale}, attributes))
    return found


def _numbered(folder: StoragePath) -> Iterator[str]:
    """Names of the images in a folder as bioformats2raw writes it: listed, or else numbered."""
    listed = _ome(attributes_of(folder / "OME")).get("series")
    if isinstance(listed, list):
        yield from (str(name) for name in listed)
        return
    for number in count():
        if not _multiscales(attributes_of(folder / str(number))):
            return
        yield str(number)


def _well_fields(ome: dict[str, Any]) -> Iterator[str]:
    for image in (ome.get("well") or {}).get("images", ()):
        yield str(image["path"])


def _plate_fields(folder: StoragePath, ome: dict[str, Any]) -> Iterator[str]:
    for well in (ome.get("plate") or {}).get("wells", ()):
        path = str(well["path"])
        for field in _well_fields(_ome(attributes_of(below(folder, path)))):
            yield f"{path}/{field}"


def _field(
    path: str, folder: StoragePath, what: str, fields: Iterator[str], series: int | str | None
) -> list[Entry]:
    """The field that is wanted, or the only one."""
    seen: list[str] = []
    for position, name in enumerate(fields):
        # Fields of a well are called 0, 1 ..., or 1, 2 ...: their names are their numbers.
        number = int(name) if name.isdecimal() else position
        if name == series or (name.isdecimal() and number == series):
            return [_entry(path, folder, number, name)]
        seen.append(name)
        if series is None and len(seen) > MOST_NAMED:
            break
    if series is None and len(seen) == 1:
        return [_entry(path, folder, number, seen[0])]
    if not seen:
        raise InputError(f"{path} is a {what} that lists no images")
    shown = ", ".join(seen[:MOST_NAMED]) + (" ..." if len(seen) > MOST_NAMED else "")
    if series is None:
        raise InputError(f"{path} is a {what} of several images; choose one with --series: {shown}")
    raise InputError(f"{path} is a {what} without an image {series!r}; choose one of {shown}")


def _entry(path: str, folder: StoragePath, number: int, name: str) -> Entry:
    group = below(folder, name)
    for found in _images(group, "", attributes_of(group)):
        return replace(found, number=number, name=name)
    raise InputError(f"{path} lists an image {name}, which is not there")


def below(folder: StoragePath, path: str) -> StoragePath:
    """A path in a container; what leads out of it is refused."""
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            raise InputError(f"{folder} names {path!r}, which is not a path inside it")
        folder = folder / part
    return folder
