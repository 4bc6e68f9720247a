"""Judging a network as it will be used: whole images, tiled and mirrored as `run` does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.work.device import Device, Prediction
from tilepipe.evaluation.metrics import Confusion, Errors
from tilepipe.evaluation.objects import ObjectCounts, objects_from_labels
from tilepipe.grid import CHUNK, Tiling, Window, round_up
from tilepipe.images import Image, read_with_valid
from tilepipe.models.specs import Model
from tilepipe.training.labels import IGNORED, LabelScheme
from tilepipe.training.tiles import OpenPair, Shelf

LARGEST_KEEP = 1024
"""Outputs of a window, per axis: small enough for any machine that trains."""

LARGEST = 256 * 2**20
"""Pixels of a look; of more, windows are drawn, the same at every look."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a look at the validation images found."""

    loss: float
    """Cross-entropy per pixel (squared error for values), unweighted."""
    values: dict[str, float]
    """By name: dice and iou (means of the classes but the background, pixels pooled), image_dice
    (mean of the images' own), accuracy, the Dice of each class; or rmse and mae."""

    def __getitem__(self, name: str) -> float:
        return self.loss if name == "loss" else self.values[name]


class Part(Protocol):
    """An image, and the window of it that is looked at."""

    @property
    def image(self) -> Image: ...  # noqa: D102
    @property
    def region(self) -> Window: ...  # noqa: D102


def predict(
    device: Device, opened: Part, *, probabilities: bool = False, share: float = 1.0
) -> Iterator[tuple[Window, Prediction]]:
    """The answers of an opened pair, window by window; windows lie within its region.

    With a ``share`` below 1, those of about that share of the windows, drawn, the same each time.
    """
    height, width, _ = opened.image.shape
    factor = device.geometry.stride_factor
    keep = tuple(round_up(min(side, LARGEST_KEEP), factor) for side in (height, width))
    block = tuple(round_up(side, CHUNK) for side in keep)
    tiling = Tiling(height, width, (block[0], block[1]), (keep[0], keep[1]), device.geometry)
    blocks = [n for n in tiling if tiling.block_window(n).intersect(opened.region)]
    if share < 1:
        count = max(1, round(share * len(blocks)))
        drawn = np.random.default_rng(0).choice(len(blocks), count, replace=False)
        blocks = [blocks[i] for i in sorted(drawn)]
    for number in blocks:
        for tile in tiling.tiles(number):
            kept = tile.intersect(tiling.block_window(number))
            seen = None if kept is None else kept.intersect(opened.region)
            if seen is None:
                continue
            pixels, valid = read_with_valid(opened.image, tiling.window(tile))
            answer = device.answer(pixels, valid, tile.shape, probabilities).result()
            inside = seen.slices(tile)
            shares = answer.probabilities
            yield (
                seen,
                Prediction(
                    answer.mask[(..., *inside)], None if shares is None else shares[(..., *inside)]
                ),
            )


def validate(
    model: Model, device: Device, shelf: Shelf, scheme: LabelScheme, *, objects: bool = False
) -> Scores:
    """Scores over all validation pairs, their pixels pooled.

    Parameters
    ----------
    objects
        Also F1 of objects at an IoU of 0.5, where the masks number them.
    """
    if scheme.kind == "values":
        return _validate_values(device, shelf, scheme)
    share = _share(shelf)
    confusion = Confusion(scheme.classes)
    found = ObjectCounts()
    entropy, count = 0.0, 0
    by_image: list[float] = []
    first = 1 if scheme.classes > 1 else 0
    for opened in _all(shelf):
        own = Confusion(scheme.classes)
        for window, answer in predict(device, opened, probabilities=True, share=share):
            truth = scheme.target(opened.labels, window).labels
            own.add(answer.mask, truth)
            if objects:
                # Of an image of several windows, objects are cut at their edges, truth and all.
                predicted = objects_from_labels(
                    answer.mask, object_class=1, border_class=2 if scheme.border else None
                )
                true = scheme.objects(opened.labels.read(window)[0])
                found = found + ObjectCounts.of(predicted, true)
            assert answer.probabilities is not None
            known = (truth != IGNORED) & (answer.mask != IGNORED)
            index = np.where(known, truth, 0)[None].astype(np.intp)
            right = np.take_along_axis(answer.probabilities, index, axis=0)[0][known]
            entropy -= float(np.log(np.maximum(right, 1e-7)).sum(dtype=np.float64))
            count += int(known.sum())
        confusion.merge(own)
        by_image.append(_mean(own.dice[first:]))
    values = {
        "dice": _mean(confusion.dice[first:]),
        "image_dice": _mean(by_image),
        "iou": _mean(confusion.iou[first:]),
        "accuracy": float(confusion.accuracy),
    }
    for spec, value in zip(model.output.classes, confusion.dice, strict=True):
        values[f"dice_{spec.name}"] = float(value)
    if objects:
        values["object-f1"] = float(found.f1)
    return Scores(entropy / max(1, count), values)


def _validate_values(device: Device, shelf: Shelf, scheme: LabelScheme) -> Scores:
    errors = Errors()
    share = _share(shelf)
    for opened in _all(shelf):
        for window, answer in predict(device, opened, share=share):
            errors.add(answer.mask, scheme.target(opened.labels, window).labels)
    return Scores(float(errors.rmse) ** 2, {"rmse": float(errors.rmse), "mae": float(errors.mae)})


def _share(shelf: Shelf) -> float:
    """Of the windows that a look can afford."""
    return min(1.0, LARGEST / sum(opened.region.area for opened in _all(shelf)))


def _all(shelf: Shelf) -> Iterator[OpenPair]:
    for index in range(len(shelf.pairs)):
        yield shelf[index]


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else float("nan")
