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
from tilepipe.products.product import product_named, product_names
from tilepipe.storage import InputRefused, ObjectPath, StoragePath, readable, staged_locally
from tilepipe.storage.hashing import hash_of

if TYPE_CHECKING:
    from tilepipe.images.base import Image
    from tilepipe.products.content import OfMask
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
    found = _suffix(path.name)
    if found is not None:
        return found[1]
    raise InputError(
        f"{path} does not have a mask's suffix; use .ome.zarr, .ome.tif, .tif (GeoTIFF) or .png."
    )


def product_in_name(path: str | StoragePath) -> str | None:
    """The product that a file is to hold by its name, ``NAME.entropy.tif``; None: the mask."""
    name = str(path).rstrip("/").rpartition("/")[2]
    found = _suffix(name)
    stem = "" if found is None else name[: -len(found[0])]
    before, _, product = stem.lower().removesuffix(".ome").rpartition(".")
    if not before or product not in product_names() or product_named(product).is_main:
        return None
    return product


def is_mask(path: StoragePath, *, channels: bool = False) -> bool:
    """Whether a file of this name can be opened as a mask; ``channels`` is as in `export`."""
    kind = suffix_kind(path)
    return product_in_name(path) is None and kind != "png" and not (channels and kind == "ome-tiff")


def _suffix(name: str) -> tuple[str, Format] | None:
    """The suffix of a mask's name, and its format."""
    lower = name.lower()
    fitting = (each for each in _SUFFIXES if lower.endswith(each[0]) and lower != each[0])
    return next(fitting, None)


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


def export(
    mask: ZarrMask, path: StoragePath, image: Image | None = None, *, channels: bool = False
) -> str:
    """Write a complete mask in the format of the suffix of ``path``; returns the file's hash.

    An existing file is replaced once the new one is complete. A picture also shows the image, if
    there is one. A name such as ``NAME.entropy.tif`` asks for a product beside the mask, and
    ``channels`` for an OME-TIFF with one channel a class.

    Raises
    ------
    InputError
        When masks, or the product that the name asks for, are not exported to this format.
    OSError
        When the file cannot be written, because the disk is full for example.
    """
    from tilepipe.products.content import content_of

    kind = suffix_kind(path)
    if kind not in EXPORTERS:
        raise InputError(f"{path} cannot be an export; use .ome.tif, .tif (GeoTIFF) or .png.")
    product = product_in_name(path)
    content = content_of(mask, product, channels=channels and kind == "ome-tiff")
    with staged_locally(path) as local:
        EXPORTERS[kind](content, local, image)
        return hash_of(local)


def remove_side_files(path: StoragePath) -> None:
    """Remove what lies beside a GeoTIFF for other programs, except a style that the user made."""
    from tilepipe.products.qgis_style import remove_style, style_path

    found = _suffix(path.name)
    if found is not None and found[1] == "cog":
        path.with_name(path.name + ".aux.xml").unlink(missing_ok=True)
        remove_style(style_path(path))


def _export_ome_tiff(content: OfMask, path: Path, _image: Image | None) -> None:
    from tilepipe.products.ome_tiff import write_ome_tiff

    write_ome_tiff(content, path)


def _export_cog(content: OfMask, path: Path, _image: Image | None) -> None:
    from tilepipe.products.geotiff import write_cog

    write_cog(content, path)


def _export_preview(content: OfMask, path: Path, image: Image | None) -> None:
    from tilepipe.products.preview import write_preview

    write_preview(content.mask, image, path)


EXPORTERS: dict[Format, Callable[[OfMask, Path, Image | None], None]] = {
    "ome-tiff": _export_ome_tiff,
    "cog": _export_cog,
    "png": _export_preview,
}
"""The writer of each format. It takes the content, the path, and the image, if any."""
