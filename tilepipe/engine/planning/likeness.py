"""How far the bands of an image are from those of the images that a model was made for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.images.base import Image
from tilepipe.images.sampling import sample_pixels
from tilepipe.models.specs import InputSpec, Model

FAR = 2.5
"""The distance (see `Likeness`) beyond which an image is unlike the model's (benchmarks/README.md
has the distances of many, and what they cost)."""

LEAST_PIXELS = 1000
"""The fewest pixels that allow a comparison."""

MOST_SHOWN = 6
"""The most bands whose figures are shown."""

CONVENTIONAL = (((0.0,), (1.0,)), ((0.5,), (0.5,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
"""Means and standard deviations that are conventions and not those of a model's own images: none,
scaling to -1 .. 1, and ImageNet."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """Band statistics of an image beside those of a model, in the image's own values."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    model_mean: tuple[float, ...]
    model_std: tuple[float, ...]
    what: str
    """The compared pixels: ``it`` or ``its tissue``."""

    @property
    def distances(self) -> tuple[float, ...]:
        """The root mean square distance of each band's pixels from the model's mean.

        The unit is the model's standard deviation, so the distance is 1 for the model's own images.
        """
        return tuple(
            math.hypot(mean - model_mean, std) / model_std
            for mean, std, model_mean, model_std in zip(
                self.mean, self.std, self.model_mean, self.model_std, strict=True
            )
        )

    @property
    def is_far(self) -> bool:
        """Whether some band is so unlike the model's that its scores may not hold."""
        return max(self.distances) > FAR


def compare(image: Image, spec: InputSpec, level: int = 0) -> Likeness | None:
    """The statistics of a level of an image beside a model's; None if they cannot be compared.

    In slides, only the tissue counts, because the amount of glass around it means nothing.
    """
    if _is_conventional(spec):
        return None
    pixels = sample_pixels(image, level)
    stained, what = _stained(image, pixels), "it"
    if stained is not None and stained.sum() >= LEAST_PIXELS:
        pixels, what = pixels[stained], "its tissue"
    if len(pixels) < LEAST_PIXELS:
        return None
    planes = np.ascontiguousarray(pixels.T)  # numpy is ten times as fast along the last axis
    return Likeness(
        mean=tuple(float(value) for value in planes.mean(1, dtype=np.float64)),
        std=tuple(float(value) for value in planes.std(1, dtype=np.float64)),
        model_mean=tuple(value / spec.scale for value in spec.mean),
        model_std=tuple(abs(value / spec.scale) for value in spec.std),
        what=what,
    )


def unlike_warning(image: Image, model: Model, level: int) -> str | None:
    """The warning for an image that is far from those that the model was made for."""
    found = compare(image, model.input, level)
    if found is None or not found.is_far:
        return None
    bands = list(range(len(found.mean)))
    which = ""
    if len(bands) > MOST_SHOWN:
        bands = [max(bands, key=found.distances.__getitem__)]
        which = f" in band {bands[0] + 1}"
    ours, theirs = (
        f"a mean of {_figures(mean, bands)} and a standard deviation of {_figures(std, bands)}"
        for mean, std in ((found.mean, found.std), (found.model_mean, found.model_std))
    )
    return (
        f"the image looks unlike those that model {model.name} was made for: {found.what} has "
        f"{ours}{which}, and those have {theirs}; the model's scores may not hold here, so check "
        "the mask against the image"
    )


def _figures(values: tuple[float, ...], bands: list[int]) -> str:
    return ", ".join(f"{values[band]:.3g}" for band in bands)


def _is_conventional(spec: InputSpec) -> bool:
    return any(
        _same(spec.mean, mean * (spec.bands // len(mean)))
        and _same(spec.std, std * (spec.bands // len(std)))
        for mean, std in CONVENTIONAL
    )


def _same(values: tuple[float, ...], others: tuple[float, ...]) -> bool:
    return len(values) == len(others) and all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) for a, b in zip(values, others, strict=True)
    )


def _stained(image: Image, pixels: NDArray[Any]) -> NDArray[np.bool_] | None:
    from tilepipe.regions.tissue import is_stained

    if image.bands != 3 or image.dtype.kind != "u" or image.crs is not None:
        return None
    return is_stained(pixels)
