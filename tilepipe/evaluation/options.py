"""The options of an evaluation: one declaration for command line and Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tilepipe.options import Options, option
from tilepipe.quantities import parse_bytes

ObjectSource = Literal["auto", "classes", "components", "labels"]
"""Where objects come from: connected components of a class, or a number for each object."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions(Options):
    """The options of `tilepipe evaluate`."""

    mask: str = option(
        ..., "The mask; a folder of masks; or a CSV file with the columns mask and truth"
    )
    truth: str | None = option(None, "The truth, or a folder of truths; none with a CSV file")
    instances: bool = option(False, "Also score objects: F1 at IoU 0.5, and AJI")
    object_class: str | int | None = option(
        None, "Class of the objects, by name or number", metavar="CLASS",
        unset="the only one, or the one named nucleus",
    )  # fmt: skip
    border_class: str | int | None = option(
        None, "Class that separates objects, or none", metavar="CLASS",
        unset="the one named border",
    )  # fmt: skip
    min_size: int = option(0, "Ignore smaller objects of the mask", metavar="PIXELS", least=0)
    fill_holes: bool = option(False, "Fill the holes of the mask's objects")
    split: bool = option(
        False, "Split the mask's objects where they are narrow, as a run does with --objects split"
    )
    mask_objects: ObjectSource = option(
        "auto", "How the mask's objects are found: by their numbers (labels), or as components of "
        "a class",
    )  # fmt: skip
    truth_objects: ObjectSource = option("auto", "The same for the truth")
    binary_mask: bool | None = option(
        None, "Treat every label of the mask except 0 as foreground; otherwise 255 is no answer",
        unset="if it holds only 0 and 255, and tilepipe did not write it",
    )  # fmt: skip
    binary_truth: bool | None = option(
        None, "The same for the truth, where otherwise 255 is ignored"
    )
    ignore: tuple[int, ...] = option(
        (), "Label of the truth to leave out; may be given several times", metavar="LABEL"
    )
    no_answer_as: str | int | None = option(
        None, "Count pixels without an answer as this class", metavar="CLASS",
        unset="they are left out",
    )  # fmt: skip
    warp: bool = option(False, "Warp a georeferenced truth to the mask's grid")
    memory: int = option(
        10**9, "Approximate memory limit", parse=parse_bytes, metavar="SIZE", least=1, unset="1GB"
    )
    seed: int = option(0, "Seed of the bootstrap", least=0)
    plot: str | None = option(
        None, "Draw the errors: a .png, or a folder for many pairs", metavar="PATH"
    )
    image: str | None = option(None, "Image (or folder of images) to draw them on", metavar="PATH")
