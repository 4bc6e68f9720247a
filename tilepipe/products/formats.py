"""The formats of masks by their suffixes, and their readers and writers.

The modules of a format are imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tilepipe.errors import InputError
from tilepipe.products.base import Mask
from tilepipe.products.label_path import label_path
from tilepipe.storage import InputRefused, ObjectPath, StoragePath, readable, staged_locally
from tilepipe.storage.hashing import hash_of

if TYPE_CHECKING:
    from tilepipe.images.base import Image
    from tilepipe.products.store import ZarrMask

Format = Literal["ome-zarr", "ome-tiff", "cog", "png"]

_SUFFIXES: tuple[tuple[str, Format], ...] = (
    (".zarr", "ome-zarr"),
    (".ome.tif", "ome-tiff"),
    (".ome.tiff", "ome-tiff"),
    (".tif", "cog"),
    (".tiff", "cog"),
    (".png", "png"),
)
"""The first match counts, so longer suffixes come before shorter ones."""


def suffix_kind(path: StoragePath) -> Format:
    """The format of a path, by its suffix; InputError for other suffixes.

    What lies in the folder ``labels`` of an OME-Zarr needs none.
    """
    if label_path(path) is not None:
        return "ome-zarr"
    name = path.name.lower()
    for suffix, kind in _SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return kind
    raise InputError(
        f"{path} does not have a mask's suffix; use .ome.zarr, .ome.tif, .tif (GeoTIFF) or .png."
    )


def open_mask(path: str | StoragePath) -> Mask:
    """Open a mask lazily: OME-Zarr, OME-TIFF or GeoTIFF, ours or others' of the same form.

    Raises InputError when there is none at ``path``, or none that is understood.
    """
    path = readable(path)
    mask = _opened(path)
    if not all(height > 0 and width > 0 for height, width in mask.levels):
        mask.close()
        raise InputError(f"{path} has a level without pixels; give a mask.")
    return mask


def _opened(path: StoragePath) -> Mask:
    kind = suffix_kind(path)
    if kind == "ome-zarr":
        from tilepipe.products.store import open_zarr_mask

        with InputRefused():
            return open_zarr_mask(path)
    if isinstance(path, ObjectPath):
        raise InputError(
            f"{path}: on an object store, a mask is opened as .ome.zarr only; copy the file here"
        )
    if kind == "ome-tiff":
        from tilepipe.products.read_ome_tiff import open_ome_tiff_mask

        return open_ome_tiff_mask(path)
    if kind == "cog":
        from tilepipe.products.read_geotiff import open_geotiff_mask

        return open_geotiff_mask(path)
    raise InputError(f"{path} is a picture of a mask; give the mask itself.")


def export(mask: ZarrMask, path: StoragePath, image: Image, level: int) -> str:
    """Write a complete mask in the format of the suffix of ``path``; returns the file's hash.

    An existing file is replaced once the new one is complete. A picture also shows the image, whose
    ``level`` is the one at which the mask was computed.

    Raises
    ------
    InputError
        When masks are not exported to this format.
    OSError
        When the file cannot be written, because the disk is full for example.
    """
    kind = suffix_kind(path)
    if kind not in EXPORTERS:
        raise InputError(f"{path} cannot be an export; use .ome.tif, .tif (GeoTIFF) or .png.")
    with staged_locally(path) as local:
        EXPORTERS[kind](mask, local, image, level)
        return hash_of(local)


def _export_ome_tiff(mask: ZarrMask, path: Path, _image: Image, _level: int) -> None:
    from tilepipe.products.ome_tiff import write_ome_tiff

    write_ome_tiff(mask, path)


def _export_cog(mask: ZarrMask, path: Path, _image: Image, _level: int) -> None:
    from tilepipe.products.geotiff import write_cog

    write_cog(mask, path)


def _export_preview(mask: ZarrMask, path: Path, image: Image, level: int) -> None:
    from tilepipe.products.preview import write_preview

    write_preview(mask, image, level, path)


EXPORTERS: dict[Format, Callable[[ZarrMask, Path, Image, int], None]] = {
    "ome-tiff": _export_ome_tiff,
    "cog": _export_cog,
    "png": _export_preview,
}
"""The writer of each format. It takes a complete mask, the path, the image and its level."""
