"""What the labels of mask and truth mean: classes, foreground, numbers of objects, or nothing.

Label maps come in many forms: classes 0, 1, 2; foreground as 255; a number for each object. They
are counted as they are, and interpreted once all of them have been counted, so that the meaning
does not depend on the labels that one image happens to hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.evaluation.options import EvaluateOptions, ObjectSource
from tilepipe.objects.rules import BORDER, FREE
from tilepipe.products.base import NO_ANSWER

LARGER, NONE = 256, 257
"""Bins of labels above 255, and of pixels that have no label."""

BINS = 258
"""Number of bins: the labels 0 .. 255, and those two."""

OBJECT_NAMES = ("nucleus", "nuclei", "cell", "cells", "object", "objects", "foreground")
BORDER_NAMES = ("border", "borders", "boundary", "contour", "edge")
"""Names by which the class of objects, and the class that separates them, are recognised."""


@dataclass(frozen=True, slots=True)
class LabelMapping:
    """How the bins of mask and truth become classes."""

    classes: tuple[str, ...]
    mask_table: NDArray[np.uint8]
    """The class of each bin of the mask, shape (258,); 255 for bins without a class."""
    truth_table: NDArray[np.uint8]
    """The class of each bin of the truth."""
    object_class: int | None = None
    """The class of the objects; None if there are none to compare."""
    mask_parts: NDArray[np.uint8] | None = None
    """For each bin of the mask 1, object, or what it is besides (`tilepipe.objects.rules`): the
    border or nothing; None if its labels number objects."""
    truth_parts: NDArray[np.uint8] | None = None
    """The parts that the bins of the truth stand for, as `mask_parts` has those of the mask."""

    def with_no_answer_as(self, label: int) -> LabelMapping:
        """The same mapping, with the bins of the mask that have no class counted as ``label``."""
        unanswered = self.mask_table == NO_ANSWER
        parts = self.mask_parts
        if parts is not None:
            parts = np.where(unanswered, label == self.object_class, parts).astype(np.uint8)
        table = np.where(unanswered, label, self.mask_table).astype(np.uint8)
        return replace(self, mask_table=table, mask_parts=parts)


@dataclass(frozen=True, slots=True)
class LabelStats:
    """What was counted of all masks, or of all truths, together."""

    path: str
    """Path of the first of them, for messages."""
    classes: tuple[str, ...] | None
    """Names of the classes, if the files have them."""
    ours: bool
    """Whether tilepipe wrote all of them, so that 255 certainly means "no answer"."""
    wide: bool
    """Whether labels take more than a byte, as the numbers of objects do."""
    counts: NDArray[np.int64]
    """Pixels in each bin, (258,)."""

    @property
    def labels(self) -> list[int]:
        """The labels that occur, without those above 255."""
        return np.flatnonzero(self.counts[:LARGER]).tolist()

    @property
    def two_valued(self) -> bool:
        """Whether only 255, and perhaps 0, occur in files that give 255 no other meaning."""
        return not self.ours and not self.counts[LARGER] and set(self.labels) in (
            {0, NO_ANSWER}, {NO_ANSWER},
        )  # fmt: skip

    def numbers_objects(self, source: ObjectSource, classes: int | None) -> bool:
        """Whether labels are the numbers of objects, and not classes."""
        if source != "auto":
            return source == "labels"
        foreground = sum(label > 0 for label in self.labels) + bool(self.counts[LARGER])
        if self.ours or foreground < 2:
            return False
        beyond = classes is not None and any(classes <= label < NO_ANSWER for label in self.labels)
        return self.wide or beyond


def binned(labels: NDArray[Any], nodata: int | None, ignore: tuple[int, ...]) -> NDArray[Any]:
    """Labels as bins, 0 .. 257, uint8 if that is enough; negative ones count as no label."""
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


def interpret(masks: LabelStats, truths: LabelStats, options: EvaluateOptions) -> LabelMapping:
    """Find out what labels mean, from all labels that occur and from the options.

    Raises
    ------
    InputError
        A label has no meaning, or an option is needed to tell which class is meant.
    """
    named = masks.classes
    if named is not None and truths.classes is not None and named != truths.classes:
        raise InputError(
            f"{masks.path} has the classes {_listed(named)}, and {truths.path} has "
            f"{_listed(truths.classes)}; compare masks with the same classes"
        )
    named = named or truths.classes
    mask_numbers = options.instances and masks.numbers_objects(options.mask_objects, None)
    truth_numbers = options.instances and truths.numbers_objects(
        options.truth_objects, len(named) if named else None
    )
    mask_binary = _or(options.binary_mask, masks.two_valued or mask_numbers)
    truth_binary = _or(options.binary_truth, truths.two_valued or truth_numbers)
    classes = named or _classes_counted(masks, truths, mask_binary, truth_binary)
    mask_table = _binary_table() if mask_binary else _table(masks, classes)
    required = options.instances or truth_binary
    chosen = _object_class(classes, options, required=required)
    if chosen is None or not (required or options.object_class is not None):
        return LabelMapping(classes, mask_table, _table(truths, classes))
    mapping = _of_objects(classes, mask_table, truths, chosen, truth_binary, options)
    if options.split:
        _require_splittable(masks.path, mapping, numbered=mask_numbers)
    return replace(
        mapping,
        mask_parts=None if mask_numbers else mapping.mask_parts,
        truth_parts=None if truth_numbers else mapping.truth_parts,
    )


def _require_splittable(path: str, mapping: LabelMapping, *, numbered: bool) -> None:
    if numbered:
        raise InputError(f"{path} numbers its objects, so --split would have nothing to split")
    if mapping.mask_parts is not None and BORDER in mapping.mask_parts:
        raise InputError(
            f"{path} has a class of borders, which separates objects, so --split is not needed; "
            "with --border-class none, borders are background"
        )


def _of_objects(
    classes: tuple[str, ...],
    mask_table: NDArray[np.uint8],
    truths: LabelStats,
    chosen: int,
    truth_binary: bool,
    options: EvaluateOptions,
) -> LabelMapping:
    """The mapping if the objects are those of a chosen class, on both sides."""
    border = _border_class(classes, options)
    parts = _parts(mask_table, chosen, border)
    if not truth_binary:
        table = _table(truths, classes)
        return LabelMapping(
            classes, mask_table, table, chosen, parts, _parts(table, chosen, border)
        )
    table = _binary_table(chosen)
    truth_parts = (table == chosen).astype(np.uint8)
    if len(classes) > 2:
        # The truth has one class only: the other classes of the mask are background to it, except
        # for the border, which belongs to the objects that it separates.
        mask_table = _as_two(mask_table, parts)
        table = _as_two(table, truth_parts)
        classes, chosen = ("background", classes[chosen]), 1
    return LabelMapping(classes, mask_table, table, chosen, parts, truth_parts)


def interpret_plane(
    masks: LabelStats, truths: LabelStats, options: EvaluateOptions
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The tables of bins, of mask and of truth, for a plane of 0 and 1.

    Raises
    ------
    InputError
        The plane holds other labels.
    """
    mask_table, truth_table = (
        _binary_table() if _or(binary, stats.two_valued) else _table(stats, ("outside", "inside"))
        for stats, binary in ((masks, options.binary_mask), (truths, options.binary_truth))
    )
    return mask_table, truth_table


def class_number(classes: tuple[str, ...], wanted: str | int, option: str) -> int:
    """The number of a class, which ``option`` gives by name or number.

    Raises
    ------
    InputError
        There is no such class.
    """
    if str(wanted) in classes:
        return classes.index(str(wanted))
    if str(wanted).isdecimal() and int(wanted) < len(classes):
        return int(wanted)
    raise InputError(f"{option} {wanted}: there is no such class; choose from {_listed(classes)}")


def _classes_counted(
    masks: LabelStats, truths: LabelStats, mask_binary: bool, truth_binary: bool
) -> tuple[str, ...]:
    """Classes for maps that do not name them."""
    labels = [
        label
        for stats, binary in ((masks, mask_binary), (truths, truth_binary))
        for label in ([0, 1] if binary else stats.labels)
        if label != NO_ANSWER
    ]
    count = max([1, *labels]) + 1
    return ("background", "foreground") if count == 2 else tuple(map(str, range(count)))


def _table(stats: LabelStats, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """The table for labels that are classes; 255 is no class."""
    count = len(classes)
    beyond = [label for label in stats.labels if count <= label < NO_ANSWER]
    if stats.counts[LARGER]:
        beyond.append(LARGER)
    if beyond:
        label = f"the label {beyond[0]}" if beyond[0] < LARGER else "labels above 255"
        raise InputError(
            f"{stats.path}, or another file with it, has {label}, but there are {count} classes "
            f"({_listed(classes)}); leave it out with --ignore, or use --instances if labels are "
            "the numbers of objects"
        )
    table = np.full(BINS, NO_ANSWER, np.uint8)
    table[:count] = np.arange(count)
    return table


def _binary_table(foreground: int = 1) -> NDArray[np.uint8]:
    """The table if every label other than 0 is foreground."""
    table = np.full(BINS, foreground, np.uint8)
    table[0], table[NONE] = 0, NO_ANSWER
    return table


def _parts(table: NDArray[np.uint8], chosen: int, border: int | None) -> NDArray[np.uint8]:
    parts = np.full(BINS, FREE, np.uint8)
    parts[table == chosen] = 1
    if border is not None:
        parts[table == border] = BORDER
    return parts


def _as_two(table: NDArray[np.uint8], inside: NDArray[Any]) -> NDArray[np.uint8]:
    """A table of the classes 0 and 1; bins without a class stay without."""
    return np.asarray(np.where(table == NO_ANSWER, table, inside > 0), np.uint8)


def _object_class(
    classes: tuple[str, ...], options: EvaluateOptions, *, required: bool
) -> int | None:
    if options.object_class is not None:
        return class_number(classes, options.object_class, "--object-class")
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
            f"which of the classes {_listed(classes)} are the objects? Use --object-class"
        )
    return None


def _border_class(classes: tuple[str, ...], options: EvaluateOptions) -> int | None:
    if options.border_class == "none":
        return None
    if options.border_class is not None:
        return class_number(classes, options.border_class, "--border-class")
    known = [number for number, name in enumerate(classes) if name.lower() in BORDER_NAMES]
    return known[0] if len(known) == 1 else None


def _or(option: bool | None, found: bool) -> bool:
    return found if option is None else option


def _listed(classes: tuple[str, ...]) -> str:
    return ", ".join(classes)
