"""The OME-NGFF metadata of an image that tilepipe converts."""

from __future__ import annotations

import math
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.images.base import UNITS_IN_METRES, Image
from tilepipe.images.ngff import ATTRIBUTE, BAND_NAMES, DISPLAY_LABELS, VALID, unnamed
from tilepipe.images.ranges import ShownRange

NGFF_UNITS = frozenset(UNITS_IN_METRES) - {"us survey foot"}
"""Units that NGFF has a word for; others are kept beside it."""

RGB = ("red", "green", "blue")
"""Names of bands that have a colour of their own."""

COLOURS = ("FF0000", "00FF00", "0000FF", "FF00FF", "FFFF00", "00FFFF", "FF8000", "8000FF")
"""Colours of bands, from the first one on."""


def attributes_of(
    image: Image,
    levels: int,
    nodata: tuple[float | None, ...],
    valid: bool,
    ranges: list[ShownRange],
) -> dict[str, Any]:
    """The attributes of a converted image's group.

    Parameters
    ----------
    image
        The image that is converted.
    levels
        The number of its levels.
    nodata
        Of each band; empty if there is none.
    valid
        Whether there are arrays of validity.
    ranges
        Of each band; empty for bytes, which are shown from 0 to 255.
    """
    size = image.pixel_size
    y, x = (size.y, size.x) if size else (1.0, 1.0)
    unit = {"unit": size.unit} if size and size.unit in NGFF_UNITS else {}
    multiscale = {
        "name": Path(image.path).name,
        "axes": [
            {"name": "c", "type": "channel"},
            {"name": "y", "type": "space", **unit},
            {"name": "x", "type": "space", **unit},
        ],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, y * 2**level, x * 2**level]}
                ],
            }
            for level in range(levels)
        ],
    }
    own: dict[str, Any] = {
        "crs": image.crs,
        "transform": image.transform,
        "control": image.control.to_json() if image.control else None,
        # Applied where the image is read that way.
        "scaling": None if image.reading.unscale else image.scaling,
        # JSON has no NaN.
        "nodata": [None if n is None else str(n) if not math.isfinite(n) else n for n in nodata],
        VALID: valid,
        BAND_NAMES: image.band_names if any(image.band_names) else None,
        "unit": size.unit if size and not unit else None,
    }
    own = {key: value for key, value in own.items() if value}
    ome = {"version": "0.5", "multiscales": [multiscale], **_omero(image, ranges)}
    return {"ome": ome, **({ATTRIBUTE: own} if own else {})}


def _omero(image: Image, ranges: list[ShownRange]) -> dict[str, Any]:
    """Names, colours and ranges of the bands, without which viewers show nameless grey layers.

    Three bands of bytes are red, green and blue. Of more, at first a viewer shows those that are
    called so, or the first three.
    """
    numbers = range(image.bands)
    names = image.band_names or ("",) * image.bands
    labels = [name or unnamed(number) for number, name in zip(numbers, names, strict=True)]
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    windows: list[dict[str, Any]] = [window] * image.bands
    if image.dtype != np.uint8:
        windows = [shown.ngff for shown in ranges]
    elif image.bands == 3 and not any(names):
        labels = list(DISPLAY_LABELS)
    colours = _colours(labels, image)
    lower = [label.lower() for label in labels]
    shown = [lower.index(name) for name in RGB] if set(RGB) <= set(lower) else list(numbers[:3])
    channels = [
        {"label": labels[n], "color": colours[n], "active": n in shown, "window": windows[n]}
        for n in numbers
    ]
    return {"omero": {"channels": channels}}


def _colours(labels: list[str], image: Image) -> list[str]:
    """A colour for each band: its own for red, green and blue, and distinct ones for others."""
    if image.bands == 1:
        return ["FFFFFF"]
    own = dict(zip(RGB, COLOURS, strict=False))
    named = [own.get(label.lower()) for label in labels]
    if image.bands == 3 or not any(named):
        return [COLOURS[number % len(COLOURS)] for number in range(image.bands)]
    free = cycle(colour for colour in COLOURS if colour not in named)
    return [colour or next(free) for colour in named]
