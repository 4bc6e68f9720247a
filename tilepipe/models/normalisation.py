"""Pixels of an image to the input of a network."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.models.specs import InputSpec

STRIP_BYTES = 1 << 19
"""Of the float32 values of one band of a strip of rows, about, which stay in the processor's cache.
"""


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
        self._number = threads
        self._threads = ThreadPoolExecutor(threads, "tilepipe-normalise") if threads > 1 else None
        self._memory = np.empty(0, np.float32)

    def __call__(
        self, pixels: NDArray[Any], holes: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        """The network's input, (1, bands, height, width), of pixels (height, width, bands).

        It lasts until the next call, which takes the same memory: fresh memory costs more time than
        the values.
        """
        height, width, bands = pixels.shape
        if self._memory.size < pixels.size:
            self._memory = np.empty(pixels.size, np.float32)
        result = self._memory[: pixels.size].reshape(1, bands, height, width)

        def work(first: int) -> None:
            rows = slice(first, first + step)
            for band in range(bands):
                values = result[0, band, rows]
                # A float image may hold anything, and what is not finite is looked for in the
                # logits.
                with np.errstate(all="ignore"):
                    values[...] = pixels[rows, :, band]
                    normalise(values, self._scale, self._mean[band], self._std[band])
                if holes is not None:
                    # Nodata enters as the model's mean, 0 here, and a NaN must not get in.
                    missing = holes[rows, :, band if holes.shape[2] > 1 else 0]
                    np.copyto(values, 0.0, where=missing)

        step = min(max(1, STRIP_BYTES // (4 * width)), -(-height // self._number))
        each = map if self._threads is None else self._threads.map
        for _ in each(work, range(0, height, step)):
            pass
        return result
