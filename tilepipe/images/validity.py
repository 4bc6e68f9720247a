"""Where pixels hold data, band by band.

Everywhere between a reader and the network, validity is a boolean array that broadcasts over
pixels of shape (height, width, bands): of shape (height, width, 1) where all bands agree, which is
almost everywhere, and (height, width, bands) where some pixel lacks data in some of its bands
only. None stands for "all of it is data".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.images.reading import NodataChoice

Validity = NDArray[np.bool_]
"""Shape (height, width, 1) or (height, width, bands)."""

STRIP_VALUES = 1 << 20
"""About how many values are compared at a time, so that what that takes is bounded."""


def validity(pixels: NDArray[Any], nodata: Sequence[float | None]) -> Validity | None:
    """Where pixels hold data as far as their values tell; None where all do.

    What is NaN or infinite is no data. So is a band's nodata value: in that band alone, where it is
    a value like -9999 that no sensor measures; only where no other band holds data either, where
    it is one that honest pixels hold too (see `is_ambiguous`), as GDAL has it for a whole pixel.

    Parameters
    ----------
    pixels
        Shape (height, width, bands), as the file has them.
    nodata
        Of each band, or empty where no band has one.
    """
    height, width, bands = pixels.shape
    values = [value if is_of(value, pixels.dtype) else None for value in nodata]
    if pixels.dtype.kind != "f" and not any(value is not None for value in values):
        return None
    step = max(1, STRIP_VALUES // (width * bands))
    found: Validity | None = None
    for row in range(0, height, step):
        strip = _validity(pixels[row : row + step], values)
        if strip is None:
            continue
        if found is None or strip.shape[2] > found.shape[2]:
            whole = np.ones((height, width, strip.shape[2]), np.bool_)
            found = whole if found is None else np.logical_and(found, whole, out=whole)
        found[row : row + step] = strip
    return found


def _validity(pixels: NDArray[Any], nodata: Sequence[float | None]) -> Validity | None:
    broken: NDArray[np.bool_] | None = None
    if pixels.dtype.kind == "f":
        finite = np.isfinite(pixels)
        broken = None if finite.all() else ~finite
    missing = _equal(pixels, nodata)
    lacking = either(broken, missing)
    if lacking is None:
        return None
    nowhere = np.asarray(lacking.all(axis=2, keepdims=True))
    alone = lacking
    ambiguous = [value is not None and is_ambiguous(value, pixels.dtype) for value in nodata]
    if missing is not None and any(ambiguous):
        alone = missing & ~np.array(ambiguous)
        alone = alone if broken is None else alone | broken
    if (alone & ~nowhere).any():
        return ~(alone | nowhere)
    return ~nowhere if nowhere.any() else None


def _equal(pixels: NDArray[Any], nodata: Sequence[float | None]) -> NDArray[np.bool_] | None:
    """Where each band holds its nodata value; None where none does."""
    if not any(value is not None for value in nodata):
        return None
    with np.errstate(over="ignore"):  # a double that is no float32 is no pixel either
        values = [None if v is None else np.asarray(v).astype(pixels.dtype) for v in nodata]
    if len(set(nodata)) == 1:
        equal: NDArray[np.bool_] = pixels == values[0]
    else:
        equal = np.zeros(pixels.shape, np.bool_)
        for band, value in enumerate(values):
            if value is not None:
                np.equal(pixels[..., band], value, out=equal[..., band])
    return equal if equal.any() else None


def is_ambiguous(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether honest pixels hold a nodata value in some band, too: a shadow 0, a cloud 255."""
    return value == 0 or (dtype.kind == "u" and value == np.iinfo(dtype).max)


def is_of(value: float | None, dtype: np.dtype[Any]) -> bool:
    """Whether a nodata value can occur in pixels of ``dtype``; NaN is covered by "not finite"."""
    if value is None or np.isnan(value):
        return False
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max and value == int(value))


def chosen_nodata(
    path: str,
    said: tuple[float | None, ...],
    choice: NodataChoice | None,
    bands: int,
    dtype: np.dtype[Any],
) -> tuple[float | None, ...]:
    """The nodata value of each band: what the user chose, or else what the file says.

    Raises
    ------
    InputError
        For a value that pixels of ``dtype`` cannot hold.
    """
    if choice is None:
        return said
    if choice == "none":
        return ()
    if not (is_of(choice, dtype) or (dtype.kind == "f" and np.isnan(choice))):
        raise InputError(
            f"{path}: its pixels are {dtype.name}, which cannot hold a nodata value of "
            f"{choice:g}; give --nodata a value that its pixels have, or none"
        )
    return (choice,) * bands


def both(first: Validity | None, second: Validity | None) -> Validity | None:
    """Valid where both are."""
    if first is None or second is None:
        return first if second is None else second
    return first & second


def either(
    first: NDArray[np.bool_] | None, second: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    """True where either is; None stands for "nowhere"."""
    if first is None or second is None:
        return first if second is None else second
    return first | second


def of_pixels(valid: Validity | None) -> NDArray[np.bool_] | None:
    """Which pixels hold data in any band, shape (height, width); None where all do."""
    if valid is None:
        return None
    pixels = in_any_band(valid)
    return None if pixels.all() else pixels


def in_any_band(valid: Validity) -> NDArray[np.bool_]:
    """Which pixels hold data in any band, shape (height, width)."""
    return valid[..., 0] if valid.shape[2] == 1 else np.asarray(valid.any(axis=2))


def all_valid(valid: Validity | None) -> Validity | None:
    """The same, None where all is data: whoever asks need not look."""
    return None if valid is None or valid.all() else valid
