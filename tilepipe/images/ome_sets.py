"""OME-TIFF sets: images whose planes, or whose metadata, lie in several files."""

from __future__ import annotations

from pathlib import PurePath
from xml.etree import ElementTree

from tilepipe.errors import InputError
from tilepipe.storage import StoragePath, as_path, is_url
from tilepipe.text import some

LARGEST_XML = 64 * 2**20
"""Bytes of a companion file that are read."""

MOST_NAMED = 5
"""Missing files that a message names."""


def companion_xml(path: str, xml: str) -> str | None:
    """The OME-XML of a companion, where a file's own only says in which one it stands; or None.

    Raises
    ------
    InputError
        The companion is not beside the file.
    """
    root = _root(xml)
    binary_only = None if root is None else root.find("{*}BinaryOnly")
    if binary_only is None:
        return None
    name = binary_only.get("MetadataFile", "")
    _check_beside(path, name)
    where = as_path(path).parent / name
    if not name or not where.is_file():
        raise InputError(
            f"{path} is one file of an OME-TIFF set, whose metadata stand in {name!r}; put that "
            "file beside it"
        )
    return _text(where)


def first_file(path: str) -> str:
    """The path of the first file with pixels that a companion (``.companion.ome``) names.

    Raises
    ------
    InputError
        It names none, or none is there.
    """
    names = _files(_root(_text(as_path(path))))
    for name in names:
        _check_beside(path, name)
        where = as_path(path).parent / name
        if where.is_file():
            return str(where)
    what = (
        f"none of its files is there: {some(names, MOST_NAMED)}" if names else "it names no files"
    )
    raise InputError(f"{path} holds the metadata of an OME-TIFF set, and {what}")


def check_set(path: str, xml: str) -> None:
    """Refuse one file of a set of which others are missing.

    Raises
    ------
    InputError
        Naming those that are missing, or a name that leads to another folder.
    """
    root = _root(xml)
    if root is None:
        return
    own = root.get("UUID")
    names = _files(root, own)
    this = as_path(path).name
    # A single file may name itself by a name that it had before.
    others = [name for name in names if name.casefold() != this.casefold()]
    if own is None and len(names) <= 1:
        return
    for name in others:
        _check_beside(path, name)
    if others and is_url(path):
        raise InputError(
            f"{path} is one file of an OME-TIFF set, and on an object store only single files "
            "are read; copy the set to a disk, or convert it to OME-Zarr"
        )
    missing = [name for name in others if not (as_path(path).parent / name).is_file()]
    if missing:
        raise InputError(
            f"{path} is one of the {len(others) + 1} files of an OME-TIFF set, and "
            f"{len(missing)} of them {'is' if len(missing) == 1 else 'are'} missing: "
            f"{some(missing, MOST_NAMED)}; put the whole set into one "
            "folder, or save this image as a file of its own"
        )


def _text(where: StoragePath) -> str:
    return where.read_bytes()[:LARGEST_XML].decode(errors="replace")


def _root(xml: str) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError):
        return None


def _files(root: ElementTree.Element | None, own: str | None = None) -> list[str]:
    """File names that planes are said to lie in, but for those of this file's own UUID."""
    if root is None:
        return []
    found = (
        element.get("FileName", "")
        for element in root.iterfind(".//{*}TiffData/{*}UUID")
        if own is None or (element.text or "").strip() != own
    )
    return list(dict.fromkeys(name for name in found if name))


def _check_beside(path: str, name: str) -> None:
    """Refuse names that lead out of the folder: a file from elsewhere opens no other."""
    pure = PurePath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name:
        raise InputError(f"{path} names a file outside its own folder ({name!r}); it is not opened")
