"""Verification of a run's objects: some are found again from the pixels of the mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.report.verification import Verification
from tilepipe.errors import DamagedMaskError, InputError
from tilepipe.objects.measures import has_probabilities, probability_of
from tilepipe.objects.measuring import Measures
from tilepipe.objects.rules import part_table
from tilepipe.objects.scales import scale_of
from tilepipe.objects.table import ObjectTable, open_table
from tilepipe.objects.verifying import choose_windows, verify_objects
from tilepipe.products.instances import open_instances
from tilepipe.products.store import ZarrMask
from tilepipe.storage import StoragePath
from tilepipe.text import count


class ClassColumn:
    """The class of each object of a table, read as it is asked for."""

    def __init__(self, table: ObjectTable) -> None:
        self._table = table

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        if not len(rows):
            return np.zeros(0, np.uint8)
        low = int(rows.min())
        column = self._table.read(low, int(rows.max()) + 1, outlines=False).columns["class"]
        found: NDArray[np.uint8] = column[rows - low]
        return found


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
        layers = (probability_of(mask, ClassColumn(table)),) if has_probabilities(mask) else ()
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
