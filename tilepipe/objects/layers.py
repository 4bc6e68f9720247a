"""What is averaged over objects: the probability of their class, and the bands of the image."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.objects.measuring import Layer

HALF = 2.0**-24
"""Every float16 is a multiple of it."""


def probability_layer(
    read_plane: Callable[[int, Window], NDArray[np.float32]], classes: Any
) -> Layer:
    """The probability of each object's own class, as ``mean_probability`` and ``max_probability``.

    Parameters
    ----------
    read_plane : callable
        Gives the probabilities of a class in a window, (H, W); NaN for no answer. They are rounded
        to multiples of 2**-24, as all float16 are.
    classes : array of uint8, shape (n,)
        The class of each object, in the order of numbers; it is indexed by arrays.
    """
    read = _ClassProbability(read_plane, classes)
    return Layer("probability", read, quantum=HALF, has_max=True)


class _ClassProbability:
    def __init__(
        self, read_plane: Callable[[int, Window], NDArray[np.float32]], classes: Any
    ) -> None:
        self._read_plane, self._classes = read_plane, classes

    def __call__(self, window: Window, labels: NDArray[Any]) -> NDArray[np.float32]:
        number, inverse = np.unique(labels, return_inverse=True)
        own = np.zeros(len(number), np.int64)
        some = number > 0
        own[some] = np.asarray(self._classes[number[some].astype(np.int64) - 1])
        of_pixel = np.where(some, own, -1)[inverse].reshape(labels.shape)
        found = np.full(labels.shape, np.nan, np.float32)
        for plane in np.unique(own[some]).tolist():
            np.copyto(found, self._read_plane(plane, window), where=of_pixel == plane)
        return found


def band_layers(
    read: Callable[[Window], NDArray[Any]], names: Sequence[str], quantum: float = 1.0
) -> tuple[Layer, ...]:
    """The mean of each band of an image, as ``mean_NAME``; one reading serves all bands.

    Parameters
    ----------
    read : callable
        Gives the pixels of a window, (H, W, C); floats may be NaN where there is no value.
    names : sequence of str
        Of the bands, as they are in the names of columns.
    quantum : float
        Values are rounded to multiples of it; integers are exact with 1.
    """
    shared = _Shared(read)
    return tuple(Layer(name, _Band(shared, band), quantum) for band, name in enumerate(names))


class _Shared:
    """Reads a window once for all who ask for it one after another in a thread."""

    def __init__(self, read: Callable[[Window], NDArray[Any]]) -> None:
        self._read = read
        self._last = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Shared, (self._read,)

    def __call__(self, window: Window) -> NDArray[Any]:
        if getattr(self._last, "window", None) != window:
            self._last.window, self._last.pixels = window, self._read(window)
        pixels: NDArray[Any] = self._last.pixels
        return pixels


class _Band:
    def __init__(self, shared: _Shared, band: int) -> None:
        self._shared, self._band = shared, band

    def __call__(self, window: Window, labels: NDArray[Any]) -> NDArray[Any]:
        return self._shared(window)[..., self._band]
