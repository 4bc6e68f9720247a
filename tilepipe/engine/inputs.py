"""The image of a run, opened as the run reads it: for a model, or as a plan froze it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tilepipe.errors import InputError
from tilepipe.images import Image, open_image

if TYPE_CHECKING:
    from tilepipe.engine.options import RunOptions
    from tilepipe.engine.plan import ImageFacts
    from tilepipe.models.file import Model


def open_input(options: RunOptions, model: Model) -> Image:
    """Open the image of a run, read as the options and the model's bands demand.

    Raises
    ------
    InputError
        When it cannot be opened, or does not fit the model.
    """
    image = open_image(options.image, options.reading)
    try:
        check_fits(image, model)
    except BaseException:
        image.close()
        raise
    return image


def open_planned(facts: ImageFacts, path: str | None = None) -> Image:
    """Open the image of a plan, on its own grid; at ``path``, if it is not where it was."""
    return open_image(path or facts.path, facts.reading)


def check_fits(image: Image, model: Model) -> None:
    """Refuse an image of other bands or dtype than the model's."""
    if image.bands != model.input.bands:
        raise InputError(
            f"{image.path}: has {_count(image.bands, 'band')}, and model {model.name} takes "
            f"{model.input.bands}; choose a model made for such images"
        )
    if np.dtype(image.dtype) != np.dtype(model.input.dtype):
        raise InputError(
            f"{image.path}: its pixels are {np.dtype(image.dtype).name}, and model {model.name} "
            f"takes {model.input.dtype}; convert the image, or choose a model made for it"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
