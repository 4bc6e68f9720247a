"""How a mask lies on level 0 of its image: as its run tells, its own origin, or its size."""

from __future__ import annotations

from pathlib import Path

from tilepipe.engine.plan.plan import Plan
from tilepipe.errors import InputError
from tilepipe.images.base import Image
from tilepipe.objects.table import ImagePlace
from tilepipe.products.base import MaskSpec


def image_place(image: Image, plan: Plan) -> ImagePlace:
    """How a mask lies on level 0 of its image, which is opened at the model's scale."""
    level, whole = image.levels[plan.image.level], image.levels[0]
    name = plan.image.path.rstrip("/").rpartition("/")[2]
    return ImagePlace(name, whole.height, whole.width, level.scale_y, level.scale_x)


def place_of(spec: MaskSpec, plan: Plan | None) -> ImagePlace | None:
    """How a mask lies on its image, as far as its own origin tells.

    The centre of the first pixel of a mask that is f times coarser lies (f - 1) / 2 pixels of the
    image further in, and `MaskSpec.origin` is that distance.
    """
    name = spec.name if plan is None else plan.image.path.rstrip("/").rpartition("/")[2]
    size = spec.pixel_size
    if size is None or not size.is_sound:
        return ImagePlace(name, spec.height, spec.width)
    y, x = (
        1 / (1 - 2 * start / side)
        for start, side in zip(spec.origin, (size.y, size.x), strict=True)
    )
    y, x = (float(f"{each:.12g}") for each in (y, x))
    return ImagePlace(name, round(spec.height * y), round(spec.width * x), y, x)


def placed_by_size(image: Image, spec: MaskSpec) -> ImagePlace:
    """How a mask lies on an image that it is of as a whole, at whatever scale.

    Raises InputError when their proportions differ.
    """
    whole = image.levels[0]
    y, x = whole.height / spec.height, whole.width / spec.width
    if abs(y / x - 1) > 0.02 + 1 / min(spec.height, spec.width):
        raise InputError(
            f"{image.path}: has {whole.width} x {whole.height} pixels, and the mask "
            f"{spec.width} x {spec.height} (width x height), so it is not of the whole image"
        )
    return ImagePlace(Path(image.path).name, whole.height, whole.width, y, x)
