"""The plan: everything a run decides before its first block, frozen with the output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tilepipe.engine.options import StoredShares, extra_products
from tilepipe.engine.plan.coverage import Coverage
from tilepipe.engine.plan.label_change import LabelChange
from tilepipe.engine.plan.region import RegionFacts, coverage_of
from tilepipe.errors import InputError
from tilepipe.grid import Tiling
from tilepipe.images.base import Image, PixelSize
from tilepipe.images.reading import Reading
from tilepipe.images.resampled import Factors, ResampledImage
from tilepipe.models.object_rule import ObjectRule
from tilepipe.products.base import MaskSpec
from tilepipe.products.like_image import Nearest
from tilepipe.schema import decode, load_json

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The image, level and scale that a run reads."""

    path: str
    """The absolute path, at which every worker must find it."""
    kind: str
    fingerprint: str
    level: int
    height: int
    """Rows of the grid that the run reads, after resampling by `factors`."""
    width: int
    """Columns of the grid that the run reads."""
    bands: int
    dtype: str
    pixel_size: PixelSize | None
    """Pixel size of the grid that the run reads, on the ground."""
    factors: Factors | None = None
    """Rows and columns of the level for each of the grid; None: not resampled."""
    reading: Reading = field(default_factory=Reading)
    """The bands that are read, and how their values are converted."""
    band_names: tuple[str, ...] = ()
    """Names of the bands that are read; empty texts if the file does not name them."""
    crs_pixel_size: PixelSize | None = None
    """The pixel size in the CRS, if it differs from that on the ground. Areas are then measured on
    the ground, pixel by pixel."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run does; two runs of the same plan give the same bytes."""

    image: ImageFacts
    model: str
    """The path of the model file, or the name of a shipped model."""
    model_fingerprint: str
    tiling: Tiling
    device: str
    """``cpu``, ``cuda`` or ``mps``."""
    precision: str
    threads: int
    """CPU threads of one forward pass."""
    probabilities: StoredShares | None
    mask: MaskSpec
    environment: dict[str, Any]
    """Device, instruction set and versions that float results depend on."""
    runtime: str = "torch"
    """The runtime that computes the passes (see `tilepipe.models.runtimes`)."""
    model_pixel_size: PixelSize | None = None
    """The pixel size that the model was made for; None: images without a scale."""
    model_bands: tuple[str, ...] = ()
    """The model's names of its bands; may be empty."""
    like_image: MaskSpec | None = None
    """The mask on the image's own grid, with `--like-image`."""
    region: RegionFacts | None = None
    """Where the run computes; None: everywhere."""
    products: tuple[str, ...] = ()
    """Names of further products beside the mask."""
    channels: bool = False
    """Whether OME-TIFF has a channel for each class."""
    objects: ObjectRule | None = None
    """How the mask's pixels become objects; None if the run makes none."""
    network: str | None = None
    """SHA-256 of the quantised network that computes the run (`RunState.network_file`); None: the
    model's own."""
    change: LabelChange | None = None
    """How far the precision's labels are from fp32's, if that was measured."""

    @property
    def coverage(self) -> Coverage:
        """The blocks and tiles that are computed."""
        return coverage_of(self.tiling, self.region)

    @property
    def extras(self) -> tuple[str, ...]:
        """The keys of the products that are written beside the mask."""
        return extra_products(self.probabilities, self.products)

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return len(self.coverage)

    def to_json(self) -> str:
        """The plan as a JSON document, the same for equal plans."""
        document = asdict(self)
        document["mask"] = self.mask.to_json()
        document["like_image"] = self.like_image and self.like_image.to_json()
        document["image"]["reading"] = self.image.reading.to_json()
        # Plans that do not use a later feature are written as before it existed.
        if not self.products:
            del document["products"]
        if not self.channels:
            del document["channels"]
        for name in ("network", "change"):
            if document[name] is None:
                del document[name]
        if self.objects is None:
            del document["objects"]
        else:
            document["objects"] = self.objects.to_json()
        if self.region is None:
            del document["region"]
        if self.image.reading.is_plain:
            del document["image"]["reading"]
        if self.image.crs_pixel_size is None:
            del document["image"]["crs_pixel_size"]
        return json.dumps({"format": FORMAT, **document}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote; raises ValueError for anything else."""
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
                raise ValueError(f"its {what} does not have the size of its image")
        try:
            _ = plan.coverage  # which also checks the region
        except ArithmeticError as error:
            raise ValueError(str(error)) from error
        return plan


def at_model_scale(image: Image, facts: ImageFacts) -> Image:
    """The image as a run reads it: its level ``facts.level`` is resampled to the model's grid."""
    return image if facts.factors is None else ResampledImage(image, facts.level, facts.factors)


def nearest_of(image: Image, plan: Plan) -> Nearest:
    """The map from a mask to its image's own grid; the image must be opened `at_model_scale`."""
    spec, level = plan.like_image, image.levels[plan.image.level]
    assert spec is not None, "the plan has --like-image"
    return Nearest(
        (plan.image.height, plan.image.width),
        (spec.height, spec.width),
        (level.scale_y, level.scale_x),
    )


def absolute(path: str) -> str:
    """The absolute path; addresses of object stores stay as they are."""
    return path if "://" in path else str(Path(path).resolve())


def describe_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The differences of two environments, in words: ``torch 2.13.0 and 2.12.1``."""
    return ", ".join(
        f"{key} {ours.get(key) or 'none'} and {theirs.get(key) or 'none'}"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    )


def check_environment(plan: Plan, here: dict[str, Any]) -> None:
    """Raise InputError if the plan was made for another kind of worker."""
    if here != plan.environment:
        raise InputError(
            f"the run was planned for another kind of worker "
            f"({describe_differences(plan.environment, here)}), "
            "and results would differ in the last digits; use the same kind, --allow-mixed (equal "
            "labels up to ties only), or --overwrite to start over"
        )


def relocated(plan: Plan, image: Image, model: str) -> Plan:
    """The plan with the current paths of image and model."""
    return replace(plan, image=replace(plan.image, path=absolute(image.path)), model=model)
