"""Which format a suffix stands for, and what writes and reads it.

Nothing of a format is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tilepipe.errors import InputError
from tilepipe.products.base import Mask
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
"""The first that fits counts, so the longer ones stand before those that end them."""


def suffix_kind(path: StoragePath) -> Format:
    """The format that a path's suffix stands for.

    Raises
    ------
    InputError
        When it stands for none.
    """
    name = path.name.lower()
    for suffix, kind in _SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return kind
    raise InputError(
        f"{path} has no suffix of a mask; use .ome.zarr, .ome.tif, .tif (GeoTIFF) or .png."
    )


def open_mask(path: str | StoragePath) -> Mask:
    """Open a mask lazily: OME-Zarr, OME-TIFF or GeoTIFF, ours or others' of the same form.

    Raises
    ------
    InputError
        When there is none at ``path``, or none that is understood.
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
    """Write a complete mask in the format that the suffix of ``path`` stands for.

    Parameters
    ----------
    mask : ZarrMask
        With its pyramid.
    path : Path
        Replaced if it exists, once the new file is complete.
    image : Image
        That the mask is of; only the picture shows it.
    level : int
        Of the image, at which the mask was computed.

    Returns
    -------
    str
        The hash of the file (`tilepipe.storage.hashing.hash_of`).

    Raises
    ------
    InputError
        When the suffix stands for no format that is exported to.
    OSError
        As the file system raises it, for one when the disk is full.
    """
    kind = suffix_kind(path)
    if kind not in EXPORTERS:
        raise InputError(f"{path} cannot be exported to; use .ome.tif, .tif (GeoTIFF) or .png.")
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
"""What writes each format from a complete OME-Zarr mask, its image, and the image's level."""
