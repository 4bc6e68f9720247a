"""The plan: everything a run decides before its first block, frozen with the output."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilepipe.engine.options import Probabilities, RunOptions
from tilepipe.errors import InputError
from tilepipe.grid import Geometry, Tiling
from tilepipe.images.base import Image, PixelSize
from tilepipe.masks.base import Kind, MaskClass, MaskSpec

if TYPE_CHECKING:
    from tilepipe.models.file import Model

FORMAT = 1
SCALE_TOLERANCE = 0.05
"""Pixel sizes further apart than this share are warned of."""
FAR = 4.0
"""Pixel sizes further apart than this factor are refused: the model is for something else."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Which image, and which of its levels, a run reads."""

    path: str
    """Absolute, as every worker must find it."""
    kind: str
    fingerprint: str
    level: int
    height: int
    """Rows of that level."""
    width: int
    bands: int
    dtype: str
    pixel_size: PixelSize | None
    """Of that level."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does; two runs of one plan give the same bytes."""

    image: ImageFacts
    model: str
    """Path of the model file, or the name of a shipped model."""
    model_fingerprint: str
    tiling: Tiling
    device: str
    """``cpu`` or ``cuda``."""
    precision: str
    threads: int
    """CPU threads of one forward pass."""
    probabilities: Probabilities | None
    mask: MaskSpec
    environment: dict[str, Any]
    """Device, instruction set and versions that float results depend on."""
    batch: int = 1

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.tiling)

    def to_json(self) -> str:
        """The plan as a JSON document, the same for equal plans."""
        document = asdict(self)
        document["mask"] = self.mask.to_json()
        return json.dumps({"format": FORMAT, **document}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote.

        Raises
        ------
        ValueError, KeyError, TypeError
            For text that is no plan of this format.
        """
        document = json.loads(text)
        if document.pop("format") != FORMAT:
            raise ValueError("a plan of another format")
        image = document.pop("image")
        size = image.pop("pixel_size")
        tiling = document.pop("tiling")
        return cls(
            image=ImageFacts(**image, pixel_size=PixelSize(**size) if size else None),
            tiling=Tiling(
                tiling["height"],
                tiling["width"],
                tuple(tiling["block"]),
                tuple(tiling["keep"]),
                Geometry(**tiling["geometry"]),
            ),
            mask=MaskSpec.from_json(document.pop("mask")),
            **document,
        )


def choose_level(image: Image, model: Model, options: RunOptions) -> tuple[int, str | None]:
    """The pyramid level nearest to the model's pixel size, and a warning when it is off.

    Raises
    ------
    InputError
        When the model has a pixel size and the image has none, or the level does not exist.
    """
    levels = image.levels
    if options.level is not None and options.level >= len(levels):
        raise InputError(
            f"{image.path}: has no level {options.level}; its levels are 0 to {len(levels) - 1}"
        )
    wanted = model.input.pixel_size
    if wanted is None:
        return options.level or 0, None
    size = base_pixel_size(image, options)
    if size is None:
        if options.level is not None:
            return options.level, (
                f"the image does not say its pixel size; model {model.name} was made for "
                f"{show_pixel_size(wanted)}"
            )
        raise InputError(
            f"{image.path}: does not say its pixel size, and model {model.name} is made for "
            f"{show_pixel_size(wanted)}; say it with --pixel-size, or name the --level to take "
            "as it is"
        )
    ours, theirs = size.metres(), wanted.metres()
    if ours is None or theirs is None:
        if options.level is not None:
            return (
                options.level,
                f"pixels in {size.unit} cannot be compared with {show_pixel_size(wanted)}",
            )
        raise InputError(
            f"{image.path}: its pixel size is in {size.unit} and cannot be compared with the "
            f"{show_pixel_size(wanted)} of model {model.name}; name the --level to take as it is"
        )
    target = math.sqrt(theirs[0] * theirs[1])
    ratios = [
        math.sqrt(ours[0] * level.scale_y * ours[1] * level.scale_x) / target for level in levels
    ]
    chosen = options.level
    if chosen is None:
        chosen = min(range(len(levels)), key=lambda i: abs(math.log(ratios[i])))
    ratio = ratios[chosen]
    if abs(ratio - 1) <= SCALE_TOLERANCE:
        return chosen, None
    if options.level is None and not 1 / FAR < ratio < FAR:
        raise InputError(
            f"{image.path}: its nearest level, {chosen}, is {ratio:.3g} times as coarse as the "
            f"{show_pixel_size(wanted)} that model {model.name} is made for; take a model made for "
            f"such images, or name the --level to take as it is"
        )
    here = size.scaled(levels[chosen].scale_y, levels[chosen].scale_x)
    return chosen, (
        f"pixels of level {chosen} are {show_pixel_size(here)}, "
        f"{ratio:.2f} times the {show_pixel_size(wanted)} that model {model.name} was made for: "
        "expect a worse mask"
    )


def base_pixel_size(image: Image, options: RunOptions) -> PixelSize | None:
    """Of level 0: what the user says, or else what the file says."""
    if options.pixel_size is not None:
        return PixelSize(options.pixel_size, options.pixel_size, "micrometer")
    return image.pixel_size


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


def image_facts(image: Image, level: int, options: RunOptions) -> ImageFacts:
    """What the plan holds of an image."""
    chosen, size = image.levels[level], base_pixel_size(image, options)
    return ImageFacts(
        path=absolute(image.path),
        kind=image.kind,
        fingerprint=image.fingerprint(),
        level=level,
        height=chosen.height,
        width=chosen.width,
        bands=image.bands,
        dtype=np.dtype(image.dtype).name,
        pixel_size=size.scaled(chosen.scale_y, chosen.scale_x) if size else None,
    )


def mask_spec(image: Image, model: Model, facts: ImageFacts, name: str) -> MaskSpec:
    """The mask of one level of an image: its grid and place, its classes."""
    level = image.levels[facts.level]
    output = model.output
    kind: Kind = "labels"
    if output.activation == "linear":
        kind = "values"
    elif output.activation == "sigmoid" and model.arguments.outputs > 1:
        kind = "planes"
    transform = None
    if image.transform is not None:
        a, b, c, d, e, f = image.transform
        sy, sx = level.scale_y, level.scale_x
        transform = image.transform if facts.level == 0 else (a * sx, b * sy, c, d * sx, e * sy, f)
    origin = (0.0, 0.0)
    if facts.pixel_size is not None and facts.level > 0:
        # The first centre of a coarser level lies (f - 1) / 2 pixels of level 0 further in.
        origin = (
            facts.pixel_size.y * (1 - 1 / level.scale_y) / 2,
            facts.pixel_size.x * (1 - 1 / level.scale_x) / 2,
        )
    return MaskSpec(
        height=facts.height,
        width=facts.width,
        kind=kind,
        classes=tuple(MaskClass(c.name, c.colour) for c in output.classes),
        pixel_size=facts.pixel_size,
        crs=image.crs,
        transform=transform,
        origin=origin,
        name=name,
        background=output.background,
    )


def absolute(path: str) -> str:
    """An absolute path; addresses of other stores stay as they are."""
    return path if "://" in path else str(Path(path).resolve())


def differences(plan: Plan, options: RunOptions, image: Image, model: Model) -> list[str]:
    """What of the user's request is not what the plan on disk does; empty when it may resume.

    What the user left to the plan (``auto``) is what it was decided to be then.
    """
    found: list[str] = []

    def compare(what: str, planned: Any, asked: Any) -> None:
        if asked is not None and asked != "auto" and asked != planned:
            found.append(f"{what} was {planned}, now {asked}")

    if image.fingerprint() != plan.image.fingerprint:
        found.append(f"the image was {plan.image.path} (fingerprint {plan.image.fingerprint})")
    if model.fingerprint != plan.model_fingerprint:
        found.append(f"the model was {plan.model} (fingerprint {plan.model_fingerprint[:16]})")
    if not found:
        level, _ = choose_level(image, model, options)
        compare("level", plan.image.level, level)
        facts = image_facts(image, level, options)
        if facts.pixel_size != plan.image.pixel_size:
            found.append(
                f"pixel size was {show_pixel_size(plan.image.pixel_size)}, "
                f"now {show_pixel_size(facts.pixel_size)}"
            )
    if options.window != "auto":
        asked = (options.window, options.window)
        if plan.tiling.input != asked:
            planned = " x ".join(map(str, plan.tiling.input))
            found.append(f"window was {planned}, now {options.window}")
    compare("device", plan.device, options.device)
    compare("precision", plan.precision, options.precision)
    compare("threads", plan.threads, options.threads)
    if options.probabilities != plan.probabilities:
        found.append(
            f"probabilities was {plan.probabilities or 'none'}, "
            f"now {options.probabilities or 'none'}"
        )
    return found


def unlike(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """In what two environments differ, for a person: ``torch 2.13.0 and 2.12.1``."""
    return ", ".join(
        f"{key} {ours.get(key)} and {theirs.get(key)}"
        for key in ours
        if ours.get(key) != theirs.get(key)
    )


def check_environment(plan: Plan, here: dict[str, Any]) -> None:
    """Refuse to go on with a plan on another kind of worker than it was made for."""
    if here != plan.environment:
        raise InputError(
            f"the run was planned for another kind of worker ({unlike(plan.environment, here)}), "
            "and results would differ in the last digits; use the same kind, --allow-mixed (equal "
            "labels up to ties only), or --overwrite to start anew"
        )


def retarget(plan: Plan, image: Image, model: str) -> Plan:
    """The plan with the image and the model where they are now: same content, other place."""
    return replace(plan, image=replace(plan.image, path=absolute(image.path)), model=model)


def show_pixel_size(size: PixelSize | None) -> str:
    """A pixel size for a person: ``0.25 um/px``."""
    if size is None:
        return "unknown"
    unit = {"micrometer": "um", "meter": "m", "degree": "degrees"}.get(size.unit, size.unit)
    if math.isclose(size.y, size.x, rel_tol=1e-3):
        return f"{size.x:.4g} {unit}/px"
    return f"{size.y:.4g} x {size.x:.4g} {unit}/px"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def gigabytes(number: float) -> str:
    """An amount of memory for a person: ``1.86 GB``."""
    return f"{number / 1e9:.2f} GB" if number < 1e10 else f"{number / 1e9:.1f} GB"
