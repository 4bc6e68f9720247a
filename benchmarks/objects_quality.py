"""How good the objects of the shipped nuclei models are, and which rule makes the best of a mask.

    python benchmarks/objects_quality.py ../shared/data

Each image is segmented once, whole. Its mask is then cut into objects by one rule after another
(`rules`), which are matched with those that people drew (IoU above 0.5). Needs scikit-image, for
the watershed that is the control.
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
from scipy import ndimage, sparse
from skimage.io import imread
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

import tilepipe
from tilepipe.engine.work.device import Device
from tilepipe.evaluation.matching import ObjectCounts
from tilepipe.grid import Window
from tilepipe.images.reading import Reading
from tilepipe.models import load_model

NUCLEUS = 1
CORNERS = np.ones((3, 3), bool)
CAP, ROUNDING = 24.0, 64
"""Of the distance to the background, in pixels; of the smoothed distance, parts of a pixel."""

Objects = NDArray[np.int32]
"""The number of the object at each pixel, 0 elsewhere; shape (H, W)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a mask becomes objects."""

    steps: tuple[str, ...] = ()
    """What is done, in this order: ``drop``, ``fill``, ``split`` or ``watershed``."""
    smallest: int = 60
    """Parts with fewer pixels are dropped."""
    largest_hole: float = math.inf
    """Larger holes are kept, in pixels."""
    h: float = 1.0
    """Peaks less than this above their border, in pixels of distance, are one object."""

    def __str__(self) -> str:
        """Its steps with what each needs."""
        words = {
            "drop": f"drop below {self.smallest} px",
            "fill": "fill holes"
            + ("" if math.isinf(self.largest_hole) else f" up to {self.largest_hole:g} px"),
            "split": f"split, h {self.h:g}",
            "watershed": f"watershed, h {self.h:g}",
        }
        return "; ".join(words[step] for step in self.steps) or "components"


BEST = ("fill", "split", "drop")
"""The order from which the others are tried."""
CLEAN = ("drop", "fill")


def rules(smallest: int, hole: float) -> list[Rule]:
    """What is tried with a model: its sizes in pixels, then more and less of each."""
    best = Rule(BEST, smallest, hole)
    return [
        Rule(),
        replace(best, steps=CLEAN),
        best,
        *(replace(best, h=h) for h in (0.5, 0.75, 1.5, 2.0)),
        replace(best, steps=("fill", "watershed", "drop")),
        *(replace(best, smallest=round(smallest * by)) for by in (0.5, 2.0)),
        *(replace(best, largest_hole=size) for size in (0, math.inf)),
        *(replace(best, steps=steps) for steps in ((*CLEAN, "split"), ("split", *CLEAN))),
    ]


def objects_of(labels: NDArray[Any], rule: Rule) -> Objects:
    """The objects of a label map, (H, W), by a rule."""
    objects, _ = ndimage.label(labels == NUCLEUS, CORNERS)
    for step in rule.steps:
        match step:
            case "drop":
                objects = dropped(objects, rule.smallest)
            case "fill":
                objects = filled(objects, rule.largest_hole)
            case "split":
                objects = split(objects > 0, rule.h)
            case "watershed":
                objects = flooded(objects > 0, rule.h)
    return objects


def dropped(objects: Objects, smallest: int) -> Objects:
    """Without objects of fewer pixels."""
    kept = np.bincount(objects.ravel()) >= smallest
    return np.where(kept[objects], objects, 0)


def filled(objects: Objects, largest: float) -> Objects:
    """With the holes that one object encloses, except larger ones."""
    holes, count = ndimage.label(objects == 0)
    numbers = np.arange(count + 1)
    # Beyond the edge there may be more: no hole.
    framed = np.pad(objects, 1, constant_values=-1)
    around = sliding_extremes(framed)
    low, high = (
        extreme(values, holes, numbers)
        for extreme, values in zip((ndimage.minimum, ndimage.maximum), around, strict=True)
    )
    one = (low == high) & (low > 0) & (np.bincount(holes.ravel(), minlength=count + 1) <= largest)
    one[0] = False
    return np.where(one[holes], np.asarray(low)[holes], objects).astype(np.int32)


def sliding_extremes(framed: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the largest object among a pixel's neighbours by edges, (H, W) each.

    Background does not count; -1 stands for what lies beyond the edge, and then is the least.
    """
    beside = np.stack((framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]))
    most = np.iinfo(np.int32).max
    return np.where(beside == 0, most, beside).min(0), np.where(beside == 0, -1, beside).max(0)


def smooth_distance(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The distance to the background, capped, smoothed and rounded; in pixels."""
    distance = np.minimum(ndimage.distance_transform_edt(inside), CAP)
    smooth = ndimage.gaussian_filter(distance, 1.0, truncate=4.0)
    rounded: NDArray[np.float64] = np.rint(smooth * ROUNDING) / ROUNDING
    return rounded


def split(inside: NDArray[np.bool_], h: float) -> Objects:
    """Basins of the distance; two are joined if their border is less than ``h`` below a peak."""
    if not inside.any():
        return np.zeros(inside.shape, np.int32)
    height = np.where(inside, smooth_distance(inside), -np.inf)
    basins = basins_of(height, inside)
    peaks = ndimage.maximum(height, basins, np.arange(basins.max() + 1))
    one, other, saddle = borders(height, basins)
    joined = saddle > np.minimum(peaks[one], peaks[other]) - h
    return renumbered(basins, one[joined], other[joined])


def basins_of(height: NDArray[np.float64], inside: NDArray[np.bool_]) -> Objects:
    """The pixels from which the steepest way ends at one place, numbered; (H, W)."""
    rows, columns = height.shape
    framed = np.pad(height, 1, constant_values=-np.inf)
    highest = height.copy()
    target = np.arange(height.size).reshape(height.shape)
    own = target.copy()
    for dy, dx in ((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x):
        beside = framed[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns]
        # Of equal ones the first in raster order stays.
        higher = beside > highest
        highest[higher] = beside[higher]
        target[higher] = own[higher] + dy * columns + dx
    way = target.ravel()
    while (way[way] != way).any():
        way = way[way]
    ends = np.unique(way[inside.ravel()])
    found = np.where(inside, np.searchsorted(ends, way).reshape(height.shape) + 1, 0)
    return found.astype(np.int32)


def borders(height: NDArray[np.float64], basins: Objects) -> tuple[NDArray[Any], ...]:
    """Pairs of basins that touch, by edges or corners, and the highest point of their border."""
    pairs, values = [], []
    for one, other in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
    ):
        a, b = basins[one], basins[other]
        met = (a != b) & (a > 0) & (b > 0)
        pairs.append(np.sort(np.stack((a[met], b[met])), axis=0))
        values.append(np.minimum(height[one], height[other])[met])
    ends, place = np.unique(np.concatenate(pairs, 1), axis=1, return_inverse=True)
    saddle = np.full(ends.shape[1], -np.inf)
    np.maximum.at(saddle, place.ravel(), np.concatenate(values))
    return ends[0], ends[1], saddle


def renumbered(basins: Objects, one: NDArray[Any], other: NDArray[Any]) -> Objects:
    """The basins with joined ones as one."""
    size = int(basins.max()) + 1
    graph = sparse.coo_matrix((np.ones(one.size), (one, other)), (size, size))
    _, names = sparse.csgraph.connected_components(graph, directed=False)
    # Number 0, the background, comes first and is joined with nothing.
    joined: Objects = names.astype(np.int32)[basins]
    return joined


def flooded(inside: NDArray[np.bool_], h: float) -> Objects:
    """The control: a watershed of the whole image from the h-maxima of the same distance."""
    height = smooth_distance(inside)
    seeds, _ = ndimage.label(h_maxima(height, h).astype(bool) & inside, CORNERS)
    found: Objects = watershed(-height, seeds, connectivity=2, mask=inside).astype(np.int32)
    return found


@dataclass(frozen=True, slots=True)
class Case:
    """A model and images with true objects."""

    model: str
    name: str
    images: tuple[Path, ...]
    truths: Path
    """Their folder; the files have the images' names."""

    @property
    def rules(self) -> list[Rule]:
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


def true_objects(path: Path) -> Objects:
    """What people drew: numbered, or the connected parts (by edges) of a binary mask."""
    drawn = imread(path)
    if drawn.ndim == 3:
        drawn = drawn[..., 0]
    return ndimage.label(drawn > 0)[0] if np.unique(drawn).size <= 2 else drawn.astype(np.int32)


def measure(case: Case, rules: Iterable[Rule]) -> dict[Rule, list[ObjectCounts]]:
    """How the objects of each rule match, image by image."""
    found: dict[Rule, list[ObjectCounts]] = {rule: [] for rule in rules}
    for path, labels in zip(case.images, masks(case.model, case.images), strict=True):
        truth = true_objects(case.truths / path.name)
        for rule, counts in found.items():
            counts.append(ObjectCounts.of(objects_of(labels, rule), truth))
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
