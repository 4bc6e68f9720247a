"""What is averaged over objects beside their shape: probabilities, bands, true areas of pixels."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import Image, open_image
from tilepipe.images.ground import PixelAreas
from tilepipe.images.reading import Reading
from tilepipe.images.resampled import ResampledImage
from tilepipe.objects.areas import PixelArea
from tilepipe.objects.index import ObjectIndex
from tilepipe.objects.job import Intensity, Workspace
from tilepipe.objects.measuring import Layer, Scale
from tilepipe.products.base import Mask, MaskSpec
from tilepipe.products.store import ZarrMask
from tilepipe.storage import StoragePath

SHARES = 2.0**-24
"""All numbers of float16 are multiples of it."""

GROUND = 2.0**-20
"""Areas on the ground are rounded to this part of a pixel's usual area."""

FLOATS = 2.0**-16
"""Bands of floating point are rounded to multiples of it."""


def scale_of(spec: MaskSpec) -> Scale:
    """The size of a mask's pixels: in um on slides, in m on the ground, or unknown."""
    area = PixelArea(spec)
    if area.metres is None:
        return Scale()
    unit, factor = ("um", 1e6) if area.unit.small == "um2" else ("m", 1.0)
    y, x = (float(f"{side * factor:.12g}") for side in area.metres)
    return Scale(y, x, unit, _ground(spec, area) if area.differs else None)


def layers_of(work: Workspace, spec: MaskSpec, scale: Scale) -> list[Layer]:
    """The layers of a job; the ground last, if pixels differ in area."""
    layers: list[Layer] = []
    if work.job.probabilities:
        layers.append(_probability(work))
    if work.job.intensity is not None:
        layers += _bands(work.job.intensity)
    return layers if scale.ground is None else [*layers, scale.ground]


def has_probabilities(mask: Mask) -> bool:
    """Whether a mask has the probabilities of its classes beside it."""
    return isinstance(mask, ZarrMask) and "probabilities" in {
        layer.product.name for layer in mask.layers
    }


def _ground(spec: MaskSpec, area: PixelArea) -> Layer:
    crs, transform, metres = spec.crs, spec.transform, area.metres
    assert crs is not None, "by which areas were found to differ"
    assert transform is not None
    assert metres is not None

    def read(window: Window, _numbers: NDArray[Any]) -> NDArray[Any]:
        return PixelAreas(crs, transform, window, max(metres)).rows(0, window.height)

    usual = metres[0] * metres[1]
    return Layer("ground", read, quantum=usual * GROUND, has_mean=False)


def _probability(work: Workspace) -> Layer:
    """The probability of an object's class, where the mask has probabilities."""
    mask = work.mask
    if not isinstance(mask, ZarrMask) or not has_probabilities(mask):
        raise InputError(
            f"{work.job.mask}: has no probabilities; write them with `tilepipe run --probabilities`"
        )
    classes = np.array((0, *work.job.parts.classes))

    def read(window: Window, numbers: NDArray[Any]) -> NDArray[Any]:
        present, at = np.unique(numbers, return_inverse=True)
        part = _parts_of(work.path, work.job.fingerprint)
        plane = np.where(present > 0, classes[part[present]], -1)[at.reshape(numbers.shape)]
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
    image = _image(intensity.path, intensity.fingerprint, repr(intensity), intensity)
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
def _image(path: str, _fingerprint: str, _key: str, intensity: Any) -> Image:
    image: Image = open_image(path, Reading.from_json(intensity.reading))
    if intensity.factors is None:
        return image
    return ResampledImage(image, intensity.level, intensity.factors)
