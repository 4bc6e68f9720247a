"""The differences between a request and the plan in its output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.describe import show_resampling
from tilepipe.engine.plan.label_change import percent
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.plan.region import RegionFacts
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.engine.planning.facts import image_facts
from tilepipe.engine.planning.int8 import MOST_CHANGE, allowed_change
from tilepipe.engine.planning.objects import object_rule
from tilepipe.engine.planning.region import source_fingerprint, tissue_name
from tilepipe.engine.state.outputs import Outputs
from tilepipe.images.base import Image, show_pixel_size
from tilepipe.images.reading import Reading
from tilepipe.models.specs import Model
from tilepipe.products.product import canonical_keys


def differences(
    plan: Plan, options: RunOptions, image: Image, model: Model, outputs: Outputs
) -> list[str]:
    """The differences between a plan and the user's request; none if the run can be resumed.

    Options that are ``auto`` agree with any plan.
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
            found.append(
                f"the level was {show_resampling(plan.image)}, and is now {show_resampling(facts)}"
            )
        if facts.pixel_size != plan.image.pixel_size:
            was, now = map(show_pixel_size, (plan.image.pixel_size, facts.pixel_size))
            found.append(f"pixel size was {was}, now {now}")
    if options.window != "auto":
        height, width = plan.tiling.input
        if (height, width) != (options.window, options.window):
            found.append(f"window was {width} x {height} (width x height), now {options.window}")
    found += region_differences(plan.region, options)
    compare("like_image", *map(_shown, (plan.like_image is not None, options.on_image_grid)))
    compare("channels", *map(_shown, (plan.channels, options.channels)))
    compare("device", plan.device, options.device)
    if options.precision != "fastest":
        compare("precision", plan.precision, options.precision)
    found += _other_bound(plan, options)
    compare("threads", plan.threads, options.threads)
    compare("runtime", plan.runtime, options.runtime)
    compare("ngff", plan.mask.ngff, options.ngff)
    found += _other_objects(plan, options, model, outputs)
    return found + _other_products(plan, options)


def _other_bound(plan: Plan, options: RunOptions) -> list[str]:
    """How a plan exceeds the changes that a trial of precisions may make."""
    if options.precision not in MOST_CHANGE or plan.precision == "fp32":
        return []
    if plan.change is None:
        return [f"precision was {plan.precision}, whose changes were not measured"]
    most = allowed_change(options)
    if plan.change.share <= most:
        return []
    return [f"{percent(plan.change.share)} of labels differ from fp32's, now {percent(most)} may"]


def _other_objects(plan: Plan, options: RunOptions, model: Model, outputs: Outputs) -> list[str]:
    """The difference between the rules for objects."""
    wanted = object_rule(options, model, plan.mask, outputs.has_objects)
    if wanted == plan.objects:
        return []
    was, now = ("none" if rule is None else str(rule) for rule in (plan.objects, wanted))
    return [f"objects was {was}, now {now} (`tilepipe objects` makes them of a finished mask)"]


def _other_products(plan: Plan, options: RunOptions) -> list[str]:
    """The differences between the products beside the mask."""
    # Masks from before bytes started from 1 stay as they are, and are resumed so.
    pairs = {
        "products": (plan.products, canonical_keys(options.further_products)),
        "probabilities": (plan.probabilities, options.stored_probabilities),
    }
    return [
        f"{what} was {_asked(planned)}, now {_asked(wanted)}"
        for what, (planned, wanted) in pairs.items()
        if _asked(planned) != _asked(wanted)
    ]


def _asked(stored: str | Iterable[str] | None) -> str:
    """A form, or keys, as they are asked for."""
    keys = [stored] if isinstance(stored, str) else stored or ()
    return ", ".join(sorted(key.removesuffix("-from-1") for key in keys)) or "none"


def _other_reading(planned: Reading, asked: Reading) -> list[str]:
    """The differences between two readings of an image."""
    found = []
    for each in fields(Reading):
        was, now = getattr(planned, each.name), getattr(asked, each.name)
        if was != now and not (was != was and now != now):  # NaN is not equal to itself
            found.append(f"{each.name} was {_shown(was)}, now {_shown(now)}")
    return found


def _shown(value: Any) -> str:
    """A value of a reading, in words."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "as in the file" if value is None else str(value)


def region_differences(facts: RegionFacts | None, options: RunOptions) -> list[str]:
    """The differences between two regions; files are compared by content."""
    found = []
    tissue = "none" if facts is None else facts.tissue
    if tissue in ("none", "auto") or options.tissue in ("none", "auto"):
        if tissue != tissue_name(options.tissue):
            found.append(f"tissue was {tissue}, now {options.tissue}")
    elif facts is not None and source_fingerprint(options.tissue) != facts.fingerprint:
        found.append(f"the tissue mask was {facts.tissue} (fingerprint {facts.fingerprint})")
    rectangle = None if facts is None else facts.rectangle
    if rectangle != options.region:
        was, now = (
            "the whole image" if each is None else ",".join(map(str, each))
            for each in (rectangle, options.region)
        )
        found.append(f"region was {was}, now {now}")
    return found
