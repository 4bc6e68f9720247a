"""What a user should know of an image before its mask is believed."""

from __future__ import annotations

from tilepipe.engine.options import RunOptions
from tilepipe.engine.scale import base_pixel_size
from tilepipe.images.base import Image, show_pixel_size
from tilepipe.images.observed import border_fill, notes_of

MICROSCOPE = (0.05e-6, 20e-6)
"""Metres of a pixel that optics and scanners give: finer is no light, coarser no microscope."""

GROUND = (1e-3, 100e3)
"""Metres of a pixel on the ground: from close-up to coarse climate grids."""

SLIDES = ("SVS", "NDPI")
"""Kinds that are slides, whatever their bands."""


def cautions(image: Image, options: RunOptions) -> tuple[str, ...]:
    """Warnings about an image: what its file says that is not applied, and what looks wrong.

    Looks at some of its pixels.
    """
    fill = border_fill(image)
    found = (implausible_size(image, options), None if fill is None else str(fill))
    return (*notes_of(image), *(warning for warning in found if warning is not None))


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
