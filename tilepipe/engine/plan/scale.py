"""The scale at which an image is read: its level, and how that is resampled."""

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
"""An image that is coarser than the model expects by more than this factor is refused."""
LARGEST_REDUCTION = 64.0
"""An image whose nearest level is finer by more than this factor is refused."""

LARGEST_SPREAD = 1.1
"""Pixels may differ in size from those at the centre by this factor without a warning."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How an image is read for a model."""

    level: int
    factors: Factors | None
    """Rows and columns of the level for each pixel that is read; None: not resampled."""
    pixel_size: PixelSize | None
    """Pixel size of the grid that is read."""
    warning: str | None = None
    crs_pixel_size: PixelSize | None = None
    """The pixel size in the image's CRS, if it differs from that on the ground."""


def choose_scale(image: Image, model: Model, options: RunOptions) -> Scale:
    """The coarsest level that is not coarser than the model's pixel size, resampled to that size.

    It is not resampled within `SCALE_TOLERANCE`, if the user names a level, or if the model has no
    pixel size. If level 0 is coarser, it is enlarged. Pixel sizes are those on the ground.

    Raises InputError when the model has a pixel size, and that of the image is missing,
    implausible, contradictory, not square or too different; when the level does not exist.
    """
    scale = _choose_scale(image, model, options)
    ground = _ground(image, options)
    if ground is None:
        return scale
    y, x = scale.factors or (1.0, 1.0)
    size = _of_level(ground.crs_pixel_size, image.levels[scale.level]).scaled(y, x)
    return replace(scale, crs_pixel_size=size)


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
            f"{show_pixel_size(wanted)} that model {model.name} is made for; use a model made for "
            "such images, or choose a --level to read without resampling"
        )
    if min(y, x) < 1 / LARGEST_REDUCTION:
        raise InputError(
            f"{image.path}: its nearest level, {level}, is {1 / min(y, x):.3g} times as fine as "
            f"the {show_pixel_size(wanted)} that model {model.name} is made for; use a model made "
            "for such images, or choose a --level to read without resampling"
        )
    here = _of_level(size, image.levels[level])
    uneven = _uneven(image, options)
    if alike(y, 1) and alike(x, 1):
        return Scale(level, None, here, uneven)
    warning = uneven
    if max(y, x) > 1 + SCALE_TOLERANCE:
        warning = (
            f"the image is coarser than model {model.name} expects, {show_pixel_size(here)}, and "
            f"is enlarged to {show_pixel_size(wanted)}: fine detail is missing, so expect a worse "
            "mask" + (f"; {uneven}" if uneven else "")
        )
    target = _in_unit(wanted, size.unit)
    return Scale(level, (target.y / here.y, target.x / here.x), target, warning)


def base_pixel_size(image: Image, options: RunOptions) -> PixelSize | None:
    """The pixel size of level 0: the option, or the size on the ground, or that of the file."""
    if options.pixel_size is None:
        ground = _ground(image, options)
        return image.pixel_size if ground is None else ground.pixel_size
    if options.pixel_size >= 1000:
        metres = float(f"{options.pixel_size * 1e-6:.12g}")
        return PixelSize(metres, metres, "meter")
    return PixelSize(options.pixel_size, options.pixel_size, "micrometer")


def _ground(image: Image, options: RunOptions) -> Ground | None:
    """The image's scale on the ground, unless the user gives a pixel size."""
    return ground_of(image) if options.pixel_size is None else None


def _uneven(image: Image, options: RunOptions) -> str | None:
    """The warning for an image whose scale on the ground is uneven."""
    ground = _ground(image, options)
    if ground is None or ground.spread <= LARGEST_SPREAD:
        return None
    return (
        f"the scale is that at the image's centre; elsewhere in {crs_name(image.crs or '')}, "
        f"pixels differ from it by a factor of up to {ground.spread:.3g}: expect a worse mask "
        "there, or warp the image to a local CRS first"
    )


def _reliable(image: Image, model: Model, options: RunOptions) -> PixelSize:
    """The pixel size of level 0, if it is plausible and can be compared with the model's."""
    wanted = model.input.pixel_size
    assert wanted is not None, "the model has one"
    size, ground = base_pixel_size(image, options), _ground(image, options)
    fault = None
    if options.pixel_size is None and image.pixel_size_doubt is not None:
        fault = image.pixel_size_doubt
    elif size is None:
        fault = "has no pixel size"
    elif not size.is_sound:
        fault = f"has an impossible pixel size, {show_pixel_size(size)}"
    elif _cannot_be_compared(size, wanted):
        fault = f"its pixel size is in {size.unit}, which cannot be compared"
    else:
        # If the CRS makes them oblong on the ground, each axis is resampled by its own factor.
        given = size if ground is None else ground.crs_pixel_size
        if alike(given.y, given.x) and alike(given.x, given.y):
            return size
        fault = f"its pixels are not square, {show_pixel_size(given)}"
    raise InputError(
        f"{image.path}: {fault}, and model {model.name} is made for {show_pixel_size(wanted)}; "
        "give --pixel-size, or choose a --level to read without resampling"
    )


def _cannot_be_compared(size: PixelSize, wanted: PixelSize) -> bool:
    return size.unit != wanted.unit and (size.metres() is None or wanted.metres() is None)


def _off(
    image: Image, model: Model, level: int, size: PixelSize | None, options: RunOptions
) -> str | None:
    """The warning for a level that the user chose and that is not at the model's scale."""
    wanted = model.input.pixel_size
    assert wanted is not None, "the model has one"
    made = f"model {model.name} was made for {show_pixel_size(wanted)}"
    if options.pixel_size is None and image.pixel_size_doubt is not None:
        return f"{image.pixel_size_doubt}; {made}"
    if size is None or not size.is_sound:
        return f"the image has no pixel size; {made}"
    if _cannot_be_compared(size, wanted):
        return f"pixels in {size.unit} cannot be compared; {made}"
    y, x = ratio(size, wanted)
    if alike(y, 1) and alike(x, 1):
        return None
    return (
        f"pixels of level {level} are {show_pixel_size(size)}, {math.sqrt(y * x):.2f} times the "
        f"{show_pixel_size(wanted)} that model {model.name} was made for, and are not resampled: "
        "expect a worse mask"
    )


def ratio(size: PixelSize, wanted: PixelSize) -> tuple[float, float]:
    """How many times coarser a pixel size is than the wanted one, (y, x)."""
    size = _in_unit(size, wanted.unit)
    return size.y / wanted.y, size.x / wanted.x


def _in_unit(size: PixelSize, unit: str) -> PixelSize:
    """A pixel size converted to another unit of length."""
    if size.unit == unit:
        return size
    factor = UNITS_IN_METRES[size.unit] / UNITS_IN_METRES[unit]
    # Rounded, so that 250 nm are 0.25 um and not 0.25000000000000006.
    y, x = (float(f"{value * factor:.12g}") for value in (size.y, size.x))
    return PixelSize(y, x, unit)


def _of_level(size: PixelSize, level: Level) -> PixelSize:
    return size.scaled(level.scale_y, level.scale_x)
