"""The scale and offset that a file declares for its bands: ``value * scale + offset``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.images.validity import Validity

Scaling = tuple[tuple[float, float], ...]
"""(scale, offset) of each band; empty where no band has one that changes anything."""

UNSCALED = np.dtype(np.float32)
"""What pixels are when scale and offset are applied."""

STRIP_VALUES = 1 << 18
"""About how many values are held as doubles at a time."""


def scaling_of(scales: tuple[float, ...], offsets: tuple[float, ...]) -> Scaling:
    """Scales and offsets as a file lists them, empty where they change nothing."""
    pairs = tuple((float(s), float(o)) for s, o in zip(scales, offsets, strict=True))
    return () if all(pair == (1.0, 0.0) for pair in pairs) else pairs


def require_scaling(path: str, scaling: Scaling) -> None:
    """Refuse to apply what is not there.

    Raises
    ------
    InputError
        The file declares no scale or offset.
    """
    if not scaling:
        raise InputError(f"{path}: declares no scale or offset; leave out --unscale")


def unscaled(pixels: NDArray[Any], scaling: Scaling, valid: Validity | None) -> NDArray[Any]:
    """Pixels (height, width, bands) as float32, scale and offset applied; NaN where not valid."""
    result = np.empty(pixels.shape, UNSCALED)
    scales, offsets = (np.array(values) for values in zip(*scaling, strict=True))
    step = max(1, STRIP_VALUES // (pixels.shape[1] * pixels.shape[2]))
    for row in range(0, len(pixels), step):
        strip = slice(row, row + step)
        result[strip] = pixels[strip] * scales + offsets
        if valid is not None:
            np.copyto(result[strip], np.nan, where=~valid[strip])
    return result


def show_scaling(scaling: Scaling) -> str:
    """Scale and offset for a person, of each band where they differ: ``0.0001 and -0.1``."""
    shown = [f"{scale:.6g} and {offset:.6g}" for scale, offset in scaling]
    return shown[0] if len(set(shown)) == 1 else "; ".join(shown)
