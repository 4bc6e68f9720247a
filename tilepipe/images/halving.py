"""One step of an image pyramid: the rounded mean of each 2 x 2 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.images.validity import Validity


def halve(
    pixels: NDArray[Any], valid: Validity | None, empty: NDArray[Any]
) -> tuple[NDArray[Any], Validity | None]:
    """Half the size, rounded up; the last row and column of an odd size count twice.

    Parameters
    ----------
    pixels
        Shape (height, width, bands).
    valid
        Where they are data, shape (height, width, 1 or bands), or None where all is. What is not
        is left out of the mean; where all four are, there is none.
    empty
        Value of each band where there is no data, shape (bands,).

    Returns
    -------
        Pixels in the dtype of ``pixels``, whole numbers rounded half up, and their validity.
    """
    quads = _quads(pixels)
    if valid is None:
        return _mean(quads), None
    weights = _quads(valid)
    count = weights.sum(axis=(1, 3))
    total = np.where(weights, quads, 0).sum(axis=(1, 3), dtype=np.float64)
    mean = total / np.maximum(count, 1)
    if pixels.dtype.kind != "f":
        mean = np.floor(mean + 0.5)
    some = count > 0
    return np.where(some, mean.astype(pixels.dtype), empty.astype(pixels.dtype)), some


def _quads(pixels: NDArray[Any]) -> NDArray[Any]:
    """Shape (rows, 2, columns, 2, bands)."""
    height, width, bands = pixels.shape
    odd = height % 2, width % 2
    if any(odd):
        pixels = np.pad(pixels, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    return pixels.reshape(-(-height // 2), 2, -(-width // 2), 2, bands)


def _mean(quads: NDArray[Any]) -> NDArray[Any]:
    dtype = quads.dtype
    if dtype.kind == "f":
        wide = np.promote_types(dtype, np.float32)
        result: NDArray[Any] = quads.mean(axis=(1, 3), dtype=wide).astype(dtype)
        return result
    # Quotients and remainders apart: no sum leaves the range of the type.
    quotients = (quads >> 2).sum(axis=(1, 3), dtype=dtype)
    remainders = (quads & 3).sum(axis=(1, 3), dtype=dtype)
    mean: NDArray[Any] = quotients + ((remainders + 2) >> 2).astype(dtype)
    return mean
