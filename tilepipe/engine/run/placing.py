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
    y, x = _scale_told(plan.mask) or (level.scale_y, level.scale_x)
    return ImagePlace(_name(plan), whole.height, whole.width, y, x)


def place_without_image(spec: MaskSpec, plan: Plan | None) -> ImagePlace | None:
    """The same without the image; None where its scale is known from that alone."""
    name = spec.name if plan is None else _name(plan)
    told = _scale_told(spec)
    if told is None:
        is_coarser = plan is not None and (plan.image.level > 0 or plan.image.factors is not None)
        return None if is_coarser else ImagePlace(name, spec.height, spec.width)
    y, x = told
    return ImagePlace(name, round(spec.height * y), round(spec.width * x), y, x)


def _scale_told(spec: MaskSpec) -> tuple[float, float] | None:
    """Rows and columns of the image for each of a mask, as its origin tells; None if it does not.

    The centre of the first pixel of a mask that is f times coarser lies (f - 1) / 2 pixels of the
    image further in, and `MaskSpec.origin` is that distance.
    """
    size = spec.pixel_size
    if size is None or not size.is_sound:
        return None
    sides = zip(spec.origin, (size.y, size.x), strict=True)
    y, x = (float(f"{1 / (1 - 2 * start / side):.12g}") for start, side in sides)
    return y, x


def _name(plan: Plan) -> str:
    return plan.image.path.rstrip("/").rpartition("/")[2]


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
