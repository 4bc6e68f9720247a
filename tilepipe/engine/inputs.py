"""Opening the image of a run, for a model or as a plan describes it, and its model."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np

from tilepipe.engine.plan.plan import absolute
from tilepipe.errors import InputError
from tilepipe.images import Image, open_image
from tilepipe.images.bands import places_by_name, show_bands
from tilepipe.images.sampling import usual_range
from tilepipe.images.source import OpenFile
from tilepipe.images.windowed import WindowedImage
from tilepipe.models.file import Model, load_model, shipped_models
from tilepipe.storage.hashing import identity
from tilepipe.text import count

if TYPE_CHECKING:
    from tilepipe.engine.options import RunOptions
    from tilepipe.engine.plan.plan import ImageFacts
    from tilepipe.images.reading import Reading


_opened: WeakValueDictionary[tuple[str, int | str | None], OpenFile] = WeakValueDictionary()
"""The image files that runs in this process have open."""

_loaded: WeakValueDictionary[tuple[str, str], Model] = WeakValueDictionary()
"""The models that runs in this process use."""

_loading = threading.Lock()


def model_reference(name: str) -> str:
    """The name of a shipped model, or the absolute path at which every worker finds the model."""
    return name if name in shipped_models() else absolute(name)


def model_of_run(name: str) -> Model:
    """The model of that name or path, not to be changed: runs in this process share it.

    It is loaded once, as long as one of them uses it and the file stays as it is. Raises InputError
    as `tilepipe.models.file.load_model`.
    """
    with _loading:
        where = model_reference(name)
        key = where, identity([Path(where)])
        model = _loaded.get(key)
        if model is None:
            model = _loaded[key] = load_model(name)
        return model


def open_input(options: RunOptions, model: Model) -> WindowedImage:
    """Open the image of a run, with the bands that the options name.

    Without such an option, bands are matched by name if image and model name all of theirs.

    Raises InputError when the image cannot be opened, or does not fit the model.
    """
    reading = _for_type(options.reading, model)
    image = open_image(options.image, reading)
    places = places_by_name(image.file_bands, model.input.band_names)
    if reading.bands is None and places is not None:
        image = image.read_as(replace(reading, bands=tuple(place + 1 for place in places)))
    check_fits(image, model)
    _opened[absolute(image.path), image.reading.series] = image.file
    return image


def open_planned(facts: ImageFacts, path: str | None = None) -> WindowedImage:
    """Open the image of a plan on its own grid, at ``path`` if it has moved.

    In the process of the run, the file that the run opened is shared, but the fingerprint is
    computed again from the path.
    """
    path = path or facts.path
    file = _opened.get((path, facts.reading.series))
    return open_image(path, facts.reading) if file is None else WindowedImage(file, facts.reading)


def check_fits(image: Image, model: Model) -> None:
    """Raise InputError if the image's bands or dtype are not those of the model."""
    if image.bands != model.input.bands:
        raise InputError(f"{image.path}: {_other_bands(image, model)}")
    if np.dtype(image.dtype) != np.dtype(model.input.dtype):
        raise InputError(f"{image.path}: {_other_dtype(image, model)}")


def _for_type(reading: Reading, model: Model) -> Reading:
    """The reading, with rescaled values, if any, of the model's type."""
    if reading.rescale is None:
        return reading
    if np.dtype(model.input.dtype).kind == "f" and model.input.scale != 1:
        raise InputError(
            f"rescale: maps to the range of an integer type, or to 0 .. 1, but model {model.name} "
            f"takes {model.input.dtype} and multiplies it by {model.input.scale:g}; convert the "
            "image to what the model expects"
        )
    return replace(reading, dtype=model.input.dtype)


def _other_bands(image: Image, model: Model) -> str:
    wanted = model.input.bands
    takes = f"model {model.name} takes {wanted}"
    if model.input.band_names:
        takes += f" ({', '.join(model.input.band_names)})"
    if image.reading.bands is not None:
        return f"--bands names {count(image.bands, 'band')}, but {takes}; name as many"
    example = ",".join(str(min(n, len(image.file_bands))) for n in range(1, wanted + 1))
    alpha = " and alpha" if len(image.file_bands) > image.bands else ""
    return (
        f"has {count(image.bands, 'band')}{alpha} ({show_bands(image.file_bands)}), but {takes}; "
        f"choose them in the model's order, for example with --bands {example}, or choose a model "
        "made for such images"
    )


def _other_dtype(image: Image, model: Model) -> str:
    wanted = np.dtype(model.input.dtype)
    text = f"its pixels are {np.dtype(image.dtype).name}, but model {model.name} takes {wanted}; "
    if wanted.kind == "f" and model.input.scale != 1:
        return text + "convert the image, or choose a model made for it"
    onto = "0 .. 1" if wanted.kind == "f" else f"the range of {wanted}"
    text += f"map them to {onto} with --rescale LOW,HIGH"
    found = usual_range(image)
    if found is not None:
        low, high = found
        text += f" (nearly all of the image's values are within --rescale {low:g},{high:g})"
    return text + ", or choose a model made for it"
