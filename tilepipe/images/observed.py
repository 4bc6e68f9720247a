"""What the pixels of an image show that its file does not state: fill, and alpha that is data.

Looking has a bounded cost, whatever the size of the image, and always the same result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import UnreadableError
from tilepipe.grid import Window
from tilepipe.images.base import Image
from tilepipe.images.reading import Reading
from tilepipe.images.windowed import WindowedImage

LARGEST_LEVEL = 12 << 20
"""Values (pixels times bands) of a level up to which all of it is read."""

SMALLEST_SIDE = 128
"""Pixels of the longer side below which a level shows too little."""

MOST_PLACES = 24
"""Places down and across, where no level is small enough to be read whole."""

MOST_BYTES = 96 << 20
"""Bytes of chunks that are decoded for the sake of a look."""

LEAST_FILL = 0.02
"""Share of an image below which a border of one value is ignored."""

ALPHA_VALUES = 8
"""Most values between 0 and the maximum in an alpha band that is alpha, with soft edges."""

ALPHA_SHARE = 0.2
"""Share of pixels with such a value from which an alpha band may be data."""


@dataclass(frozen=True, slots=True)
class Fill:
    """Pixels of one value that reach in from an image's borders."""

    value: float
    share: float
    """Of the image; about, where only samples were looked at."""

    def __str__(self) -> str:
        return (
            f"{self.share:.0%} of the image, along its borders, is {self.value:g} in every band, "
            "and the file declares no nodata value: if that is fill and not data, set "
            f"--nodata {self.value:g}"
        )


def notes_of(image: Image) -> tuple[str, ...]:
    """Return the image's notes, with one on its alpha band where that looks like data."""
    alpha = alpha_note(image)
    return image.notes if alpha is None else (*image.notes, alpha)


def border_fill(image: Image) -> Fill | None:
    """Find a large area along the borders of a georeferenced image with one value in all bands.

    None where there is none, where the file or the user says what is no data, for colours of a
    palette, and for slides, whose glass is white without being fill.
    """
    said = image.nodata is not None or image.reading.nodata is not None
    masked = isinstance(image, WindowedImage) and (image.masked or image.palette)
    if not image.grid.is_placed or said or masked:
        return None
    # Nodata is compared with what the file holds, before anything is applied to it.
    as_stored = replace(image.reading, unscale=False, rescale=None, dtype=None)
    stored = image.read_as(as_stored) if isinstance(image, WindowedImage) else image
    pixels = _looked_at(stored)
    if pixels is None:
        return None
    first = pixels[..., 0]
    constant = np.ones(first.shape, np.bool_)
    for band in range(1, pixels.shape[2]):
        constant &= pixels[..., band] == first
    border = np.ones(constant.shape, np.bool_)
    border[1:-1, 1:-1] = False
    values, counts = np.unique(first[border & constant], return_counts=True)
    if not values.size:
        return None
    value = values[counts.argmax()]
    # Samples at the borders stand for half as much as the others.
    weights = np.ones(constant.shape)
    weights[[0, -1]] /= 2
    weights[:, [0, -1]] /= 2
    share = float(np.average(_from_border(constant & (first == value)), weights=weights))
    return Fill(float(value), share) if share >= LEAST_FILL else None


def alpha_note(image: Image) -> str | None:
    """Note an alpha band that looks like data (infrared, for example)."""
    if not isinstance(image, WindowedImage) or image.alpha_band is None:
        return None
    alpha = _looked_at(image.read_as(Reading(bands=(image.alpha_band,))))
    if alpha is None:
        return None
    largest = np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else alpha.max()
    between = alpha[(alpha != 0) & (alpha != largest)]
    if len(np.unique(between)) <= ALPHA_VALUES or between.size < ALPHA_SHARE * alpha.size:
        return None
    numbers = ",".join(map(str, range(1, image.bands + 2)))
    return (
        "the image's alpha band, which says where there is data, holds many values and may be a "
        f"band of its own (infrared?): --bands {numbers} takes it as one"
    )


def _looked_at(image: Image) -> NDArray[Any] | None:
    """Read pixels from all over an image, (rows, columns, bands); None where that fails."""
    fit = [
        number
        for number, level in enumerate(image.levels)
        if level.height * level.width * image.bands <= LARGEST_LEVEL
        and max(level.height, level.width) >= min(SMALLEST_SIDE, *image.shape[:2])
    ]
    try:
        if fit:
            level = image.levels[fit[0]]
            return image.read(Window(0, 0, level.height, level.width), fit[0])
        return _sampled(image)
    except UnreadableError:
        return None  # the run will name it


def _sampled(image: Image) -> NDArray[Any] | None:
    """Read single pixels of the smallest level, evenly spaced from border to border."""
    number = len(image.levels) - 1
    size, (rows, columns) = image.levels[number], image.chunks[number]
    pixel = (image.bands + 1) * image.dtype.itemsize
    chunks = MOST_BYTES // (rows * columns * pixel)
    whole_rows = columns >= size.width
    count = int(min(MOST_PLACES, chunks if whole_rows else chunks**0.5))
    if count < 8:
        return None  # too little would be seen
    down, across = (
        np.unique(np.linspace(0, side - 1, count).astype(int)) for side in (size.height, size.width)
    )
    if whole_rows:
        return np.stack(
            [image.read(Window(int(y), 0, 1, size.width), number)[0, across] for y in down]
        )
    return np.stack(
        [
            np.stack([image.read(Window(int(y), int(x), 1, 1), number)[0, 0] for x in across])
            for y in down
        ]
    )


def _from_border(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the parts of a mask that are 4-connected with the border of the picture."""
    from scipy import ndimage

    parts, _ = ndimage.label(inside)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.isin(parts, np.unique(border[border > 0]))
