"""Labels inside an image's own OME-Zarr: ``IMAGE.ome.zarr/labels/NAME`` (NGFF 0.5, section 2.6).

The image keeps all of its files. What it gains is the group of the new label, and its name in the
list in the group ``labels``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from tilepipe.errors import InputError
from tilepipe.images.base import Image, PixelSize
from tilepipe.products.base import MaskSpec, Ngff
from tilepipe.products.label_path import FOLDER, LabelPath
from tilepipe.products.ngff import read_scale
from tilepipe.storage import ObjectPath, StoragePath, as_path, make_folder, within, write_whole
from tilepipe.storage.objects import ConditionError
from tilepipe.storage.zarr_store import group_attributes

SOURCE = "../../"
"""The path of the image from the group of one of its labels."""


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """What a label must have in common with its image, as the image's group states it."""

    ngff: Ngff
    levels: int
    pixel_size: PixelSize
    """The scale of level 0; the unit is ``pixel`` if the image has none."""
    origin: tuple[float, float]
    """The coordinates of the first pixel, (y, x), in the same unit."""

    def label(self, spec: MaskSpec, name: str) -> MaskSpec:
        """The description of a label of the image, from that of a mask on the image's grid."""
        return replace(
            spec, name=name, ngff=self.ngff, level_count=self.levels, pixel_size=self.pixel_size,
            origin=self.origin, source=SOURCE, has_coordinates=False,
        )  # fmt: skip


def open_image_group(label: LabelPath, image: Image) -> ImageGroup:
    """Read the group of the image that a label is written into.

    Raises
    ------
    InputError
        When ``image`` is not the OME-Zarr image in that group, or of a version that cannot take the
        label, or if it keeps a list of its content, in which the label would be missing.
    """
    path = label.path
    if label.name.startswith((".", "_")) or label.name.endswith(".zarr"):
        raise InputError(f"{path}: {label.name} cannot be the name of a label; choose another")
    source = as_path(image.path).absolute()
    if source.resolve() != label.image.resolve():
        if within(label.image, source):
            raise InputError(
                f"{path}: is in another image than the one that is read, {image.path}; give "
                f"{label.image} as the image"
            )
        raise InputError(
            f"{path}: a label can only be written into its own image, and the image is "
            f"{image.path}; give -o {image.path.rstrip('/')}/{FOLDER}/{label.name}, or use "
            "--with-image to convert the image"
        )
    document = group_attributes(label.image)
    attributes = document.get("ome", document)
    if "multiscales" not in attributes:
        raise InputError(
            f"{path}: {label.image} is not an OME-Zarr image itself; give the path of one in it, "
            f"such as {label.image / '0'}, as the image"
        )
    multiscale = attributes["multiscales"][0]
    version = str(attributes.get("version") or multiscale.get("version"))
    if version not in ("0.4", "0.5"):
        raise InputError(
            f"{path}: the image is OME-Zarr {version}, and labels are written in 0.4 and 0.5 only; "
            "tilepipe convert makes a 0.5 of it"
        )
    if _is_consolidated(label.image):
        raise InputError(
            f"{path}: the image has consolidated metadata, in which a new label would be missing; "
            "remove it (.zmetadata, or consolidated_metadata in zarr.json), or write the mask "
            "elsewhere"
        )
    scale, origin = read_scale(multiscale)
    unit = str(multiscale["axes"][-1].get("unit", "pixel"))
    levels = len(multiscale["datasets"])
    return ImageGroup(cast(Ngff, version), levels, PixelSize(*scale, unit), origin)


def list_label(label: LabelPath) -> None:
    """Add a label to its image's list, atomically; the list's other names and order stay."""
    _edit(label, lambda names: names if label.name in names else [*names, label.name])


def unlist_label(label: LabelPath) -> None:
    """Take a label that is about to be removed off its image's list."""
    _edit(label, lambda names: [name for name in names if name != label.name])


def _edit(label: LabelPath, change: Callable[[list[Any]], list[Any]]) -> None:
    folder = label.image / FOLDER
    make_folder(folder)
    with _alone(folder):
        if (label.image / "zarr.json").exists():
            _rewrite(folder / "zarr.json", lambda text: _changed(text, change))
        else:
            if not (folder / ".zgroup").exists():
                write_whole(folder / ".zgroup", json.dumps({"zarr_format": 2}))
            _rewrite(folder / ".zattrs", lambda text: _changed_v2(text, change))


def _changed(text: bytes, change: Callable[[list[Any]], list[Any]]) -> dict[str, Any]:
    empty: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    document = json.loads(text) if text else empty
    attributes = document.setdefault("attributes", {})
    ome = attributes.setdefault("ome", {})
    ome.setdefault("version", "0.5")
    # As in 0.4, where whoever wrote it did not know better.
    ome["labels"] = change(list(ome.get("labels", attributes.get("labels", []))))
    return cast(dict[str, Any], document)


def _changed_v2(text: bytes, change: Callable[[list[Any]], list[Any]]) -> dict[str, Any]:
    document = json.loads(text) if text else {}
    document["labels"] = change(list(document.get("labels", [])))
    return cast(dict[str, Any], document)


def _rewrite(path: StoragePath, changed: Callable[[bytes], dict[str, Any]]) -> None:
    """Replace a document by what is made of it, unless that is the same."""
    while True:
        version: dict[str, str] = {}
        text = b""
        with suppress(FileNotFoundError):
            if isinstance(path, ObjectPath):
                text, version = path.read_tagged()
            else:
                text = path.read_bytes()
        try:
            document = changed(text)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{path}: is not a list of labels ({error}); repair it") from error
        if text and json.loads(text) == document:
            return
        content = json.dumps(document, indent=2).encode()
        if not isinstance(path, ObjectPath):
            write_whole(path, content)
            return
        with suppress(ConditionError):  # another run has just added its own
            path.write_bytes(content, version or "create")
            return


@contextmanager
def _alone(folder: StoragePath) -> Iterator[None]:
    """Wait until no other process of this machine edits the list; object stores need no lock."""
    if not isinstance(folder, Path) or os.name == "nt":
        yield
        return
    import fcntl

    # The folder itself is locked: a file would be one that does not belong in a zarr group.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # of file systems without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_consolidated(folder: StoragePath) -> bool:
    if (folder / ".zmetadata").exists():
        return True
    try:
        document = json.loads((folder / "zarr.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return bool(document.get("consolidated_metadata"))
