"""Verification of a run's objects: some are found again from the pixels of the mask."""

from __future__ import annotations

from dataclasses import replace

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.report.verification import Verification
from tilepipe.errors import DamagedMaskError, InputError
from tilepipe.objects.layers import has_probabilities, probability_of
from tilepipe.objects.measuring import Measures
from tilepipe.objects.rules import part_table
from tilepipe.objects.scales import scale_of
from tilepipe.objects.table import open_table
from tilepipe.objects.verifying import choose_windows, verify_objects
from tilepipe.products.instances import open_instances
from tilepipe.products.store import ZarrMask
from tilepipe.storage import StoragePath
from tilepipe.text import count


def with_objects(
    found: Verification, plan: Plan, mask: ZarrMask, objects: StoragePath, windows: int, seed: int
) -> Verification:
    """The verification of a mask, and of the objects that its run made of it."""
    rule = plan.objects
    if rule is None:
        return found
    spec = mask.spec
    parts = part_table(rule, mask.kind, [c.name for c in spec.classes], spec.background)
    try:
        table, numbers = open_table(objects / "table"), open_instances(objects)
        layers = (probability_of(mask, table),) if has_probabilities(mask) else ()
        result = verify_objects(
            lambda window: parts.parts(mask.read(window)), rule, numbers, table,
            Measures(scale_of(spec), layers), choose_windows(table, windows, seed),
        )  # fmt: skip
    except (DamagedMaskError, InputError) as error:
        return replace(found, damage=(*found.damage, str(error)))
    sentence = f"objects: {count(result.objects, 'object')} found again in {result.windows} windows"
    return replace(
        found,
        covered=(*found.covered, sentence),
        damage=(*found.damage, *result.differences),
    )
