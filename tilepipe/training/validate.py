"""Validation: a network is scored on whole images, tiled and mirrored as in `run`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.work.device import Device, Prediction
from tilepipe.evaluation.matching import ObjectCounts
from tilepipe.evaluation.metrics import Confusion, Errors, mean
from tilepipe.grid import CHUNK, Tiling, Window, round_up
from tilepipe.images import Image, read_with_valid
from tilepipe.models.object_rule import ObjectRule
from tilepipe.models.specs import Model
from tilepipe.objects.rules import BORDER
from tilepipe.objects.whole import number_parts
from tilepipe.products.probabilities import Probabilities
from tilepipe.products.product import Product, main_product
from tilepipe.training.labels import IGNORED, LabelScheme
from tilepipe.training.tiles import PairCache

LARGEST_KEEP = 1024
"""Largest side of the output of a window: small enough for any machine that trains."""

LARGEST = 256 * 2**20
"""Most pixels of a validation; of more, the same random part is predicted each time."""


@dataclass(frozen=True, slots=True)
class ValidationScores:
    """The scores of a validation."""

    loss: float
    """Cross-entropy per pixel (squared error for values), unweighted."""
    values: dict[str, float]
    """Scores by name: dice and iou (of all pixels together, means over the classes but background),
    image_dice (mean over images), accuracy, the Dice of each class; or rmse and mae."""

    def __getitem__(self, name: str) -> float:
        return self.loss if name == "loss" else self.values[name]


def predict(
    device: Device, image: Image, region: Window, *extras: Product, share: float = 1.0
) -> Iterator[tuple[Window, Prediction]]:
    """Predict a region of an image, and yield windows within the region with their predictions.

    The first product of each is the model's mask; ``extras`` follow it.

    With a ``share`` below 1, only about that share of the windows is predicted, always the same.
    """
    products = (main_product(device.output), *extras)
    height, width, _ = image.shape
    factor = device.geometry.stride_factor
    keep = tuple(round_up(min(side, LARGEST_KEEP), factor) for side in (height, width))
    block = tuple(round_up(side, CHUNK) for side in keep)
    tiling = Tiling(height, width, (block[0], block[1]), (keep[0], keep[1]), device.geometry)
    blocks = [n for n in tiling if tiling.block_window(n).intersect(region)]
    if share < 1:
        count = max(1, round(share * len(blocks)))
        drawn = np.random.default_rng(0).choice(len(blocks), count, replace=False)
        blocks = [blocks[i] for i in sorted(drawn)]
    for number in blocks:
        for patch in tiling.patches(number):
            kept = patch.keep.intersect(tiling.block_window(number))
            part = None if kept is None else kept.intersect(region)
            if part is None:
                continue
            pixels, valid = read_with_valid(image, patch.read)
            answer = device.answer(pixels, valid, patch.keep.shape, products).result()
            inside = (..., *part.slices(patch.keep))
            yield part, Prediction(tuple(array[inside] for array in answer.arrays))


def validate(
    model: Model,
    device: Device,
    validation: PairCache,
    scheme: LabelScheme,
    *,
    objects: bool = False,
) -> ValidationScores:
    """Scores over all pixels of all validation pairs.

    Parameters
    ----------
    objects
        Whether to compare objects too (F1 at an IoU of 0.5), for masks that number them.
    """
    share = min(1.0, LARGEST / sum(opened.region.area for opened in validation))
    if scheme.kind == "values":
        errors = Errors()
        for opened in validation:
            for window, answer in predict(device, opened.image, opened.region, share=share):
                errors.add(answer.mask, scheme.target(opened.labels, window).labels)
        return ValidationScores(errors.rmse**2, {"rmse": errors.rmse, "mae": errors.mae})
    tally = _ScoreTally(scheme)
    for opened in validation:
        tally.begin_image()
        answers = predict(
            device, opened.image, opened.region, Probabilities("float32"), share=share
        )
        for window, answer in answers:
            tally.add(answer, scheme.target(opened.labels, window).labels)
            if objects:
                tally.add_objects(answer, opened.labels.read(window)[0])
    return tally.scores(model, objects=objects)


class _ScoreTally:
    """Counts of labels, entropy and objects, added up window by window."""

    def __init__(self, scheme: LabelScheme) -> None:
        self._scheme = scheme
        self._images: list[Confusion] = []
        self._objects = ObjectCounts()
        self._entropy, self._count = 0.0, 0

    def begin_image(self) -> None:
        self._images.append(Confusion(self._scheme.classes))

    def add(self, answer: Prediction, truth: NDArray[Any]) -> None:
        self._images[-1].add(answer.mask, truth)
        known = (truth != IGNORED) & (answer.mask != IGNORED)
        index = np.where(known, truth, 0)[None].astype(np.intp)
        of_truth = np.take_along_axis(answer.arrays[1], index, axis=0)[0][known]
        self._entropy -= float(np.log(np.maximum(of_truth, 1e-7)).sum(dtype=np.float64))
        self._count += int(known.sum())

    def add_objects(self, answer: Prediction, values: NDArray[Any]) -> None:
        # Objects are cut at the edges of windows, in prediction and truth alike.
        parts, rule = (answer.mask == 1).astype(np.uint8), ObjectRule()
        if self._scheme.border:
            parts[answer.mask == 2] = BORDER
            rule = ObjectRule("seeded", border="border")
        predicted = number_parts(parts, rule, corners=False)
        true = self._scheme.objects(values)
        self._objects = self._objects + ObjectCounts.of(predicted, true)

    def scores(self, model: Model, *, objects: bool) -> ValidationScores:
        pooled = reduce(add, self._images)
        first = 1 if self._scheme.classes > 1 else 0
        values = {
            "dice": mean(pooled.dice[first:]),
            "image_dice": mean(np.array([mean(image.dice[first:]) for image in self._images])),
            "iou": mean(pooled.iou[first:]),
            "accuracy": pooled.accuracy,
        }
        for spec, value in zip(model.output.classes, pooled.dice, strict=True):
            values[f"dice_{spec.name}"] = float(value)
        if objects:
            values["object-f1"] = self._objects.f1
        return ValidationScores(self._entropy / max(1, self._count), values)
