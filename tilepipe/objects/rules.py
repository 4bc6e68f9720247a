"""What a rule for objects makes of the pixels of a mask: the part of an object that each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.models.object_rule import ObjectRule
from tilepipe.text import some

FREE, BORDER, NO_ANSWER = 0, 254, 255
"""Parts of a mask that are no object: the background, the border class, and no answer. The k-th
class of objects is part k, from 1 on."""

_UNKNOWN = 253
MOST_CLASSES = _UNKNOWN - 1

Parts = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PartTable:
    """Which part of an object each label, or each plane, of a mask is."""

    labels: tuple[int, ...]
    """The part of each label of a mask of labels; empty for planes."""
    planes: tuple[tuple[int, int], ...]
    """(plane, part), later ones over earlier ones, for a mask of planes; empty for labels."""
    classes: tuple[int, ...]
    """The index, in the mask's classes, of the class of each part: of part 1, part 2 ..."""

    def parts(self, stored: NDArray[Any]) -> Parts:
        """The parts of stored pixels, (H, W) of labels or (C, H, W) of planes, as (H, W).

        Raises InputError for a label that is no class of the mask.
        """
        if self.labels:
            table = np.full(256, _UNKNOWN, np.uint8)
            table[: len(self.labels)] = self.labels
            table[255] = NO_ANSWER
            parts: Parts = table[stored]
            if (unknown := parts == _UNKNOWN).any():
                label = int(stored[unknown][0])
                raise InputError(
                    f"has label {label}, and classes only for 0 to {len(self.labels) - 1}; give a "
                    "table that names all of them"
                )
            return parts
        found = np.full(stored.shape[1:], FREE, np.uint8)
        for plane, part in self.planes:
            found[stored[plane] == 1] = part
        found[stored[self.planes[0][0]] == NO_ANSWER] = NO_ANSWER
        return found


def part_table(
    rule: ObjectRule, kind: str, names: Sequence[str], background: int | None
) -> PartTable:
    """What a rule makes of a mask.

    Parameters
    ----------
    rule
        The rule; its classes must be classes of the mask.
    kind
        The mask's product: ``labels`` or ``planes``.
    names
        The mask's classes.
    background
        The index of the background, if there is one.

    Raises
    ------
    InputError
        For values, and for classes that the mask does not have.
    """
    if kind not in ("labels", "planes"):
        raise InputError(f"objects are made of classes, and this is a mask of {kind}")
    chosen = [_index(name, names) for name in rule.classes]
    border = _index(rule.border, names) if rule.border else None
    if not chosen:
        chosen = [n for n in range(len(names)) if n not in (background, border)]
        if background is None and kind == "labels" and len(names) > 1:
            chosen = chosen[1:] if chosen[:1] == [0] else chosen
    if not chosen:
        raise InputError("the mask has only a background class, so there are no objects in it")
    if len(chosen) > MOST_CLASSES:
        raise InputError(
            f"objects of {len(chosen)} classes at once are too many; name at most {MOST_CLASSES}"
        )
    if kind == "labels":
        parts = [FREE] * len(names)
        if border is not None:
            parts[border] = BORDER
        for part, index in enumerate(chosen, 1):
            parts[index] = part
        return PartTable(tuple(parts), (), tuple(chosen))
    if len(chosen) > 1:
        raise InputError(
            f"planes overlap, so objects are made of one at a time; name one of {some(list(names))}"
        )
    around = [] if border is None else [(border, BORDER)]
    return PartTable((), (*around, (chosen[0], 1)), tuple(chosen))


def _index(name: str, names: Sequence[str]) -> int:
    if name in names:
        return list(names).index(name)
    raise InputError(f"the mask has no class {name!r}; it has {some(list(names))}")
