"""What is measured of objects beside their shape: probabilities, and bands of the image."""

from __future__ import annotations

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
from tilepipe.objects.layers import band_layers, probability_layer
from tilepipe.objects.measuring import Layer, Measures
from tilepipe.objects.scales import scale_of
from tilepipe.products.base import Mask, MaskSpec
from tilepipe.products.probabilities import Probabilities
from tilepipe.products.store import ZarrMask
from tilepipe.schema import load_json
from tilepipe.storage import StoragePath

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


def probability_of(mask: ZarrMask, classes: Any) -> Layer:
    """The probability of the class of each object.

    ``classes`` has them in the order of numbers, (n,), and is indexed by arrays.
    """
    layer = mask.layer("probabilities")
    product = layer.product
    assert isinstance(product, Probabilities), "as its name says"

    def read(plane: int, window: Window) -> NDArray[np.float32]:
        return product.decoded(layer.read_plane(plane, window))

    return probability_layer(read, classes)


def _probability(work: Workspace) -> Layer:
    mask = work.mask
    if not isinstance(mask, ZarrMask) or not has_probabilities(mask):
        raise InputError(
            f"{work.job.mask}: has no probabilities; write them with `tilepipe run --probabilities`"
        )
    classes = np.array((0, *work.job.parts.classes))
    return probability_of(mask, classes[_parts_of(work.path, work.job.fingerprint)])


@lru_cache(maxsize=2)
def _parts_of(path: StoragePath, _fingerprint: str) -> NDArray[np.uint8]:
    """The part of each object, in the order of numbers."""
    return ObjectIndex(path / "index/final").read().part


def _bands(intensity: Intensity) -> tuple[Layer, ...]:
    image = _image(intensity)
    quantum = 1.0 if np.dtype(image.dtype).kind in "iub" else FLOATS
    return band_layers(
        lambda window: np.asarray(image.read(window, intensity.level)), _names(image), quantum
    )


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
