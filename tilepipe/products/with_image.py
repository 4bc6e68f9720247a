"""An image and its mask in one OME-Zarr: the image converted, and the mask as its label."""

from __future__ import annotations

from dataclasses import replace

from tilepipe.images.base import Image, PixelSize
from tilepipe.images.convert import MEMORY_LIMIT, convert
from tilepipe.images.reading import Reading
from tilepipe.products.base import MaskSpec
from tilepipe.products.image_labels import SOURCE, list_label
from tilepipe.products.label_path import LabelPath
from tilepipe.products.like_image import Nearest, fill_like_image
from tilepipe.products.store import ZarrMask, create_mask
from tilepipe.storage import StoragePath, complete_or_absent, staged_locally
from tilepipe.storage.hashing import hash_of


def label_of_converted(spec: MaskSpec, image: Image, name: str) -> MaskSpec:
    """The description of a label of an image that is converted, from that of a mask on its grid."""
    return replace(
        spec, name=name, ngff="0.5", pixel_size=image.pixel_size or PixelSize(1.0, 1.0, "pixel"),
        origin=(0.0, 0.0), source=SOURCE, has_coordinates=False,
    )  # fmt: skip


def write_with_image(
    mask: ZarrMask,
    target: StoragePath,
    spec: MaskSpec,
    nearest: Nearest,
    image: Image,
    *,
    memory_limit: int | None = None,
) -> str:
    """Convert an image to OME-Zarr with all of its bands, and write its mask as a label in it.

    Both are streamed. The mask must be complete at level 0. An existing folder is replaced once
    the new one is complete.

    Parameters
    ----------
    spec
        The label, as `label_of_converted` describes it.
    nearest
        Maps the grid of the image to that of the mask.
    memory_limit
        Bytes that the run may use; the conversion takes at most half of them.

    Returns
    -------
    str
        The hash of all files (`tilepipe.storage.hashing.hash_of`).
    """
    reading = Reading(series=image.reading.series, nodata=image.reading.nodata)
    limit = MEMORY_LIMIT if memory_limit is None else min(MEMORY_LIMIT, memory_limit // 2)
    with staged_locally(target) as local:
        with complete_or_absent(local) as part:
            convert(image.path, part, reading=reading, memory_limit=limit)
            label = LabelPath(part, spec.name)
            fill_like_image(create_mask(label.path, spec), mask, nearest)
            list_label(label)
        return hash_of(local)
