"""At which scale an image is read: which level, and resampled to what."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tilepipe.engine.options import RunOptions
from tilepipe.errors import InputError
from tilepipe.images.base import (
    SCALE_TOLERANCE,
    UNITS_IN_METRES,
    Image,
    Level,
    PixelSize,
    alike,
    show_pixel_size,
)
from tilepipe.images.ground import Ground, crs_name, ground_of
from tilepipe.images.resampled import Factors

if TYPE_CHECKING:
    from tilepipe.models.file import Model

LARGEST_ENLARGEMENT = 4.0
"""An image this many times coarser than the model's is refused: the model is for something else."""
LARGEST_REDUCTION = 64.0
"""And so is a level this many times finer, where there is none closer."""

LARGEST_SPREAD = 1.1
"""How many times as large or small as at the centre pixels may be elsewhere without a warning."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How an image is read for a model."""

    level: int
    factors: Factors | None
    """Rows and columns of that level for each pixel of the model's; None: it is read as it is."""
    pixel_size: PixelSize | None
    """Of what is read."""
    warning: str | None = None
    crs_pixel_size: PixelSize | None = None
    """What the image's CRS says of it, where that is not so on the ground."""


def choose_scale(image: Image, model: Model, options: RunOptions) -> Scale:
    """The coarsest level that is no coarser than the model's pixel size, resampled to it.

    Pixel sizes are those on the ground, where the lengths of the image's CRS are not.

    Not resampled within `SCALE_TOLERANCE`, nor where the user names a level, nor for a model
    without a pixel size. Where even level 0 is coarser, it is enlarged.

    Raises
    ------
    InputError
        When the model has a pixel size and what the image says of its own is nothing, nonsense,
        contradictory or not square; when the level does not exist; when the two are too far apart.
    """
    scale = _choose_scale(image, model, options)
    ground = _ground(image, options)
    if ground is None:
        return scale
    y, x = scale.factors or (1.0, 1.0)
    said = _of_level(ground.crs_pixel_size, image.levels[scale.level]).scaled(y, x)
    return replace(scale, crs_pixel_size=said)


def _choose_scale(image: Image, model: Model, options: RunOptions) -> Scale:
    wanted, named = model.input.pixel_size, options.level
    if named is not None and named >= len(image.levels):
        raise InputError(
            f"{image.path}: has no level {named}; its levels are 0 to {len(image.levels) - 1}"
        )
    if wanted is None or named is not None:
        level = named or 0
        size = base_pixel_size(image, options)
        size = size and _of_level(size, image.levels[level])
        warning = None if wanted is None else _off(image, model, level, size, options)
        return Scale(level, None, size, warning)

    size = _reliable(image, model, options)
    ratios = [ratio(_of_level(size, level), wanted) for level in image.levels]
    level = max(
        (i for i, r in enumerate(ratios) if max(r) <= 1 + SCALE_TOLERANCE + 1e-9), default=0
    )
    y, x = ratios[level]
    if max(y, x) > LARGEST_ENLARGEMENT:
        raise InputError(
            f"{image.path}: its pixels are {max(y, x):.3g} times as coarse as the "
            f"{show_pixel_size(wanted)} that model {model.name} is made for; take a model made for "
            "such images, or name the --level to take as it is"
        )
    if min(y, x) < 1 / LARGEST_REDUCTION:
        raise InputError(
            f"{image.path}: its nearest level, {level}, is {1 / min(y, x):.3g} times as fine as "
            f"the {show_pixel_size(wanted)} that model {model.name} is made for; take a model made "
            "for such images, or name the --level to take as it is"
        )
    here = _of_level(size, image.levels[level])
    uneven = _uneven(image, options)
    if alike(y, 1) and alike(x, 1):
        return Scale(level, None, here, uneven)
    warning = uneven
    if max(y, x) > 1 + SCALE_TOLERANCE:
        warning = (
            f"the image is coarser than model {model.name} expects, {show_pixel_size(here)}, and "
            f"is enlarged to {show_pixel_size(wanted)}: what is finer than its own pixels is "
            "missing, so expect a worse mask" + (f"; {uneven}" if uneven else "")
        )
    target = _in_unit(wanted, size.unit)
    return Scale(level, (target.y / here.y, target.x / here.x), target, warning)


def base_pixel_size(image: Image, options: RunOptions) -> PixelSize | None:
    """Of level 0: what the user says, or else its true size on the ground, or what the file says.

    The one place where it is decided which of these a run goes by.
    """
    if options.pixel_size is None:
        ground = _ground(image, options)
        return image.pixel_size if ground is None else ground.pixel_size
    if options.pixel_size >= 1000:
        metres = float(f"{options.pixel_size * 1e-6:.12g}")
        return PixelSize(metres, metres, "meter")
    return PixelSize(options.pixel_size, options.pixel_size, "micrometer")


def _ground(image: Image, options: RunOptions) -> Ground | None:
    """Of the image, unless the user says how large its pixels are."""
    return ground_of(image) if options.pixel_size is None else None


def _uneven(image: Image, options: RunOptions) -> str | None:
    """The warning for an image that is of one scale in no CRS of this kind."""
    ground = _ground(image, options)
    if ground is None or ground.spread <= LARGEST_SPREAD:
        return None
    return (
        f"the scale is that at the image's centre; elsewhere in {crs_name(image.crs or '')}, "
        f"pixels differ from it by up to {ground.spread:.3g} times: expect a worse mask there, or "
        "warp the image to a CRS of its region first"
    )


def _reliable(image: Image, model: Model, options: RunOptions) -> PixelSize:
    """The pixel size of level 0, if it can be relied on and compared with the model's."""
    wanted = model.input.pixel_size
    assert wanted is not None, "a model without one never asks"
    size = base_pixel_size(image, options)
    made = f"and model {model.name} is made for {show_pixel_size(wanted)}"
    way_out = "say it with --pixel-size, or name the --level to take as it is"
    if options.pixel_size is None and image.pixel_size_doubt is not None:
        raise InputError(f"{image.path}: {image.pixel_size_doubt}, {made}; {way_out}")
    if size is None:
        raise InputError(f"{image.path}: does not say its pixel size, {made}; {way_out}")
    if not size.is_sound:
        raise InputError(f"{image.path}: says {show_pixel_size(size)}, {made}; {way_out}")
    if size.unit != wanted.unit and (size.metres() is None or wanted.metres() is None):
        raise InputError(
            f"{image.path}: its pixel size is in {size.unit}, which cannot be compared, {made}; "
            f"{way_out}"
        )
    # Where the CRS makes them oblong on the ground, each axis is resampled by its own factor.
    ground = _ground(image, options)
    said = size if ground is None else ground.crs_pixel_size
    if not (alike(said.y, said.x) and alike(said.x, said.y)):
        raise InputError(
            f"{image.path}: its pixels are not square, {show_pixel_size(said)}, {made}; {way_out}"
        )
    return size


def _off(
    image: Image, model: Model, level: int, size: PixelSize | None, options: RunOptions
) -> str | None:
    """The warning for a level that the user named, where it is not at the model's scale."""
    wanted = model.input.pixel_size
    assert wanted is not None, "a model without one is at home everywhere"
    made = f"model {model.name} was made for {show_pixel_size(wanted)}"
    if options.pixel_size is None and image.pixel_size_doubt is not None:
        return f"{image.pixel_size_doubt}; {made}"
    if size is None or not size.is_sound:
        return f"the image does not say its pixel size; {made}"
    if size.unit != wanted.unit and (size.metres() is None or wanted.metres() is None):
        return f"pixels in {size.unit} cannot be compared; {made}"
    y, x = ratio(size, wanted)
    if alike(y, 1) and alike(x, 1):
        return None
    return (
        f"pixels of level {level} are {show_pixel_size(size)}, {math.sqrt(y * x):.2f} times the "
        f"{show_pixel_size(wanted)} that model {model.name} was made for, and are taken as they "
        "are: expect a worse mask"
    )


def ratio(size: PixelSize, wanted: PixelSize) -> tuple[float, float]:
    """How many times as coarse as wanted, (y, x)."""
    size = _in_unit(size, wanted.unit)
    return size.y / wanted.y, size.x / wanted.x


def _in_unit(size: PixelSize, unit: str) -> PixelSize:
    """A length of a known unit in another."""
    if size.unit == unit:
        return size
    factor = UNITS_IN_METRES[size.unit] / UNITS_IN_METRES[unit]
    # Fewer digits than a double has, so that 250 nm are 0.25 um and not 0.25000000000000006.
    y, x = (float(f"{value * factor:.12g}") for value in (size.y, size.x))
    return PixelSize(y, x, unit)


def _of_level(size: PixelSize, level: Level) -> PixelSize:
    return size.scaled(level.scale_y, level.scale_x)
