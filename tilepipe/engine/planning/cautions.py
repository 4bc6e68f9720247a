"""What a user should know of an image before its mask is believed."""

from __future__ import annotations

from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.scale import Scale, base_pixel_size
from tilepipe.engine.planning.likeness import unlike_warning
from tilepipe.images.bands import misplaced, show_bands
from tilepipe.images.base import Image, show_pixel_size
from tilepipe.images.observed import border_fill, notes_of
from tilepipe.models.specs import Model

MICROSCOPE = (0.05e-6, 20e-6)
"""Metres of a pixel that optics and scanners give: finer is no light, coarser no microscope."""

GROUND = (1e-3, 100e3)
"""Metres of a pixel on the ground: from close-up to coarse climate grids."""

SLIDES = ("SVS", "NDPI")
"""Kinds that are slides, whatever their bands."""


def plan_warnings(image: Image, model: Model, options: RunOptions, scale: Scale) -> tuple[str, ...]:
    """What a user should know before a run is believed; looks at some of the image's pixels.

    Parameters
    ----------
    image
        As `tilepipe.engine.inputs.open_input` opened it.
    scale
        At which it is read.
    """
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
    """The warning for bands whose names and order in the file disagree, where nobody chose."""
    if options.bands is not None:
        return None
    names, wanted = image.band_names, model.input.band_names
    # Names may be a writer's default: GDAL calls any three bands of 8 bits red, green and blue.
    numbers = [int(band) for band in image.reading.bands or ()]
    if numbers != sorted(numbers):
        return (
            f"model {model.name} gets the image's bands by name, in another order than the file's "
            f"({show_bands(names, numbers)}); use --bands if the image's names are wrong"
        )
    if not misplaced(names, wanted):
        return None
    return (
        f"the image's bands are {show_bands(names)}, and model {model.name} takes "
        f"{', '.join(wanted)}: it gets them in the order of the file; use --bands if that is wrong"
    )


def implausible_size(image: Image, options: RunOptions) -> str | None:
    """The warning for a pixel size that no image of this kind has."""
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
        return None  # an electron microscope's, a telescope's ...
    if least <= min(metres) and max(metres) <= most:
        return None
    said = "--pixel-size says" if options.pixel_size is not None else "the image says"
    way_out = "" if options.pixel_size is not None else "; if it is wrong, say --pixel-size"
    return (
        f"{said} {show_pixel_size(size)}, which cannot be true of {kind}: scale and areas follow "
        f"from it{way_out}"
    )
