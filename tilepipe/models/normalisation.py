"""Pixels of an image to the input of a network."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.models.specs import InputSpec

STRIP_BYTES = 1 << 18
"""Of the float32 values of a strip of rows, about: it stays in the processor's cache."""


def normalise(x: Any, scale: float, mean: Any, std: Any) -> None:
    """Normalise values in place: an array or a tensor, as are ``mean`` and ``std``.

    Each step rounds to the type of ``x``, in every library to the same bits.
    """
    x *= scale
    x -= mean
    x /= std


class ArrayNormalisation:
    """Pixels to the input of a network, float32, as numpy arrays.

    Parameters
    ----------
    spec
        What the network expects.
    threads
        How many work on one window.
    """

    def __init__(self, spec: InputSpec, threads: int = 1) -> None:
        self._scale = spec.scale
        self._mean, self._std = (np.array(each, np.float32) for each in (spec.mean, spec.std))
        self._threads = ThreadPoolExecutor(threads, "tilepipe-normalise") if threads > 1 else None

    def __call__(
        self, pixels: NDArray[Any], holes: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        """The network's input, (1, bands, height, width), of pixels (height, width, bands)."""
        height, width, bands = pixels.shape
        result = np.empty((1, bands, height, width), np.float32)
        mean, std = np.tile(self._mean, width), np.tile(self._std, width)

        def work(first: int) -> None:
            rows = slice(first, first + step)
            # A float image may hold anything, and what is not finite is looked for in the logits.
            with np.errstate(all="ignore"):
                x = pixels[rows].astype(np.float32).reshape(-1, width * bands)
                normalise(x, self._scale, mean, std)
            values = x.reshape(-1, width, bands)
            if holes is not None:
                # Nodata enters as the model's mean, which is 0 here (and a NaN must not get in).
                np.copyto(values, 0.0, where=holes[rows])
            result[0, :, rows] = values.transpose(2, 0, 1)

        step = max(1, STRIP_BYTES // (4 * width * bands))
        each = map if self._threads is None else self._threads.map
        for _ in each(work, range(0, height, step)):
            pass
        return result
