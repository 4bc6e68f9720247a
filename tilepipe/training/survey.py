"""All images and masks are surveyed before the first step: what they hold, and their faults."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.evaluation.label_maps import NO_LABEL, LabelMap
from tilepipe.grid import Window, WindowGrid
from tilepipe.images import read_with_valid
from tilepipe.images.bands import places_by_name, show_bands
from tilepipe.images.base import PixelSize, alike
from tilepipe.images.validity import Validity
from tilepipe.training.labels import IGNORED, LabelScheme, negative_label, read_values
from tilepipe.training.losses import GAP_REACH
from tilepipe.training.options import TrainOptions
from tilepipe.training.tiles import OpenPair, PairCache

WINDOW = 1024
"""Side of the windows that are read."""

LARGEST = 256 * 2**20
"""Most pixels that are read, spread evenly over all images."""

MOST_GUESSED = 16
"""More labels than this are not taken for classes unless the classes are named."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the training images and masks have in common, and what they hold."""

    bands: int
    dtype: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_size: PixelSize | None
    scheme: LabelScheme
    outputs: int
    """Number of classes, or of planes of values."""
    counts: tuple[int, ...]
    """Number of pixels of each class; empty for values."""
    pixels: tuple[int, ...]
    """Number of pixels used of each image."""
    band_names: tuple[str, ...] = ()
    """Names of the bands; empty if an image has no names, or other ones."""
    value_mean: tuple[float, ...] = ()
    """Mean of each plane of values."""
    value_std: tuple[float, ...] = ()
    """Standard deviation of each plane; values are learnt in deviations from their mean."""

    def class_weights(self, how: str) -> tuple[float, ...]:
        """The weight of each class, w_c, which is 1 on average over all pixels.

        Parameters
        ----------
        how
            ``balanced``, ``none``, or a number for each class: ``1,2``.

        Raises
        ------
        InputError
            It is none of these.
        """
        count = len(self.counts)
        if how == "none" or not count:
            return (1.0,) * max(1, count)
        if how == "balanced":
            total = sum(self.counts)
            present = sum(c > 0 for c in self.counts)
            weights = [total / (present * c) if c else 0.0 for c in self.counts]
            # A class that was not found may still occur if only part of a large image was read.
            return tuple(weight or max(weights) for weight in weights)
        try:
            given = tuple(float(part) for part in how.split(","))
        except ValueError:
            given = ()
        if (
            len(given) != count
            or not all(0 <= weight < float("inf") for weight in given)
            or not any(given)
        ):
            raise InputError(
                f"class_weights {how}: must be balanced, none, or {count} numbers such as "
                f"{','.join(['1'] * count)}"
            )
        return given


def survey(cache: PairCache, options: TrainOptions, least_classes: int = 0) -> Survey:
    """Look at every pair before the first step.

    Parameters
    ----------
    cache
        The training pairs.
    options
        Options of the training.
    least_classes
        The number of classes that there are at least: those of the model to start from.

    Raises
    ------
    InputError
        A file is at fault: images of different bands or dtypes, masks of another size, NaN, labels
        that are not classes, only one label.
    """
    first = cache[0]
    regression = options.labels == "values" or (
        options.labels == "auto" and first.labels.dtype.kind == "f"
    )
    found = _Statistics(first, regression)
    for opened in cache:
        _require_alike(first, opened, regression=regression)
        found.add(opened, LARGEST / len(cache.pairs))
    if not found.bands.count.any():
        raise InputError("the training images hold nothing but nodata")
    scheme = LabelScheme("values", first.labels.planes)
    if not regression:
        scheme = _scheme(found.labels, options, str(first.labels.path), least_classes)
    return Survey(
        bands=first.image.bands,
        dtype=first.image.dtype.name,
        scale=found.scale,
        mean=tuple(round(float(m), 6) for m in found.bands.mean),
        std=tuple(
            max(1e-6, round(math.sqrt(max(float(v), 1e-12)), 6)) for v in found.bands.variance
        ),
        pixel_size=_pixel_size(cache, found.sizes, options),
        scheme=scheme,
        outputs=scheme.classes,
        counts=() if regression else _counts(found.labels, scheme, cache, options),
        pixels=tuple(found.areas),
        band_names=_band_names(found.names),
        value_mean=tuple(float(m) for m in found.values.mean),
        # A plane with one value only has no deviation; it is learnt in its own unit.
        value_std=tuple(math.sqrt(v) if v > 1e-12 else 1.0 for v in found.values.variance),
    )


class _Moments:
    """Mean and variance of several series of numbers, from sums that add up."""

    def __init__(self, series: int) -> None:
        self.count = np.zeros(series)
        self._sum = np.zeros(series)
        self._squares = np.zeros(series)

    def add(self, count: Any, total: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        """Add so many numbers of each series, given their sums and the sums of their squares."""
        self.count += count
        self._sum += total
        self._squares += squares

    @property
    def mean(self) -> NDArray[np.float64]:
        return np.asarray(self._sum / np.maximum(self.count, 1))

    @property
    def variance(self) -> NDArray[np.float64]:
        return np.asarray(self._squares / np.maximum(self.count, 1) - self.mean**2)


class _Statistics:
    """What all pairs together hold, added up pair by pair."""

    def __init__(self, first: OpenPair, regression: bool) -> None:
        self._regression = regression
        self.scale = 1 / 255 if first.image.dtype == np.uint8 else 1.0
        self.bands = _Moments(first.image.bands)
        self.values = _Moments(first.labels.planes if regression else 0)
        self.labels = Counter[int]()
        self.sizes: list[PixelSize | None] = []
        self.areas: list[int] = []
        self.names: set[tuple[str, ...]] = set()

    def add(self, opened: OpenPair, budget: float) -> None:
        """Add a pair, by reading windows of about ``budget`` pixels in all."""
        self.sizes.append(opened.image.pixel_size)
        self.names.add(opened.image.band_names)
        self.areas.append(opened.region.area)
        any_value = not self._regression
        for window in _windows(opened.region, budget):
            pixels, valid = read_with_valid(opened.image, window)
            good = _valid_pixels(opened, window, pixels, valid) * self.scale
            self.bands.add(len(good), good.sum(0), (good**2).sum(0))
            if self._regression:
                any_value |= self._add_values(read_values(opened.labels, window))
            else:
                self.labels.update(_label_counts(opened.labels, window))
        if not any_value:
            raise InputError(f"{opened.labels.path}: holds no values at all")

    def _add_values(self, values: NDArray[np.float32]) -> bool:
        """Add values, (planes, height, width); return whether there are any."""
        known = np.isfinite(values)
        given = np.where(known, values, 0).astype(np.float64)
        self.values.add(known.sum((1, 2)), given.sum((1, 2)), (given**2).sum((1, 2)))
        return bool(known.any())


def _windows(region: Window, budget: float) -> Iterator[Window]:
    """Windows of a region: all of them, or a random part with about ``budget`` pixels."""
    grid = list(WindowGrid(region, (WINDOW, WINDOW)))
    # Drawn at random: every n-th window might lie in the blank margin of a slide.
    count = math.ceil(len(grid) * min(1.0, max(budget, WINDOW**2) / region.area))
    chosen = np.random.default_rng(0).choice(len(grid), count, replace=False)
    yield from (grid[i] for i in sorted(chosen))


def _valid_pixels(
    opened: OpenPair, window: Window, pixels: NDArray[np.generic], valid: Validity | None
) -> NDArray[np.float64]:
    """The pixels that have data in all bands, (n, bands)."""
    if valid is None:
        return pixels.reshape(-1, pixels.shape[2]).astype(np.float64)
    if opened.image.nodata is None and pixels.dtype.kind == "f":
        bad = ~np.isfinite(pixels).all(2)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"{opened.image.path}: is NaN or infinite at row {window.y + row}, column "
                f"{window.x + column}, but declares no nodata value; declare one in the file, or "
                "repair the image"
            )
    return np.asarray(pixels[valid.all(axis=2)], np.float64)


def _label_counts(labels: LabelMap, window: Window) -> dict[int, int]:
    values = labels.read(window)[0]
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and (values == np.round(values)).all()):
            raise InputError(
                f"{labels.path}: holds values that are not labels; use --labels values to regress "
                "them"
            )
        values = values.astype(np.int64)
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _scheme(
    found: Counter[int], options: TrainOptions, example: str, least_classes: int
) -> LabelScheme:
    """The meaning of the labels that were found; ``example`` is a mask that holds them."""
    labels = sorted(v for v in found if v not in (*options.ignore, NO_LABEL))
    if labels and labels[0] < 0:
        raise negative_label(f"{example}, or another mask", labels[0])
    kind = options.labels
    if kind == "auto":
        kind = "binary" if labels and set(labels) <= {0, 255} and 255 in labels else "classes"
    named = len(options.classes)
    if kind == "classes":
        labels = [v for v in labels if v != IGNORED]
        largest = max(labels, default=0)
        if not named and largest >= max(MOST_GUESSED, least_classes):
            raise InputError(
                f"{example} and the other masks hold {len(labels)} labels up to {largest}; use "
                "--instances if each is an object, or name the classes with --classes"
            )
        count = named or max(least_classes, largest + 1)
        if labels and largest >= count:
            raise InputError(
                f"the masks hold the label {largest}, but there are {count} classes, 0 to "
                f"{count - 1}; name more with --classes, or use --ignore {largest}"
            )
    else:
        count = 3 if options.border and kind == "instances" else 2
        if named and named != count:
            raise InputError(
                f"{named} classes are named, but {kind} masks have {count}: "
                + ", ".join(("background", "object", "border")[:count])
            )
    if options.border and kind != "instances":
        raise InputError("border: requires masks that number their objects (--instances)")
    if count > IGNORED:
        raise InputError(f"{count} classes are more than the {IGNORED} that a mask can hold")
    reach = GAP_REACH * options.border_sigma if options.border_weight else 0.0
    return LabelScheme(kind, count, options.border, options.ignore, reach)


def _counts(
    found: Counter[int], scheme: LabelScheme, cache: PairCache, options: TrainOptions
) -> tuple[int, ...]:
    """The number of pixels of each class."""
    known = {v: n for v, n in found.items() if v not in (*options.ignore, NO_LABEL)}
    if scheme.kind == "classes":
        counts = [known.get(label, 0) for label in range(scheme.classes)]
    else:
        counts = [known.get(0, 0), sum(n for v, n in known.items() if v > 0)]
    if sum(c > 0 for c in counts) < 2:
        only = next((i for i, c in enumerate(counts) if c), None)
        what = "no labels to learn" if only is None else f"nothing but label {only}"
        raise InputError(
            f"{cache.pairs[0].mask} and all other training masks hold {what}, so there is nothing "
            "to tell apart; check that they are the right files"
        )
    if scheme.border:
        counts = _border_counts(cache, scheme)
    return tuple(counts)


def _border_counts(cache: PairCache, scheme: LabelScheme) -> list[int]:
    """Pixels of background, objects and borders; the borders follow from distances of objects."""
    counts = np.zeros(IGNORED + 1, np.int64)
    for opened in cache:
        for window in _windows(opened.region, LARGEST / 4 / len(cache.pairs)):
            labels = scheme.target(opened.labels, window).labels
            counts += np.bincount(labels.ravel(), minlength=counts.size)
    return [int(n) for n in counts[: scheme.classes]]


def check_validation(cache: PairCache, validation: PairCache, found: Survey) -> None:
    """Check the validation pairs before the first step: the first validation may be hours away.

    Raises
    ------
    InputError
        A file is at fault, as for training pairs.
    """
    for opened in validation:
        _require_alike(cache[0], opened, regression=found.scheme.kind == "values")
        for window in _windows(opened.region, LARGEST / 4 / len(validation.pairs)):
            if found.scheme.kind != "values":
                found.scheme.labels(opened.labels.read(window)[0], opened.labels.path)


def _band_names(names: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The names of the bands, if all images have the same and they are distinct."""
    common = names.pop() if len(names) == 1 else ()
    return common if places_by_name(common, common) else ()


def _require_alike(first: OpenPair, other: OpenPair, *, regression: bool) -> None:
    for ours, theirs, what in (
        (first.image.bands, other.image.bands, "bands"),
        (first.image.dtype, other.image.dtype, "pixels"),
    ):
        if ours != theirs:
            raise InputError(
                f"{other.image.path}: has {theirs} {what}, but {first.image.path} has {ours}; all "
                "images must be alike"
            )
    names, other_names = first.image.band_names, other.image.band_names
    if places_by_name(other_names, names) not in (None, tuple(range(len(names)))):
        raise InputError(
            f"{other.image.path}: has its bands in another order ({show_bands(other_names)}) than "
            f"{first.image.path} ({show_bands(names)}); all images must be alike"
        )
    if regression and other.labels.planes != first.labels.planes:
        raise InputError(
            f"{other.labels.path}: has {other.labels.planes} planes of values, but "
            f"{first.labels.path} has {first.labels.planes}; all masks must be alike"
        )


def _pixel_size(
    cache: PairCache, sizes: Sequence[PixelSize | None], options: TrainOptions
) -> PixelSize | None:
    if options.pixel_size is not None:
        metric = any(size is not None and size.unit == "meter" for size in sizes)
        unit = "meter" if metric else "micrometer"
        return PixelSize(options.pixel_size, options.pixel_size, unit)
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    first = known[0]
    for pair, size in zip(cache.pairs, known, strict=True):
        if size.unit != first.unit or not (alike(size.y, first.y) and alike(size.x, first.x)):
            raise InputError(
                f"{pair.image}: its pixels are {size.x:g} {size.unit}, but those of "
                f"{cache.pairs[0].image} are {first.x:g} {first.unit}; resample them to one "
                "pixel size, or use --pixel-size if the files are wrong"
            )
    # Models have square pixels; those of some scanners differ in the fourth digit.
    side = math.sqrt(first.y * first.x)
    return PixelSize(side, side, first.unit) if alike(first.y, first.x) else None
