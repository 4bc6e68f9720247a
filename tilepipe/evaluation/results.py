"""The result of an evaluation, as counts, scores, JSON and CSV."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from tilepipe.errors import InputError
from tilepipe.evaluation.pairs import MaskPair
from tilepipe.evaluation.scores import METRICS, Counts, ScoreTree, over_images, plain
from tilepipe.products.base import Kind
from tilepipe.storage import written_here
from tilepipe.text import table_row


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The counts of one pair."""

    pair: MaskPair
    counts: Counts


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of `evaluate`: the counts and scores of each pair, and of all together."""

    kind: Kind
    """The kind of the masks: labels, planes, or values."""
    classes: tuple[str, ...]
    images: tuple[ImageResult, ...]
    object_class: str | None
    """The class whose objects were compared; None if none were."""
    seed: int
    """Seed of the bootstrap."""

    @property
    def pooled(self) -> Counts:
        """The counts of all images added up."""
        return reduce(add, (image.counts for image in self.images))

    def over_images(self) -> ScoreTree:
        """The mean of each score over images, with its 95 % interval (`scores.over_images`)."""
        return over_images([image.counts.scores() for image in self.images], self.seed)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON types; a score that is not defined is None."""
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
        """The result as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def write_csv(self, path: str | Path) -> None:
        """Write the scores as a CSV table, a row for each class of each image and of all together.

        Raises
        ------
        InputError
            The file cannot be written.
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
