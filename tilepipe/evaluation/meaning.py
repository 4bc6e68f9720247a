"""What the labels of mask and truth stand for: which class, which is none, what is an object.

Label maps come in many forms: classes 0, 1, 2; foreground as 255; one number for each object. They
are counted as they are, and interpreted once all of them have been counted, so that what one image
happens to hold decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.products.base import NO_ANSWER

LARGER, NONE = 256, 257
"""Bins of labels above 255, and of pixels that are declared to have none."""

BINS = 258
"""The labels 0 .. 255, and those two."""

Form = Literal["auto", "classes", "components", "labels"]
"""What a map holds: classes; a foreground whose components are objects; a number per object."""

OBJECT_NAMES = ("nucleus", "nuclei", "cell", "cells", "object", "objects", "foreground")
BORDER_NAMES = ("border", "borders", "boundary", "contour", "edge")
"""Names by which the classes of objects, and of what keeps them apart, are known."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the user says about labels; None where it is to be found out."""

    instances: bool = False
    object_class: str | int | None = None
    border_class: str | int | None = None
    """A class, or ``"none"``."""
    binary_mask: bool | None = None
    """Whether every label of the mask other than 0 is foreground."""
    binary_truth: bool | None = None
    """Whether every label of the truth other than 0 is foreground."""
    mask_objects: Form = "auto"
    truth_objects: Form = "auto"
    ignore: tuple[int, ...] = ()
    """Labels of the truth that are left out."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """How the bins of mask and truth become classes."""

    classes: tuple[str, ...]
    mask_table: NDArray[np.uint8]
    """The class of each bin, shape (258,); 255 for none."""
    truth_table: NDArray[np.uint8]
    object_class: int | None = None
    """Among `classes`; None where there is no class of objects to be found."""
    parts: NDArray[np.uint8] | None = None
    """Bins of the mask as 1, object, and 2, border; None where labels are object numbers."""
    truth_parts: NDArray[np.uint8] | None = None
    """The same of the truth."""


@dataclass(frozen=True, slots=True)
class Side:
    """All masks, or all truths, together."""

    path: str
    """Of the first of them, for messages."""
    classes: tuple[str, ...] | None
    ours: bool
    """Whether tilepipe wrote them, so that 255 is "no answer" for certain."""
    wide: bool
    """Whether labels are stored in more than a byte, as the numbers of objects are."""
    seen: NDArray[np.int64]
    """Pixels in each bin, (258,)."""

    @property
    def labels(self) -> list[int]:
        """The labels that occur, without those above 255."""
        return np.flatnonzero(self.seen[:LARGER]).tolist()

    @property
    def two_valued(self) -> bool:
        """Whether it holds 255 and, besides, 0 at most, in files that give 255 no meaning."""
        return not self.ours and not self.seen[LARGER] and set(self.labels) in (
            {0, NO_ANSWER}, {NO_ANSWER},
        )  # fmt: skip

    def holds_numbers(self, form: Form, classes: int | None) -> bool:
        """Whether labels are the numbers of objects, and not classes."""
        if form != "auto":
            return form == "labels"
        foreground = sum(label > 0 for label in self.labels) + bool(self.seen[LARGER])
        if self.ours or foreground < 2:
            return False
        beyond = classes is not None and any(classes <= label < NO_ANSWER for label in self.labels)
        return self.wide or beyond


def binned(labels: NDArray[Any], nodata: int | None, ignore: tuple[int, ...]) -> NDArray[Any]:
    """Labels as bins, 0 .. 257; of the same shape, uint8 where that is enough.

    Negative labels are none.
    """
    left_out = [*ignore, *([] if nodata is None else [nodata])]
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.dtype == np.uint8 and not left_out:
        return labels
    bins = np.minimum(labels, LARGER, dtype=np.int64).astype(np.int16)
    bins[labels < 0] = NONE
    for label in left_out:
        bins[labels == label] = NONE
    return np.asarray(bins, np.uint16)


def interpret(masks: Side, truths: Side, said: Reading) -> Meaning:
    """Find out what labels mean, from all that occur and from what the user says.

    Raises
    ------
    InputError
        A label has no meaning, or which class is meant has to be said.
    """
    named = masks.classes
    if named is not None and truths.classes is not None and named != truths.classes:
        raise InputError(
            f"{masks.path} has the classes {_listed(named)}, and {truths.path} has "
            f"{_listed(truths.classes)}; compare masks of the same classes"
        )
    named = named or truths.classes
    mask_numbers = said.instances and masks.holds_numbers(said.mask_objects, None)
    truth_numbers = said.instances and truths.holds_numbers(
        said.truth_objects, len(named) if named else None
    )
    mask_binary = _or(said.binary_mask, masks.two_valued or mask_numbers)
    truth_binary = _or(said.binary_truth, truths.two_valued or truth_numbers)
    classes = named or _classes_seen(masks, truths, mask_binary, truth_binary)
    mask_table = _binary_table() if mask_binary else _table(masks, classes)
    wants_object = said.instances or said.object_class is not None or truth_binary
    chosen = _object_class(classes, said, required=said.instances or truth_binary)
    if not wants_object or chosen is None:
        return Meaning(classes, mask_table, _table(truths, classes))
    border = _border_class(classes, said)
    one_class = truth_binary and len(classes) > 2
    truth_table = _binary_table(chosen) if truth_binary else _table(truths, classes)
    parts = _parts(mask_table, chosen, border)
    if one_class:
        # The truth knows one class only: the mask's other classes are background to it, but for
        # the border, which belongs to the objects that it keeps apart.
        mask_table = _as_two(mask_table, parts)
        truth_table = _as_two(truth_table, truth_table == chosen)
        classes, chosen = ("background", classes[chosen]), 1
    truth_parts = truth_table == chosen if truth_binary else _parts(truth_table, chosen, border)
    return Meaning(
        classes,
        mask_table,
        truth_table,
        chosen,
        None if mask_numbers else parts,
        None if truth_numbers else truth_parts.astype(np.uint8),
    )


def interpret_plane(masks: Side, truths: Side, said: Reading) -> tuple[Any, Any]:
    """The tables of bins of a plane of its own, 0 or 1, of mask and of truth.

    Raises
    ------
    InputError
        It holds other labels.
    """
    tables = []
    for side, binary in ((masks, said.binary_mask), (truths, said.binary_truth)):
        two = _or(binary, side.two_valued)
        tables.append(_binary_table() if two else _table(side, ("outside", "inside")))
    return tables[0], tables[1]


def class_number(classes: tuple[str, ...], wanted: str | int, option: str) -> int:
    """The number of a class that is given by name or number.

    Raises
    ------
    InputError
        There is no such class.
    """
    if str(wanted) in classes:
        return classes.index(str(wanted))
    if str(wanted).isdecimal() and int(wanted) < len(classes):
        return int(wanted)
    raise InputError(f"{option} {wanted}: there is no such class; choose of {_listed(classes)}")


def _classes_seen(
    masks: Side, truths: Side, mask_binary: bool, truth_binary: bool
) -> tuple[str, ...]:
    """Classes for maps that do not name them."""
    labels = [
        label
        for side, binary in ((masks, mask_binary), (truths, truth_binary))
        for label in ([0, 1] if binary else side.labels)
        if label != NO_ANSWER
    ]
    count = max([1, *labels]) + 1
    return ("background", "foreground") if count == 2 else tuple(map(str, range(count)))


def _table(side: Side, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """Labels that are classes, each its own; 255 is none."""
    count = len(classes)
    beyond = [label for label in side.labels if count <= label < NO_ANSWER]
    if side.seen[LARGER]:
        beyond.append(LARGER)
    if beyond:
        label = f"the label {beyond[0]}" if beyond[0] < LARGER else "labels above 255"
        raise InputError(
            f"{side.path}, or one like it, has {label}, and there are {count} classes "
            f"({_listed(classes)}); leave it out with --ignore, or, if labels are the numbers of "
            "objects, say --instances"
        )
    table = np.full(BINS, NO_ANSWER, np.uint8)
    table[:count] = np.arange(count)
    return table


def _binary_table(foreground: int = 1) -> NDArray[np.uint8]:
    """Every label but 0 is foreground."""
    table = np.full(BINS, foreground, np.uint8)
    table[0], table[NONE] = 0, NO_ANSWER
    return table


def _parts(table: NDArray[np.uint8], chosen: int, border: int | None) -> NDArray[np.uint8]:
    parts = np.zeros(BINS, np.uint8)
    parts[table == chosen] = 1
    if border is not None:
        parts[table == border] = 2
    return parts


def _as_two(table: NDArray[np.uint8], inside: NDArray[Any]) -> NDArray[np.uint8]:
    """Classes as 0 and 1; what is none stays so."""
    return np.asarray(np.where(table == NO_ANSWER, table, inside > 0), np.uint8)


def _object_class(classes: tuple[str, ...], said: Reading, *, required: bool) -> int | None:
    if said.object_class is not None:
        return class_number(classes, said.object_class, "--object-class")
    candidates = [
        number
        for number, name in enumerate(classes)
        if number > 0 and name.lower() not in BORDER_NAMES
    ]
    known = [number for number in candidates if classes[number].lower() in OBJECT_NAMES]
    for found in (known, candidates):
        if len(found) == 1:
            return found[0]
    if required:
        raise InputError(
            f"which of the classes {_listed(classes)} is compared? Name it with --object-class"
        )
    return None


def _border_class(classes: tuple[str, ...], said: Reading) -> int | None:
    if said.border_class == "none":
        return None
    if said.border_class is not None:
        return class_number(classes, said.border_class, "--border-class")
    known = [number for number, name in enumerate(classes) if name.lower() in BORDER_NAMES]
    return known[0] if len(known) == 1 else None


def _or(said: bool | None, found: bool) -> bool:
    return found if said is None else said


def _listed(classes: tuple[str, ...]) -> str:
    return ", ".join(classes)
