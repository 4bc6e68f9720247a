"""A plan in words."""

from __future__ import annotations

import numpy as np

from tilepipe.engine.plan.plan import ImageFacts, Plan
from tilepipe.engine.plan.scale import ratio
from tilepipe.images.bands import show_bands
from tilepipe.images.base import SCALE_TOLERANCE, alike, show_pixel_size
from tilepipe.images.ground import crs_name


def show_scale(plan: Plan) -> str:
    """Whether and why the image is resampled for the model, in words."""
    image, wanted = plan.image, plan.model_pixel_size
    if wanted is None:
        return "not resampled: the model is for images without a scale"
    made = f"the model's {show_pixel_size(wanted)}"
    if image.factors is not None:
        assert image.pixel_size is not None, "resampling needs one"
        y, x = image.factors
        from_size = show_pixel_size(image.pixel_size.scaled(1 / y, 1 / x))
        return f"level {image.level} ({from_size}) {show_resampling(image)} to {made}"
    if image.pixel_size is not None and image.pixel_size.is_sound:
        y, x = ratio(image.pixel_size, wanted)
        if alike(y, 1) and alike(x, 1):
            return f"not resampled: within {SCALE_TOLERANCE:.0%} of {made}"
    return f"level {image.level} without resampling, as requested; not {made}"


def show_selection(plan: Plan) -> str | None:
    """Which band of the image becomes which band of the model, in words; None if it is obvious."""
    image = plan.image
    names = image.band_names or ("",) * image.bands
    if image.reading.bands is None and not (plan.model_bands and any(names)):
        return None
    numbers = [int(band) for band in image.reading.bands or range(1, image.bands + 1)]
    if not plan.model_bands:
        return show_bands(names, numbers) + (", in this order" if len(numbers) > 1 else "")
    pairs = zip(plan.model_bands, numbers, names, strict=True)
    shown = [f"{wanted} from band {number} {name}".strip() for wanted, number, name in pairs]
    return ", ".join(shown)


def show_rescaling(plan: Plan) -> str | None:
    """How values are rescaled for the model, in words; None if they are not."""
    reading = plan.image.reading
    if reading.rescale is None:
        return None
    low, high = reading.rescale
    if np.dtype(reading.dtype).kind == "f":
        return f"{low:g} .. {high:g} to 0 .. 1, not clipped"
    limits = np.iinfo(np.dtype(reading.dtype))
    return f"{low:g} .. {high:g} to {limits.min} .. {limits.max}, clipped"


def show_ground(plan: Plan) -> str | None:
    """The size of pixels on the ground, in words; None if it is that of the CRS."""
    image = plan.image
    if image.crs_pixel_size is None or plan.mask.crs is None:
        return None
    return (
        f"{show_pixel_size(image.crs_pixel_size)} in {crs_name(plan.mask.crs)} is "
        f"{show_pixel_size(image.pixel_size)} on the ground at the image's centre; scale and "
        "areas refer to the ground"
    )


def show_region(plan: Plan) -> str:
    """The part of the image that is computed, in words."""
    region = plan.region
    if region is None:
        return "all of the image"
    return f"{region.share:.1%} of the image in cells of {region.cell}: {region.how}"


def show_resampling(facts: ImageFacts) -> str:
    """How the level is resampled, in words: ``resampled by 2``, or not at all."""
    if facts.factors is None:
        return "not resampled"
    y, x = facts.factors
    return f"resampled by {y:.5g}" + ("" if y == x else f" x {x:.5g}")
