"""What is measured of objects beside their shape: probabilities, and bands of the image."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import Image, open_image
from tilepipe.images.reading import Reading
from tilepipe.images.resampled import ResampledImage
from tilepipe.objects.index import ObjectIndex
from tilepipe.objects.job import Intensity, Workspace
from tilepipe.objects.measuring import Layer, Measures
from tilepipe.objects.scales import scale_of
from tilepipe.objects.table import ObjectTable
from tilepipe.products.base import Mask, MaskSpec
from tilepipe.products.store import ZarrMask
from tilepipe.schema import load_json
from tilepipe.storage import StoragePath

SHARES = 2.0**-24
"""All numbers of float16 are multiples of it."""

FLOATS = 2.0**-16
"""Bands of floating point are rounded to multiples of it."""


def measures_of(work: Workspace, spec: MaskSpec) -> Measures:
    """What a job measures of each object."""
    layers: list[Layer] = []
    if work.job.probabilities:
        layers.append(_probability(work))
    if work.job.intensity is not None:
        layers += _bands(work.job.intensity)
    return Measures(scale_of(spec), tuple(layers))


def has_probabilities(mask: Mask) -> bool:
    """Whether a mask has the probabilities of its classes beside it."""
    return isinstance(mask, ZarrMask) and "probabilities" in {
        layer.product.name for layer in mask.layers
    }


def _probability(work: Workspace) -> Layer:
    mask = work.mask
    if not isinstance(mask, ZarrMask) or not has_probabilities(mask):
        raise InputError(
            f"{work.job.mask}: has no probabilities; write them with `tilepipe run --probabilities`"
        )
    classes = np.array((0, *work.job.parts.classes))
    part = _parts_of(work.path, work.job.fingerprint)
    return _probability_layer(mask, lambda number: classes[part[number]])


def probability_of(mask: ZarrMask, table: ObjectTable) -> Layer:
    """The probability of the class of each object of a finished table."""

    def class_of(number: NDArray[Any]) -> NDArray[Any]:
        found = np.zeros(len(number), np.int64)
        known = number > 0
        low = int(number[known].min(initial=len(table) or 1))
        column = table.read(low - 1, int(number.max(initial=0)), outlines=False).columns["class"]
        found[known] = column[number[known] - low]
        return found

    return _probability_layer(mask, class_of)


def _probability_layer(mask: ZarrMask, class_of: Callable[[NDArray[Any]], NDArray[Any]]) -> Layer:
    """The probability of an object's class, where the mask has probabilities."""

    def read(window: Window, numbers: NDArray[Any]) -> NDArray[Any]:
        present, at = np.unique(numbers, return_inverse=True)
        plane = np.where(present > 0, class_of(present), -1)[at.reshape(numbers.shape)]
        found = np.full(numbers.shape, np.nan, np.float32)
        values = mask.read_probabilities(window)
        for index in np.unique(plane[plane >= 0]):
            np.copyto(found, values[index], where=plane == index)
        return found

    return Layer("probability", read, quantum=SHARES, has_max=True)


@lru_cache(maxsize=2)
def _parts_of(path: StoragePath, _fingerprint: str) -> NDArray[np.uint8]:
    """The part of each object, from number 0 on, which is none."""
    return np.concatenate((np.zeros(1, np.uint8), ObjectIndex(path / "index/final").read().part))


def _bands(intensity: Intensity) -> list[Layer]:
    image = _image(intensity)
    whole = np.dtype(image.dtype).kind in "iub"

    def layer(band: int, name: str) -> Layer:
        def read(window: Window, _numbers: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(image.read(window, intensity.level))[..., band]

        return Layer(name, read, quantum=1.0 if whole else FLOATS)

    return [layer(band, name) for band, name in enumerate(_names(image))]


def _names(image: Image) -> list[str]:
    """The names of bands as columns: ``red``, ``dapi``; ``band_1`` where the file has none."""
    given = list(image.band_names) if len(image.band_names) == image.bands else [""] * image.bands
    names: list[str] = []
    for number, text in enumerate(given, 1):
        plain = "".join(c if c.isalnum() else "_" for c in str(text or "").lower()).strip("_")
        names.append(plain if plain and plain not in names else f"band_{number}")
    return names


@lru_cache(maxsize=2)
def _image(intensity: Intensity) -> Image:
    image: Image = open_image(intensity.path, Reading.from_json(load_json(intensity.reading)))
    if intensity.factors is None:
        return image
    return ResampledImage(image, intensity.level, intensity.factors)
