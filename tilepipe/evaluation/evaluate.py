"""`evaluate`: masks against truths, window by window."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.evaluation.meaning import (
    BINS,
    Form,
    Reading,
    Side,
    class_number,
    interpret,
    interpret_plane,
)
from tilepipe.evaluation.metrics import Confusion
from tilepipe.evaluation.objects import ObjectCounts
from tilepipe.evaluation.pairs import Pair, find_pairs
from tilepipe.evaluation.passes import Options, Progress, Seen, compare_objects, look
from tilepipe.evaluation.pictures import Pictures
from tilepipe.evaluation.scores import METRICS, Counts, Scores, over_images, plain
from tilepipe.products.base import NO_ANSWER, Kind
from tilepipe.quantities import parse_bytes
from tilepipe.storage import written_here
from tilepipe.text import table_row


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What was counted of one pair."""

    pair: Pair
    counts: Counts


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` found."""

    kind: Kind
    """Of the masks: labels, planes, or values."""
    classes: tuple[str, ...]
    images: tuple[ImageResult, ...]
    object_class: str | None
    """Whose objects were compared; None where none were."""
    seed: int
    """Of the bootstrap."""

    @property
    def pooled(self) -> Counts:
        """The counts of all images together."""
        return reduce(add, (image.counts for image in self.images))

    def over_images(self) -> Scores:
        """The mean of each score over images, with its 95 % interval; see `scores.over_images`."""
        return over_images([image.counts.scores() for image in self.images], self.seed)

    def to_dict(self) -> dict[str, Any]:
        """As a document of plain JSON types; a score that is not defined is None."""
        pooled = self.pooled
        document: dict[str, Any] = plain(
            {
                "format": 1,
                "kind": self.kind,
                "classes": self.classes,
                "object_class": self.object_class,
                "images": len(self.images),
                "seed": self.seed,
                "counts": pooled.to_dict(),
                "pooled": pooled.scores(),
                "over_images": self.over_images(),
                "per_image": [
                    {
                        "name": image.pair.name,
                        "mask": str(image.pair.mask),
                        "truth": str(image.pair.truth),
                        "counts": image.counts.to_dict(),
                        "scores": image.counts.scores(),
                    }
                    for image in self.images
                ],
            }
        )
        return document

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1)

    def write_csv(self, path: str | Path) -> None:
        """Write a table of scores: a row for each class of each image, and of all together.

        Raises
        ------
        InputError
            It cannot be written there.
        """
        rows = [
            row
            for name, counts in (
                *((image.pair.name, image.counts) for image in self.images),
                ("(all)", self.pooled),
            )
            for row in self._rows(name, counts)
        ]
        try:
            with written_here(path).open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(
                    file, list(dict.fromkeys(key for row in rows for key in row))
                )
                writer.writeheader()
                writer.writerows(map(table_row, rows))
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror}); choose another"
            ) from error

    def _rows(self, name: str, counts: Counts) -> list[dict[str, Any]]:
        scores = plain(counts.scores())
        if self.kind == "values":
            return [
                {"image": name, "class": plane, "compared": e.count, **scores["values"][plane]}
                for plane, e in zip(self.classes, counts.errors, strict=True)
            ]
        rows = []
        for number, label in enumerate(self.classes):
            row: dict[str, Any] = {"image": name, "class": label}
            for what in ("true", "predicted", "hits"):
                row[f"{what}_pixels"] = int(counts.of_classes(what)[number])
            row |= {metric: scores["classes"][label][metric] for metric in METRICS}
            row["answered"] = plain(counts.answered)
            if counts.objects is not None and label == self.object_class:
                row |= {
                    key: getattr(counts.objects, key)
                    for key in ("true_positives", "false_positives", "false_negatives")
                }
                row |= {f"object_{key}": value for key, value in scores["objects"].items()}
            rows.append(row)
        return rows


def evaluate(
    mask: str | Path,
    truth: str | Path | None = None,
    *,
    instances: bool = False,
    object_class: str | int | None = None,
    border_class: str | int | None = None,
    min_size: int = 0,
    fill_holes: bool = False,
    mask_objects: Form = "auto",
    truth_objects: Form = "auto",
    binary_mask: bool | None = None,
    binary_truth: bool | None = None,
    ignore: tuple[int, ...] = (),
    no_answer_as: str | int | None = None,
    warp: bool = False,
    memory: int | str = "1GB",
    plot: str | Path | None = None,
    image: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare masks with the truth.

    Parameters
    ----------
    mask, truth : path
        Two files; two folders, whose files pair by their names; or a CSV file with the columns
        ``mask`` and ``truth``, and no ``truth``.
    instances : bool
        Compare objects too: F1 at IoU 0.5, and AJI.
    object_class : str or int, optional
        The class of the objects, by name or number [the only one, or the one named nucleus].
    border_class : str or int, optional
        The class that keeps objects apart, or ``"none"`` [the one named border].
    min_size : int
        Objects of the mask of fewer pixels do not count.
    fill_holes : bool
        Whether what an object of the mask encloses is part of it.
    mask_objects, truth_objects : {"auto", "classes", "components", "labels"}
        Where objects come from: ``labels``, each has a number of its own; otherwise they are the
        components of the class.
    binary_mask, binary_truth : bool, optional
        Whether every label other than 0 is foreground [where there are 0 and 255 only, and
        tilepipe did not write the file]. Otherwise 255 is "no answer", and in a truth "ignore".
    ignore : tuple of int
        Labels of the truth that are left out.
    no_answer_as : str or int, optional
        The class that counts where the mask has no answer [such pixels are left out].
    warp : bool
        Bring a georeferenced truth to the grid of the mask.
    memory : int or str
        About how many bytes may be held, such as ``"1GB"``.
    plot : path, optional
        Where a picture of the errors goes: a PNG, or for several pairs a folder.
    image : path, optional
        The image, or for several pairs a folder of images, that the picture shows beneath.
    seed : int
        Of the bootstrap.
    progress : callable, optional
        Told what is being done, and how many pixels of how many.

    Returns
    -------
    Evaluation
        Counts and scores of each image, of all pixels together, and of images on average.

    Raises
    ------
    InputError
        A file is missing or has no partner, grids differ, or labels have no meaning.
    """
    reading = Reading(
        instances, object_class, border_class, binary_mask, binary_truth,
        mask_objects, truth_objects, tuple(ignore),
    )  # fmt: skip
    allowed = parse_bytes(memory)
    for name, value, least in (
        ("memory", allowed, 1),
        ("min_size", min_size, 0),
        ("seed", seed, 0),
    ):
        if value < least:
            raise InputError(f"{name} must be at least {least}, not {value}")
    options = Options(reading, warp, allowed, progress or (lambda *_: None))
    pairs = find_pairs(mask, truth)
    pictures = Pictures(pairs, plot, image)
    seen = [look(pair, options, sampled=plot is not None) for pair in pairs]
    _require_alike(seen)
    kind = seen[0].kind
    if kind == "values":
        classes = seen[0].classes or _numbered(len(seen[0].errors))
        results = [ImageResult(s.pair, Counts(classes, errors=s.errors)) for s in seen]
        for s in seen:
            pictures.draw_differences(s)
        return Evaluation(kind, classes, tuple(results), None, seed)
    if kind == "planes":
        if instances:
            raise InputError(
                f"{pairs[0].mask} holds a plane for each class; --instances takes a mask of labels"
            )
        return _evaluate_planes(seen, reading, no_answer_as, pictures, seed)

    meaning = interpret(_side(seen, 0), _side(seen, 1), reading)
    filled = None
    if no_answer_as is not None:
        filled = class_number(meaning.classes, no_answer_as, "--no-answer-as")
    results = []
    for s in seen:
        confusion = _confusion(s.joint(0), meaning.mask_table, meaning.truth_table, meaning.classes)
        objects = None
        if instances:
            objects = compare_objects(s.pair, meaning, filled, options, min_size, fill_holes)
        counts = _counts(meaning.classes, [confusion], filled, objects)
        results.append(ImageResult(s.pair, counts))
        pictures.draw_errors(s, [(meaning.mask_table, meaning.truth_table)])
    chosen = meaning.classes[meaning.object_class] if meaning.object_class is not None else None
    return Evaluation(kind, meaning.classes, tuple(results), chosen if instances else None, seed)


def _evaluate_planes(
    seen: list[Seen],
    reading: Reading,
    no_answer_as: str | int | None,
    pictures: Pictures,
    seed: int,
) -> Evaluation:
    """Each plane is a class of its own, inside or outside."""
    count = len(seen[0].joints)
    classes = seen[0].classes or _numbered(count)
    tables = [
        interpret_plane(_side(seen, 0, plane), _side(seen, 1, plane), reading)
        for plane in range(count)
    ]
    filled = None
    if no_answer_as is not None:
        filled = class_number(("outside", "inside"), no_answer_as, "--no-answer-as")
    results = []
    for s in seen:
        confusions = [
            _confusion(s.joint(plane), *tables[plane], ("outside", "inside"))
            for plane in range(count)
        ]
        results.append(ImageResult(s.pair, _counts(classes, confusions, filled, None)))
        pictures.draw_errors(s, tables)
    return Evaluation("planes", classes, tuple(results), None, seed)


def _confusion(
    joint: NDArray[np.int64],
    mask_table: NDArray[np.uint8],
    truth_table: NDArray[np.uint8],
    classes: tuple[str, ...],
) -> Confusion:
    """Bins as classes: rows and columns of the same class are summed up."""
    rows = np.zeros((NO_ANSWER + 1, BINS), np.int64)
    np.add.at(rows, truth_table, joint)
    table = np.zeros((NO_ANSWER + 1, NO_ANSWER + 1), np.int64)
    np.add.at(table.T, mask_table, rows.T)
    count = len(classes)
    confusion = Confusion(count)
    confusion.matrix = table[:count, :count]
    confusion.unanswered = table[:count, NO_ANSWER]
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


def _side(seen: list[Seen], side: int, plane: int = 0) -> Side:
    """All masks (0), or all truths (1), together."""
    return Side(
        str((seen[0].pair.mask, seen[0].pair.truth)[side]),
        seen[0].named[side],
        all(s.ours[side] for s in seen),
        any(s.wide[side] for s in seen),
        sum((s.joint(plane).sum(side) for s in seen), start=np.zeros(BINS, np.int64)),
    )


def _require_alike(seen: list[Seen]) -> None:
    first = seen[0]
    for other in seen[1:]:
        if other.kind != first.kind or len(other.joints) != len(first.joints):
            raise InputError(
                f"{first.pair.mask} is a mask of {first.kind}, and {other.pair.mask} one of "
                f"{other.kind}; evaluate them apart"
            )
        if other.classes != first.classes:
            of = [", ".join(s.classes or ("no names",)) for s in (first, other)]
            raise InputError(
                f"{first.pair.mask} has the classes {of[0]}, and {other.pair.mask} {of[1]}; "
                "evaluate them apart"
            )


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))
