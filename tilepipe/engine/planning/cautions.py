"""Warnings about an image that a user should know before trusting its mask."""

from __future__ import annotations

from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.scale import Scale, base_pixel_size
from tilepipe.engine.planning.likeness import unlike_warning
from tilepipe.images.bands import misplaced, show_bands
from tilepipe.images.base import Image, show_pixel_size
from tilepipe.images.observed import border_fill, notes_of
from tilepipe.models.specs import Model

MICROSCOPE = (0.05e-6, 20e-6)
"""Plausible pixel sizes of microscopes and slide scanners, in metres."""

GROUND = (1e-3, 100e3)
"""Plausible pixel sizes on the ground in metres: from close-ups to coarse climate grids."""

SLIDES = ("SVS", "NDPI")
"""Formats that hold slides only."""


def plan_warnings(image: Image, model: Model, options: RunOptions, scale: Scale) -> tuple[str, ...]:
    """The warnings about an image for a model; reads a sample of the image's pixels."""
    fill = border_fill(image)
    found = (
        scale.warning,
        _inexact(model),
        order_of_bands(image, model, options),
        unlike_warning(image, model, scale.level),
        *notes_of(image),
        implausible_size(image, options),
        None if fill is None else str(fill),
    )
    return tuple(warning for warning in found if warning is not None)


def _inexact(model: Model) -> str | None:
    reason = model.predictor.inexact
    if reason is None:
        return None
    return (
        f"model {model.name} cannot be tiled exactly ({reason}): its answer depends on where tiles "
        "lie"
    )


def order_of_bands(image: Image, model: Model, options: RunOptions) -> str | None:
    """The warning for bands whose names and order in the file disagree, without `--bands`."""
    if options.bands is not None:
        return None
    names, wanted = image.band_names, model.input.band_names
    # Names may be a default: GDAL calls any three 8-bit bands red, green and blue.
    numbers = [int(band) for band in image.reading.bands or ()]
    if numbers != sorted(numbers):
        return (
            f"model {model.name} gets the image's bands by name, in an order that differs from the "
            f"file's ({show_bands(names, numbers)}); use --bands if the image's names are wrong"
        )
    if not misplaced(names, wanted):
        return None
    return (
        f"the image's bands are {show_bands(names)}, but model {model.name} takes "
        f"{', '.join(wanted)}: it gets them in the order of the file; use --bands if that is wrong"
    )


def implausible_size(image: Image, options: RunOptions) -> str | None:
    """The warning for a pixel size that is implausible for this kind of image."""
    size = base_pixel_size(image, options)
    metres = None if size is None or not size.is_sound else size.metres()
    if metres is None:
        return None
    colour = image.bands == 3 and image.dtype == "uint8"
    if image.crs is not None:
        least, most = GROUND
        kind = "a georeferenced image"
    elif colour or image.kind in SLIDES:
        least, most = MICROSCOPE
        kind = "a slide"
    else:
        return None  # from an electron microscope, a telescope ...
    if least <= min(metres) and max(metres) <= most:
        return None
    given = options.pixel_size is not None
    return (
        f"the pixel size {'given' if given else 'in the image'}, {show_pixel_size(size)}, is "
        f"implausible for {kind}, and scale and areas depend on it"
        + ("" if given else "; if it is wrong, give --pixel-size")
    )
