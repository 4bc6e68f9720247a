"""ScoreTree of one image, of all pixels together, and of images on average, with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.evaluation.matching import ObjectCounts
from tilepipe.evaluation.metrics import Confusion, Errors, mean

METRICS = ("dice", "iou", "precision", "recall")
"""Scores of each class."""

RESAMPLES = 2000
"""Bootstrap samples of the images."""

INTERVAL = (2.5, 97.5)
"""Percentiles between which 95 % of their means lie."""

_AT_A_TIME = 1 << 22
"""Numbers of resampling held at once."""

ScoreTree = dict[str, Any]
"""ScoreTree by name, some of them in groups, which are dicts too; NaN if a score is not defined."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Everything that was counted in one image, or in several together."""

    classes: tuple[str, ...]
    confusions: tuple[Confusion, ...] = ()
    """One for labels; one of two classes for each plane; none for values."""
    no_answer: int = 0
    """Pixels with a truth but no answer."""
    objects: ObjectCounts | None = None
    errors: tuple[Errors, ...] = ()
    """The errors of each plane of values."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.classes,
            tuple(a + b for a, b in zip(self.confusions, other.confusions, strict=True)),
            self.no_answer + other.no_answer,
            None if self.objects is None or other.objects is None else self.objects + other.objects,
            tuple(a + b for a, b in zip(self.errors, other.errors, strict=True)),
        )

    def of_classes(self, what: str) -> NDArray[Any]:
        """A score or count of each class: ``dice``, ``true``, ``predicted``, ``hits`` ..."""
        if len(self.confusions) == 1 and self.confusions[0].classes == len(self.classes):
            return np.asarray(getattr(self.confusions[0], what))
        return np.array([getattr(confusion, what)[1] for confusion in self.confusions])

    def scores(self) -> ScoreTree:
        """All scores by name."""
        if self.errors:
            return {
                "values": {
                    name: {"mae": e.mae, "rmse": e.rmse, "bias": e.bias}
                    for name, e in zip(self.classes, self.errors, strict=True)
                }
            }
        table = {metric: self.of_classes(metric) for metric in METRICS}
        scores: ScoreTree = {"accuracy": self._accuracy()}
        scores["mean"] = {metric: mean(table[metric]) for metric in METRICS}
        if len(self.confusions) == 1:
            scores["foreground"] = {metric: mean(table[metric][1:]) for metric in METRICS}
        scores["classes"] = {
            name: {metric: float(table[metric][number]) for metric in METRICS}
            for number, name in enumerate(self.classes)
        }
        if self.objects is not None:
            scores["objects"] = {
                metric: getattr(self.objects, metric)
                for metric in ("f1", "aji", "precision", "recall")
            }
        return scores

    def to_dict(self) -> dict[str, Any]:
        """The counts as plain numbers."""
        if self.errors:
            return {
                "values": {
                    name: {"compared": e.count, "left_out": e.left_out}
                    for name, e in zip(self.classes, self.errors, strict=True)
                }
            }
        pixels = sum(c.pixels for c in self.confusions)
        document: dict[str, Any] = {
            "compared": pixels,
            "no_answer": self.no_answer,
            "answered": self.answered,
            "ignored": sum(c.ignored for c in self.confusions),
            "confusion": [c.matrix.tolist() for c in self.confusions],
        }
        if len(self.confusions) == 1:
            document["confusion"] = document["confusion"][0]
        if self.objects is not None:
            document["objects"] = {
                name: getattr(self.objects, name)
                for name in ("true_positives", "false_positives", "false_negatives")
            }
        return document

    @property
    def answered(self) -> float:
        """The share of the pixels with a truth that have an answer; NaN if there are none."""
        filled = sum(c.pixels + c.no_answer for c in self.confusions)
        return 1 - self.no_answer / filled if filled else math.nan

    def _accuracy(self) -> float:
        right = sum(int(c.hits.sum()) for c in self.confusions)
        pixels = sum(c.pixels for c in self.confusions)
        return right / pixels if pixels else math.nan


def over_images(images: list[ScoreTree], seed: int) -> ScoreTree:
    """The mean of each score over images, with its 95 % bootstrap interval.

    As many images as there are are drawn with replacement, `RESAMPLES` times; the interval holds
    the middle 95 % of the means. An image in which a score is not defined is left out of its mean.

    Parameters
    ----------
    images : list of dict
        The scores of each image, all with the same names.
    seed : int
        Seed of the random numbers.

    Returns
    -------
    dict
        The same names; each score is ``{"mean", "low", "high", "images"}``. ``low`` and ``high``
        are NaN if there are fewer than two images.
    """
    names = [name for name, _ in _leaves(images[0])]
    table = np.array([[value for _, value in _leaves(scores)] for scores in images], np.float64)
    defined = ~np.isnan(table)
    values = np.where(defined, table, 0.0)
    low, high = _bootstrap(values, defined, seed)
    summary: ScoreTree = {}
    for column, name in enumerate(names):
        count = int(defined[:, column].sum())
        place = summary
        for part in name[:-1]:
            place = place.setdefault(part, {})
        place[name[-1]] = {
            "mean": float(values[:, column].sum() / count) if count else math.nan,
            "low": float(low[column]) if count > 1 else math.nan,
            "high": float(high[column]) if count > 1 else math.nan,
            "images": count,
        }
    return summary


def plain(document: Any) -> Any:
    """A document as JSON can hold it: NaN and infinity become None."""
    if isinstance(document, dict):
        return {key: plain(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [plain(value) for value in document]
    if isinstance(document, float) and not math.isfinite(document):
        return None
    return document


def _bootstrap(
    values: NDArray[np.float64], defined: NDArray[np.bool_], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = len(values)
    rng = np.random.default_rng(seed)
    means = []
    for drawn in _portions(RESAMPLES, max(1, _AT_A_TIME // count)):
        # The mean depends only on how often each image is drawn.
        times = rng.multinomial(count, np.full(count, 1 / count), size=drawn).astype(np.float64)
        weights = times @ defined
        sums = times @ values
        means.append(np.divide(sums, weights, out=np.full(sums.shape, np.nan), where=weights > 0))
    table = np.concatenate(means)
    ends = np.full((2, table.shape[1]), np.nan)
    for column in range(table.shape[1]):
        drawn_means = table[:, column][~np.isnan(table[:, column])]
        if drawn_means.size:
            ends[:, column] = np.percentile(drawn_means, INTERVAL)
    return ends[0], ends[1]


def _portions(total: int, most: int) -> Iterator[int]:
    for start in range(0, total, most):
        yield min(most, total - start)


def _leaves(
    scores: ScoreTree, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float]]:
    for name, value in scores.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value
