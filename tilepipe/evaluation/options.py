"""The options of `tilepipe evaluate` and `tilepipe.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tilepipe.errors import InputError

ObjectSource = Literal["auto", "classes", "components", "labels"]
"""Where objects come from: connected components of a class, or a number for each object."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """The options of `tilepipe evaluate`."""

    mask: str
    """The mask; a folder of masks; or a CSV file with the columns `mask` and `truth`."""
    truth: str | None = None
    """The truth, or a folder of truths; none with a CSV file."""
    instances: bool = False
    """Compare objects too: F1 at IoU 0.5, and AJI."""
    object_class: str | int | None = None
    """Class of the objects, by name or number (default: the only one, or the one named nucleus)."""
    border_class: str | int | None = None
    """Class that separates objects, or `none` (default: the one named border)."""
    min_size: int = 0
    """Leave out objects of the mask with fewer pixels."""
    fill_holes: bool = False
    """Fill the holes of the mask's objects."""
    mask_objects: ObjectSource = "auto"
    """Where the mask's objects come from: `labels` if each has a number of its own, otherwise the
    connected components of the class."""
    truth_objects: ObjectSource = "auto"
    """Where the truth's objects come from, as for `mask_objects`."""
    binary_mask: bool | None = None
    """Whether every label of the mask other than 0 is foreground (default: if 0 and 255 are the
    only labels, and tilepipe did not write the file); otherwise 255 is "no answer"."""
    binary_truth: bool | None = None
    """Whether every label of the truth other than 0 is foreground, as for `binary_mask`; otherwise
    255 is ignored."""
    ignore: tuple[int, ...] = ()
    """Labels of the truth to leave out."""
    no_answer_as: str | int | None = None
    """Class to count where the mask has no answer (default: such pixels are left out)."""
    warp: bool = False
    """Warp a georeferenced truth to the grid of the mask."""
    memory: int = 10**9
    """Approximate memory limit, in bytes."""
    plot: str | None = None
    """Where to draw a picture of the errors: a PNG, or a folder for several pairs."""
    image: str | None = None
    """Image, or folder of images, to draw the errors over."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        for name, least in (("memory", 1), ("min_size", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("mask_objects", "truth_objects"):
            if getattr(self, name) not in get_args(ObjectSource):
                choices = ", ".join(get_args(ObjectSource))
                raise InputError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")
