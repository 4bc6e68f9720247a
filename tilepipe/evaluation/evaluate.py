"""`evaluate`: compare masks with truths, window by window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.evaluation.error_pictures import ClassTables, ErrorPictures
from tilepipe.evaluation.label_semantics import BINS, class_number, interpret, interpret_plane
from tilepipe.evaluation.matching import ObjectCounts
from tilepipe.evaluation.metrics import Confusion
from tilepipe.evaluation.options import EvaluateOptions
from tilepipe.evaluation.pairs import find_pairs
from tilepipe.evaluation.results import Evaluation, ImageResult
from tilepipe.evaluation.scan import OnProgress, ScanResult, compare_objects, label_stats, scan
from tilepipe.evaluation.scores import Counts
from tilepipe.products.base import NO_ANSWER

_PLANE_CLASSES = ("outside", "inside")
"""Classes of a plane, which is 0 or 1."""


def evaluate(options: EvaluateOptions, progress: OnProgress | None = None) -> Evaluation:
    """Compare masks with truths; see `tilepipe.evaluate`."""
    progress = progress or (lambda *_: None)
    pairs = find_pairs(options.mask, options.truth)
    pictures = ErrorPictures(pairs, options)
    scans = [scan(pair, options, progress) for pair in pairs]
    _require_alike(scans)
    if scans[0].kind == "values":
        return _evaluate_values(scans, options, pictures)
    if scans[0].kind == "planes":
        return _evaluate_planes(scans, options, pictures)
    return _evaluate_labels(scans, options, pictures, progress)


def _evaluate_values(
    scans: list[ScanResult], options: EvaluateOptions, pictures: ErrorPictures
) -> Evaluation:
    classes = scans[0].classes or _numbered(scans[0].planes)
    for one in scans:
        pictures.draw_differences(one.pair, one.subsample)
    results = tuple(ImageResult(one.pair, Counts(classes, errors=one.errors)) for one in scans)
    return Evaluation("values", classes, results, None, options.seed)


def _evaluate_planes(
    scans: list[ScanResult], options: EvaluateOptions, pictures: ErrorPictures
) -> Evaluation:
    """Each plane is a class of its own, inside or outside."""
    if options.instances:
        raise InputError(
            f"{scans[0].pair.mask} holds a plane for each class; --instances needs a mask of labels"
        )
    planes = range(scans[0].planes)
    classes = scans[0].classes or _numbered(len(planes))
    tables = [
        interpret_plane(label_stats(scans, 0, plane), label_stats(scans, 1, plane), options)
        for plane in planes
    ]
    filled = _class_of_no_answer(_PLANE_CLASSES, options)
    results = []
    for one in scans:
        confusions = [
            _confusion(one.histogram(plane), tables[plane], _PLANE_CLASSES) for plane in planes
        ]
        results.append(ImageResult(one.pair, _counts(classes, confusions, filled, None)))
        pictures.draw_errors(one.pair, one.subsample, tables)
    return Evaluation("planes", classes, tuple(results), None, options.seed)


def _evaluate_labels(
    scans: list[ScanResult], options: EvaluateOptions, pictures: ErrorPictures, progress: OnProgress
) -> Evaluation:
    mapping = interpret(label_stats(scans, 0), label_stats(scans, 1), options)
    classes, tables = mapping.classes, (mapping.mask_table, mapping.truth_table)
    filled = _class_of_no_answer(classes, options)
    of_objects = mapping if filled is None else mapping.with_no_answer_as(filled)
    results = []
    for one in scans:
        confusion = _confusion(one.histogram(0), tables, classes)
        objects = None
        if options.instances:
            objects = compare_objects(one.pair, of_objects, options, progress)
        results.append(ImageResult(one.pair, _counts(classes, [confusion], filled, objects)))
        pictures.draw_errors(one.pair, one.subsample, [tables])
    compared = None
    if options.instances and mapping.object_class is not None:
        compared = classes[mapping.object_class]
    return Evaluation("labels", classes, tuple(results), compared, options.seed)


def _class_of_no_answer(classes: tuple[str, ...], options: EvaluateOptions) -> int | None:
    """The class that counts where the mask has no answer; None if such pixels are left out."""
    if options.no_answer_as is None:
        return None
    return class_number(classes, options.no_answer_as, "--no-answer-as")


def _confusion(
    histogram: NDArray[np.int64], tables: ClassTables, classes: tuple[str, ...]
) -> Confusion:
    """A joint histogram of bins as one of classes."""
    mask_table, truth_table = tables
    rows = np.zeros((NO_ANSWER + 1, BINS), np.int64)
    np.add.at(rows, truth_table, histogram)
    table = np.zeros((NO_ANSWER + 1, NO_ANSWER + 1), np.int64)
    np.add.at(table.T, mask_table, rows.T)
    known = slice(0, len(classes))
    confusion = Confusion(len(classes))
    confusion.matrix = table[known, known]
    confusion.unanswered = table[known, NO_ANSWER]
    confusion.ignored = int(table[NO_ANSWER].sum())
    return confusion


def _counts(
    classes: tuple[str, ...],
    confusions: list[Confusion],
    filled: int | None,
    objects: ObjectCounts | None,
) -> Counts:
    no_answer = sum(c.no_answer for c in confusions)
    if filled is not None:
        confusions = [c.answering(filled) for c in confusions]
    return Counts(classes, tuple(confusions), no_answer, objects)


def _require_alike(scans: list[ScanResult]) -> None:
    first = scans[0]
    for other in scans[1:]:
        if (other.kind, other.planes) != (first.kind, first.planes):
            held = [f"{one.kind}, {one.planes} per pixel" for one in (first, other)]
            raise InputError(
                f"{first.pair.mask} has {held[0]}, and {other.pair.mask} has {held[1]}; evaluate "
                "them separately"
            )
        if other.classes != first.classes:
            named = [", ".join(one.classes or ("without names",)) for one in (first, other)]
            raise InputError(
                f"{first.pair.mask} has the classes {named[0]}, and {other.pair.mask} has "
                f"{named[1]}; evaluate them separately"
            )


def _numbered(planes: int) -> tuple[str, ...]:
    return tuple(map(str, range(planes)))
