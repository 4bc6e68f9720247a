"""The plan: everything a run decides before its first block, frozen with the output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilepipe.engine.options import Probabilities, RunOptions
from tilepipe.engine.plan.coverage import Coverage
from tilepipe.engine.plan.region import RegionFacts, coverage_of, region_differences
from tilepipe.engine.plan.scale import Scale, base_pixel_size, choose_scale, ratio
from tilepipe.errors import InputError
from tilepipe.grid import Geometry, Tiling
from tilepipe.images.bands import show_bands
from tilepipe.images.base import SCALE_TOLERANCE, Image, PixelSize, alike, show_pixel_size
from tilepipe.images.ground import crs_name
from tilepipe.images.reading import Reading
from tilepipe.images.resampled import Factors, ResampledImage, resampled_size
from tilepipe.products.base import Kind, MaskClass, MaskSpec
from tilepipe.products.like_image import Nearest
from tilepipe.schema import strict_json

if TYPE_CHECKING:
    from tilepipe.models.file import Model

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

    @property
    def coverage(self) -> Coverage:
        """The blocks and tiles that are computed."""
        return coverage_of(self.tiling, self.region)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.coverage)

    def to_json(self) -> str:
        """The plan as a JSON document, the same for equal plans."""
        document = asdict(self)
        document["mask"] = self.mask.to_json()
        document["like_image"] = self.like_image and self.like_image.to_json()
        if self.region is None:  # as before there were regions
            del document["region"]
        document["image"]["reading"] = self.image.reading.to_json()
        if self.image.reading.is_plain:  # as before there was a choice
            del document["image"]["reading"]
        if self.image.crs_pixel_size is None:  # as before the ground was looked at
            del document["image"]["crs_pixel_size"]
        return json.dumps({"format": FORMAT, **document}, indent=1, sort_keys=True)

    @classmethod
    @strict_json
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote.

        Raises
        ------
        ValueError
            For text that is no plan of this format.
        """
        document = json.loads(text)
        if document.pop("format") != FORMAT:
            raise ValueError("a plan of another format")
        image = document.pop("image")
        factors = image.pop("factors", None)
        reading = Reading.from_json(image.pop("reading", None))
        band_names = tuple(image.pop("band_names", ()))
        crs_pixel_size = _pixel_size(image.pop("crs_pixel_size", None))
        document.pop("batch", None)  # of earlier versions: always 1
        like_image = document.pop("like_image", None)
        region = document.pop("region", None)
        tiling = document.pop("tiling")
        plan = cls(
            image=ImageFacts(
                **{**image, "pixel_size": _pixel_size(image["pixel_size"])},
                factors=(float(factors[0]), float(factors[1])) if factors else None,
                reading=reading,
                band_names=band_names,
                crs_pixel_size=crs_pixel_size,
            ),
            tiling=Tiling(
                tiling["height"],
                tiling["width"],
                tuple(tiling["block"]),
                tuple(tiling["keep"]),
                Geometry(**tiling["geometry"]),
            ),
            mask=MaskSpec.from_json(document.pop("mask")),
            model_bands=tuple(document.pop("model_bands", ())),
            model_pixel_size=_pixel_size(document.pop("model_pixel_size", None)),
            like_image=MaskSpec.from_json(like_image) if like_image else None,
            region=_region(region),
            **document,
        )
        size = plan.image.height, plan.image.width
        for what, part in (("tiling", plan.tiling), ("mask", plan.mask)):
            if (part.height, part.width) != size:
                raise ValueError(f"its {what} is not of the size of its image")
        _ = plan.coverage  # which also says whether the region is sound
        return plan


def image_facts(image: Image, scale: Scale) -> ImageFacts:
    """What the plan holds of an image."""
    level = image.levels[scale.level]
    height, width = level.height, level.width
    if scale.factors is not None:
        height, width = resampled_size(level, scale.factors)
    return ImageFacts(
        path=absolute(image.path),
        kind=image.kind,
        fingerprint=image.fingerprint(),
        level=scale.level,
        height=height,
        width=width,
        bands=image.bands,
        dtype=np.dtype(image.dtype).name,
        pixel_size=scale.pixel_size,
        factors=scale.factors,
        reading=image.reading,
        band_names=image.band_names,
        crs_pixel_size=scale.crs_pixel_size,
    )


def at_model_scale(image: Image, facts: ImageFacts) -> Image:
    """The image as a run of that plan reads it: level ``facts.level`` is the model's grid."""
    return image if facts.factors is None else ResampledImage(image, facts.level, facts.factors)


def mask_spec(image: Image, model: Model, facts: ImageFacts, name: str) -> MaskSpec:
    """The mask of an image as the plan reads it: its grid and place, its classes."""
    level = at_model_scale(image, facts).levels[facts.level]
    output = model.output
    kind: Kind = "labels"
    if output.activation == "linear":
        kind = "values"
    elif output.activation == "sigmoid" and model.predictor.outputs > 1:
        kind = "planes"
    transform = None
    if image.transform is not None:
        a, b, c, d, e, f = image.transform
        sy, sx = level.scale_y, level.scale_x
        # Corners fall together, so it only grows about the image's.
        transform = (a * sx, b * sy, c, d * sx, e * sy, f)
    origin = (0.0, 0.0)
    if facts.pixel_size is not None:
        # The first centre of a coarser grid lies (f - 1) / 2 pixels of level 0 further in.
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
        control=image.control and image.control.on_grid(level.scale_y, level.scale_x),
        origin=origin,
        name=name,
        background=output.background,
    )


def show_scale(plan: Plan) -> str:
    """Whether the image is resampled for the model, and why, for a person."""
    image, wanted = plan.image, plan.model_pixel_size
    if wanted is None:
        return "as it is: the model is for images without a scale"
    made = f"the model's {show_pixel_size(wanted)}"
    if image.factors is not None:
        assert image.pixel_size is not None, "nothing is resampled without one"
        y, x = image.factors
        from_size = show_pixel_size(image.pixel_size.scaled(1 / y, 1 / x))
        return f"level {image.level} ({from_size}) {_resampled(image)} to {made}"
    if image.pixel_size is not None and image.pixel_size.is_sound:
        y, x = ratio(image.pixel_size, wanted)
        if alike(y, 1) and alike(x, 1):
            return f"not resampled: within {SCALE_TOLERANCE:.0%} of {made}"
    return f"level {image.level} as it is, as asked for; not {made}"


def show_selection(plan: Plan) -> str | None:
    """Which band of the image goes where, for a person; None where nothing is to be said."""
    image = plan.image
    names = image.band_names or ("",) * image.bands
    if image.reading.bands is None and not (plan.model_bands and any(names)):
        return None
    numbers = [int(band) for band in image.reading.bands or range(1, image.bands + 1)]
    if not plan.model_bands:
        return show_bands(names, numbers) + (", in this order" if len(numbers) > 1 else "")
    pairs = zip(plan.model_bands, numbers, names, strict=True)
    shown = [f"{wanted} from band {number} {name}".strip() for wanted, number, name in pairs]
    return ", ".join(shown)


def show_rescaling(plan: Plan) -> str | None:
    """How values are mapped to those of the model, for a person; None where they are not."""
    reading = plan.image.reading
    if reading.rescale is None:
        return None
    low, high = reading.rescale
    if np.dtype(reading.dtype).kind == "f":
        return f"{low:g} .. {high:g} become 0 .. 1, not clipped"
    limits = np.iinfo(np.dtype(reading.dtype))
    return f"{low:g} .. {high:g} become {limits.min} .. {limits.max}, and are clipped to them"


def show_ground(plan: Plan) -> str | None:
    """What pixels are on the ground, for a person; None where the CRS says as much."""
    image = plan.image
    if image.crs_pixel_size is None or plan.mask.crs is None:
        return None
    return (
        f"{show_pixel_size(image.crs_pixel_size)} in {crs_name(plan.mask.crs)} is "
        f"{show_pixel_size(image.pixel_size)} on the ground at the image's centre; scale and "
        "areas are those on the ground"
    )


def show_region(plan: Plan) -> str:
    """What part of the image is computed, for a person."""
    region = plan.region
    if region is None:
        return "all of the image"
    return f"{region.share:.1%} of the image in cells of {region.cell}: {region.how}"


def like_image_spec(image: Image, spec: MaskSpec, options: RunOptions) -> MaskSpec:
    """A mask on the image's own grid: that of its level 0."""
    return replace(
        spec,
        height=image.levels[0].height,
        width=image.levels[0].width,
        pixel_size=base_pixel_size(image, options),
        transform=image.transform,
        control=image.control,
        origin=(0.0, 0.0),
    )


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
    found += _other_reading(plan.image.reading, image.reading)
    if not found:
        facts = image_facts(image, choose_scale(image, model, options))
        compare("level", plan.image.level, facts.level)
        if facts.level == plan.image.level and facts.factors != plan.image.factors:
            found.append(f"the level was {_resampled(plan.image)}, and is now {_resampled(facts)}")
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
    found += region_differences(plan.region, options)
    if options.like_image != (plan.like_image is not None):
        was, now = ("off", "on") if options.like_image else ("on", "off")
        found.append(f"like_image was {was}, now {now}")
    compare("device", plan.device, options.device)
    compare("precision", plan.precision, options.precision)
    compare("threads", plan.threads, options.threads)
    compare("runtime", plan.runtime, options.runtime)
    if options.probabilities != plan.probabilities:
        found.append(
            f"probabilities was {plan.probabilities or 'none'}, "
            f"now {options.probabilities or 'none'}"
        )
    return found


def _other_reading(planned: Reading, asked: Reading) -> list[str]:
    """In what two readings of an image differ."""
    found = []
    for each in fields(Reading):
        was, now = getattr(planned, each.name), getattr(asked, each.name)
        if was != now and not (was != was and now != now):  # NaN is not equal to itself
            found.append(f"{each.name} was {_shown(was)}, now {_shown(now)}")
    return found


def _shown(value: Any) -> str:
    """A choice of a reading, for a person."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "as the file says" if value is None else str(value)


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


def _pixel_size(document: dict[str, Any] | None) -> PixelSize | None:
    return PixelSize(**document) if document else None


def _region(document: dict[str, Any] | None) -> RegionFacts | None:
    if document is None:
        return None
    rectangle = document.pop("rectangle")
    return RegionFacts(rectangle=tuple(rectangle) if rectangle else None, **document)


def _resampled(facts: ImageFacts) -> str:
    if facts.factors is None:
        return "taken as it is"
    y, x = facts.factors
    return f"resampled by {y:.5g}" + ("" if y == x else f" x {x:.5g}")
