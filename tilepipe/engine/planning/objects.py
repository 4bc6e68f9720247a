"""The rule by which a run makes objects: the model's, changed by the options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tilepipe.engine.options import RunOptions
from tilepipe.errors import InputError
from tilepipe.models.object_rule import Method, ObjectRule
from tilepipe.models.specs import Model
from tilepipe.objects.areas import PixelArea
from tilepipe.objects.rules import part_table
from tilepipe.products.base import MaskSpec
from tilepipe.quantities import area_in_pixels


def object_rule(
    options: RunOptions, model: Model, spec: MaskSpec, wanted: bool
) -> ObjectRule | None:
    """The rule for the objects of a run, or None if it makes none.

    Parameters
    ----------
    options
        Of the run.
    model
        Whose rule applies where the options do not say otherwise.
    spec
        The mask, whose classes the rule is about.
    wanted
        Whether an output holds objects.

    Raises
    ------
    InputError
        When objects cannot be made so, of this mask.
    """
    if options.objects == "none" or not (wanted or options.objects != "auto"):
        if wanted:
            raise InputError("objects: none is given, and an output for objects; leave out one")
        return None
    rule = model.output.objects
    if options.objects != "auto":
        rule = _of_method(options.objects, rule, model)
    rule = changed(rule or ObjectRule(), spec, options.min_area, fill_holes=options.fill_holes)
    return with_classes(rule, spec)


def changed(
    rule: ObjectRule,
    spec: MaskSpec,
    min_area: str | None = None,
    max_hole: str | None = None,
    **others: Any,
) -> ObjectRule:
    """A rule with what is given in place of its own.

    Areas are as `tilepipe.quantities.parse_area` gives them; the others are fields of the rule.
    What is None stays as it is.
    """
    given: dict[str, Any] = {name: value for name, value in others.items() if value is not None}
    for name, area in (("min_area", min_area), ("max_hole", max_hole)):
        if area is not None:
            metres = PixelArea(spec).metres
            given[name] = area_in_pixels(area, metres and metres[0] * metres[1])
    try:
        return replace(rule, **given)
    except ValueError as error:
        raise InputError(f"objects: {error}") from error


def with_classes(rule: ObjectRule, spec: MaskSpec) -> ObjectRule:
    """A rule that names its classes; InputError if the mask has no such classes."""
    names = [named.name for named in spec.classes]
    table = part_table(rule, spec.kind, names, spec.background)
    return replace(rule, classes=tuple(names[index] for index in table.classes))


def _of_method(method: Method, rule: ObjectRule | None, model: Model) -> ObjectRule:
    """The model's rule with another method; its classes and sizes stay."""
    if method == "seeded" and (rule is None or not rule.border):
        raise InputError(
            f"objects: model {model.name} does not say what its core and border classes are; make "
            "objects of the finished mask with `tilepipe objects MASK --method seeded --class CORE "
            "--border BORDER`"
        )
    if rule is None:
        return ObjectRule(method)
    return replace(rule, method=method, border=rule.border if method == "seeded" else "")
