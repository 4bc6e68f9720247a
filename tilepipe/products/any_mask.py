"""Opening what is a mask by anybody: in a format of masks, or any image of labels."""

from __future__ import annotations

from contextlib import suppress

from tilepipe.errors import InputError, UnreadableError
from tilepipe.products.base import Mask
from tilepipe.products.formats import open_mask
from tilepipe.products.label_image import LabelImage
from tilepipe.products.store import open_zarr_mask
from tilepipe.storage import StoragePath, readable
from tilepipe.storage.zarr_store import group_attributes

PIECE = 256 * 2**20
"""Bytes of a label image that may be decoded at a time, where nothing else is said."""


def mask_at(path: StoragePath) -> Mask:
    """The mask at a path, in a format of masks; InputError for anything else."""
    # The folder of labels in an image's OME-Zarr has any name.
    return open_zarr_mask(path) if path.is_dir() else open_mask(path)


def open_any_mask(source: str, largest_piece: int = PIECE) -> Mask:
    """The mask at a path: one of the formats that masks have, or any image of labels.

    ``largest_piece`` is the most bytes of a label image that may be decoded at a time. Raises
    InputError for anything else.
    """
    path = readable(source)
    if not path.exists():
        raise InputError(f"{path} does not exist; give the path of a mask")
    try:
        return mask_at(path)
    except UnreadableError:
        raise
    except InputError:
        if path.is_dir() and _is_ours(path):
            raise  # a damaged mask of tilepipe is no mask by another program
        return LabelImage(source, largest_piece)


def _is_ours(folder: StoragePath) -> bool:
    """Whether tilepipe wrote the mask in a folder, as far as its attributes tell."""
    with suppress(OSError, ValueError, AttributeError, TypeError, RecursionError):
        return "kind" in (group_attributes(folder).get("tilepipe") or {})
    return False
