"""How good the objects of the shipped nuclei models are, and which rule makes the best of a mask.

    python benchmarks/objects_quality.py ../shared/data

Each image is segmented once, whole. Its mask is then cut into objects by one rule after another
(`rules`), as `tilepipe objects` does it, and these are matched with those that people drew (IoU
above 0.5). Needs scikit-image, for the watershed that is the control.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, command_line, parse, record
from numpy.typing import NDArray
from scipy import ndimage
from skimage.io import imread
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

import tilepipe
from tilepipe.engine.work.device import Device
from tilepipe.evaluation.matching import ObjectCounts
from tilepipe.grid import Window
from tilepipe.images.reading import Reading
from tilepipe.models import load_model
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects import basins
from tilepipe.objects.whole import filled, in_raster_order, number_parts

NUCLEUS = 1
CORNERS = np.ones((3, 3), bool)

Objects = NDArray[np.int64]
"""The number of the object at each pixel, 0 elsewhere; shape (H, W)."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A rule for objects, or the control in its place."""

    rule: ObjectRule
    control: bool = False
    """Whether a watershed of the whole image takes the place of the split."""

    def __str__(self) -> str:
        """What it does, in the order in which it is done."""
        rule, words = self.rule, []
        if rule.fill_holes:
            words.append("fill holes" + (f" up to {rule.max_hole} px" if rule.max_hole else ""))
        if rule.method == "split":
            words.append(f"{'watershed' if self.control else 'split'}, h {rule.depth:g}")
        else:
            words.append("components")
        if rule.min_area:
            words.append(f"drop below {rule.min_area} px")
        return "; ".join(words)

    def objects(self, labels: NDArray[Any]) -> Objects:
        """The objects of a label map, (H, W)."""
        parts = (labels == NUCLEUS).astype(np.uint8)
        return flooded(parts, self.rule) if self.control else number_parts(parts, self.rule)


def rules(smallest: int, hole: int) -> list[Tried]:
    """What is tried with a model: its sizes in pixels, then more and less of each."""
    best = ObjectRule("split", min_area=smallest, fill_holes=True, max_hole=hole)
    tried = [
        ObjectRule(),
        replace(best, method="components"),
        best,
        *(replace(best, depth=h) for h in (0.5, 0.75, 1.5, 2.0)),
        *(replace(best, min_area=round(smallest * by)) for by in (0.5, 2.0)),
        replace(best, fill_holes=False),
        replace(best, max_hole=0),
    ]
    return [*map(Tried, tried), Tried(best, control=True)]


def flooded(parts: NDArray[np.uint8], rule: ObjectRule) -> Objects:
    """The control: a watershed of the whole image from the h-maxima of the same distance."""
    inside = filled(parts, rule.max_hole) > 0
    height = np.where(inside, basins.heights(inside) / basins.UNIT, 0)
    seeds, _ = ndimage.label(h_maxima(height, rule.depth).astype(bool) & inside, CORNERS)
    found = watershed(-height, seeds, connectivity=2, mask=inside)
    large = np.bincount(found.ravel()) >= rule.min_area
    return in_raster_order(np.where(large[found], found, 0))


@dataclass(frozen=True, slots=True)
class Case:
    """A model and images with true objects."""

    model: str
    name: str
    images: tuple[Path, ...]
    truths: Path
    """Their folder; the files have the images' names."""

    @property
    def rules(self) -> list[Tried]:
        """What is tried, around the sizes that are best for the model."""
        return rules(60, 10) if self.model == "nuclei-he" else rules(20, 30)


def cases(data: Path) -> Iterator[Case]:
    """What is measured."""
    nuclei = data / "nuclei"
    tnbc, bowl, test = nuclei / "tnbc", nuclei / "dsb2018", nuclei / "dsb2018_test"
    with (HERE.parent / "workflows" / "dsb2018_fields.csv").open() as file:
        unseen = [
            bowl / "images" / f"{row['id']}.png"
            for row in csv.DictReader(file)
            if row["kind"] == "fluo" and row["split"] == "test"
        ]
    for model, name, images, truths in (
        ("nuclei-he", "TNBC, trained on", (tnbc / "images").iterdir(), tnbc / "masks"),
        ("nuclei-he", "Data Science Bowl, test, stained, unseen",
         (test / "stained/images").iterdir(), test / "stained/masks"),
        ("nuclei-fluo", "Data Science Bowl, unseen fields", unseen, bowl / "labels"),
        ("nuclei-fluo", "Data Science Bowl, test, fluorescence, unseen",
         (test / "fluorescence/images").iterdir(), test / "fluorescence/masks"),
    ):  # fmt: skip
        yield Case(model, name, tuple(sorted(images)), truths)


def masks(model_name: str, images: Iterable[Path]) -> Iterator[NDArray[Any]]:
    """The labels of each image, computed in one window, at the image's own pixels; (H, W)."""
    model = load_model(model_name)
    bands = Reading(bands=(1,)) if model.input.bands == 1 else Reading(bands=(1, 2, 3))
    device = Device(model, "cpu", "fp32", 2, "torch")
    for path in images:
        with tilepipe.open_image(str(path), bands) as image:
            height, width, _ = image.shape
            keep = (-(-height // 16) * 16, -(-width // 16) * 16)
            pixels = image.read(model.geometry.window_for(Window(0, 0, *keep)))
        answer = device.answer(pixels, None, keep).result()
        yield np.squeeze(answer.mask)[:height, :width]
    device.close()


def true_objects(path: Path) -> NDArray[np.int32]:
    """What people drew: numbered, or the connected parts (by edges) of a binary mask."""
    drawn = imread(path)
    if drawn.ndim == 3:
        drawn = drawn[..., 0]
    return ndimage.label(drawn > 0)[0] if np.unique(drawn).size <= 2 else drawn.astype(np.int32)


def measure(case: Case, rules: Iterable[Tried]) -> dict[Tried, list[ObjectCounts]]:
    """How the objects of each rule match, image by image."""
    found: dict[Tried, list[ObjectCounts]] = {rule: [] for rule in rules}
    for path, labels in zip(case.images, masks(case.model, case.images), strict=True):
        truth = true_objects(case.truths / path.name)
        for rule, counts in found.items():
            counts.append(ObjectCounts.of(rule.objects(labels), truth))
    return found


def main() -> None:
    """Measure every case by every rule."""
    parser = command_line(__doc__)
    parser.add_argument("data", type=Path, help="folder of the real images (docs/data.md)")
    options = parse(parser)
    for case in cases(options.data):
        tried = case.rules
        if options.quick:
            case, tried = replace(case, images=case.images[:1]), tried[:3]
        for rule, counts in measure(case, tried).items():
            total = sum(counts, ObjectCounts())
            record(
                "objects_quality", f"{case.model} on {case.name}: {rule}",
                [
                    ("object F1", total.f1, "", ""),
                    ("AJI", total.aji, "", ""),
                    ("object F1, mean over images", mean(c.f1 for c in counts), "", ""),
                    ("AJI, mean over images", mean(c.aji for c in counts), "", ""),
                ],
            )  # fmt: skip


def mean(values: Iterable[float]) -> float:
    """Over those that are numbers: an image without any object has none."""
    return statistics.fmean(value for value in values if not math.isnan(value))


if __name__ == "__main__":
    main()
