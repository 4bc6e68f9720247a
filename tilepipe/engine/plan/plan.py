"""The plan: everything a run decides before its first block, frozen with the output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilepipe.engine.options import Probabilities, extra_products
from tilepipe.engine.plan.coverage import Coverage
from tilepipe.engine.plan.region import RegionFacts, coverage_of
from tilepipe.errors import InputError
from tilepipe.grid import Tiling
from tilepipe.images.base import Image, PixelSize
from tilepipe.images.reading import Reading
from tilepipe.images.resampled import Factors, ResampledImage
from tilepipe.products.base import MaskSpec
from tilepipe.products.like_image import Nearest
from tilepipe.schema import decode, load_json

if TYPE_CHECKING:
    pass

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Which image, and which of its levels, a run reads."""

    path: str
    """Absolute, as every worker must find it."""
    kind: str
    fingerprint: str
    level: int
    height: int
    """Rows of what is read: of that level, resampled where `factors` say so."""
    width: int
    bands: int
    dtype: str
    pixel_size: PixelSize | None
    """Of what is read: of that level, or the model's where it is resampled; on the ground."""
    factors: Factors | None = None
    """Rows and columns of that level for each of what is read; None: it is not resampled."""
    reading: Reading = field(default_factory=Reading)
    """What of the file is read, and how."""
    band_names: tuple[str, ...] = ()
    """Of what is read; empty texts where the file does not name them."""
    crs_pixel_size: PixelSize | None = None
    """What the CRS says of `pixel_size`, where that is not so on the ground; areas are then
    measured there, pixel by pixel."""


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
    runtime: str = "torch"
    """What computes the passes (see `tilepipe.models.runtimes`)."""
    model_pixel_size: PixelSize | None = None
    """What the model was made for; None: images without a scale."""
    model_bands: tuple[str, ...] = ()
    """What the model calls its bands; empty where it does not."""
    like_image: MaskSpec | None = None
    """The masks as they are written, where they are brought back to the image's own grid."""
    region: RegionFacts | None = None
    """Where the run computes; None: everywhere."""
    products: tuple[str, ...] = ()
    """Names of further products beside the mask."""

    @property
    def coverage(self) -> Coverage:
        """The blocks and tiles that are computed."""
        return coverage_of(self.tiling, self.region)

    @property
    def extras(self) -> tuple[str, ...]:
        """Keys of the products that are written beside the mask."""
        return extra_products(self.probabilities, self.products)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.coverage)

    def to_json(self) -> str:
        """The plan as a JSON document, the same for equal plans."""
        document = asdict(self)
        document["mask"] = self.mask.to_json()
        document["like_image"] = self.like_image and self.like_image.to_json()
        if not self.products:  # as before there were others than probabilities
            del document["products"]
        if self.region is None:  # as before there were regions
            del document["region"]
        document["image"]["reading"] = self.image.reading.to_json()
        if self.image.reading.is_plain:  # as before there was a choice
            del document["image"]["reading"]
        if self.image.crs_pixel_size is None:  # as before the ground was looked at
            del document["image"]["crs_pixel_size"]
        return json.dumps({"format": FORMAT, **document}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote.

        Raises
        ------
        ValueError
            For text that is no plan of this format.
        """
        document = load_json(text)
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise ValueError("a plan of another format")
        document.pop("batch", None)  # of earlier versions: always 1
        for name in ("mask", "like_image"):
            if document.get(name) is not None:
                document[name] = MaskSpec.from_json(document[name])
        image = document.get("image")
        if isinstance(image, dict):
            image["reading"] = Reading.from_json(image.get("reading"))
        plan = decode(cls, document)
        size = plan.image.height, plan.image.width
        for what, part in (("tiling", plan.tiling), ("mask", plan.mask)):
            if (part.height, part.width) != size:
                raise ValueError(f"its {what} is not of the size of its image")
        try:
            _ = plan.coverage  # which also checks the region
        except ArithmeticError as error:
            raise ValueError(str(error)) from error
        return plan


def at_model_scale(image: Image, facts: ImageFacts) -> Image:
    """The image as a run of that plan reads it: level ``facts.level`` is the model's grid."""
    return image if facts.factors is None else ResampledImage(image, facts.level, facts.factors)


def nearest_of(image: Image, plan: Plan) -> Nearest:
    """From the own grid of an image, opened `at_model_scale`, to that of its mask."""
    spec, level = plan.like_image, image.levels[plan.image.level]
    assert spec is not None, "asked only where masks are brought back"
    return Nearest(
        (plan.image.height, plan.image.width),
        (spec.height, spec.width),
        (level.scale_y, level.scale_x),
    )


def absolute(path: str) -> str:
    """An absolute path; addresses of other stores stay as they are."""
    return path if "://" in path else str(Path(path).resolve())


def describe_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """In what two environments differ, for a person: ``torch 2.13.0 and 2.12.1``."""
    return ", ".join(
        f"{key} {ours.get(key)} and {theirs.get(key)}"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    )


def check_environment(plan: Plan, here: dict[str, Any]) -> None:
    """Refuse to go on with a plan on another kind of worker than it was made for."""
    if here != plan.environment:
        raise InputError(
            f"the run was planned for another kind of worker "
            f"({describe_differences(plan.environment, here)}), "
            "and results would differ in the last digits; use the same kind, --allow-mixed (equal "
            "labels up to ties only), or --overwrite to start anew"
        )


def relocated(plan: Plan, image: Image, model: str) -> Plan:
    """The plan with the image and the model where they are now: same content, other place."""
    return replace(plan, image=replace(plan.image, path=absolute(image.path)), model=model)
