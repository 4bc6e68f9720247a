"""One look at all images and masks before the first step: what they hold, and what is wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window
from tilepipe.images import read_with_valid
from tilepipe.images.bands import places_by_name, show_bands
from tilepipe.images.base import PixelSize, alike
from tilepipe.images.validity import Validity
from tilepipe.training.labels import IGNORED, LabelFile, LabelScheme
from tilepipe.training.options import TrainOptions
from tilepipe.training.tiles import OpenPair, Shelf

WINDOW = 1024
LARGEST = 256 * 2**20
"""Pixels looked at, evenly spread over all images."""

MOST_GUESSED = 16
"""More labels than this are not taken for classes without being told so."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What all training images and masks have in common, and what they hold."""

    bands: int
    dtype: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_size: PixelSize | None
    scheme: LabelScheme
    outputs: int
    """Classes, or planes of values."""
    counts: tuple[int, ...]
    """Pixels of each class; empty for values."""
    pixels: tuple[int, ...]
    """Used of each image."""
    band_names: tuple[str, ...] = ()
    """That all images give; empty where one of them names none, or others."""
    value_mean: tuple[float, ...] = ()
    """Of each plane of values; what is learnt is how far from it, in `value_std`."""
    value_std: tuple[float, ...] = ()

    def class_weights(self, how: str) -> tuple[float, ...]:
        """w_c of each class, 1 on average over the pixels.

        Raises
        ------
        InputError
            For text that is neither a rule nor a number for each class.
        """
        count = len(self.counts)
        if how == "none" or not count:
            return (1.0,) * max(1, count)
        if how == "balanced":
            total = sum(self.counts)
            present = sum(c > 0 for c in self.counts)
            met = [total / (present * c) if c else 0.0 for c in self.counts]
            # A class that was not met may yet be, where not all of a large image was looked at.
            return tuple(weight or max(met) for weight in met)
        try:
            weights = tuple(float(part) for part in how.split(","))
        except ValueError:
            weights = ()
        if (
            len(weights) != count
            or not all(0 <= weight < float("inf") for weight in weights)
            or not any(weights)
        ):
            raise InputError(
                f"class_weights {how}: must be balanced, none, or {count} numbers such as "
                f"{','.join(['1'] * count)}"
            )
        return weights


def survey(shelf: Shelf, options: TrainOptions, asked: int = 0) -> Survey:
    """Look at every pair.

    Parameters
    ----------
    shelf
        The training pairs.
    options
        Of the training.
    asked
        The number of classes there are at least, if any: of the model that is gone on from.

    Raises
    ------
    InputError
        Naming the file: images of unlike bands or dtypes, masks of another size, NaN, labels
        beyond the classes, no labels but one.
    """
    first = shelf[0]
    facts = (first.image.bands, first.image.dtype)
    scale = 1 / 255 if first.image.dtype == np.uint8 else 1.0
    total = np.zeros(facts[0])
    squares = np.zeros(facts[0])
    seen, values, sizes, areas = 0, Counter[int](), [], []
    names = set()
    regression = options.labels == "values" or (
        options.labels == "auto" and first.labels.dtype.kind == "f"
    )
    spread = _Spread(first.labels.planes)
    budget = LARGEST / len(shelf.pairs)
    for index in range(len(shelf.pairs)):
        opened = shelf[index]
        _same(first, opened, regression=regression)
        sizes.append(opened.image.pixel_size)
        names.add(opened.image.band_names)
        areas.append(opened.region.area)
        says_something = not regression
        for window in _windows(opened.region, budget):
            pixels, valid = read_with_valid(opened.image, window)
            good = _good(opened, window, pixels, valid) * scale
            total += good.sum(0)
            squares += (good**2).sum(0)
            seen += len(good)
            if not regression:
                values.update(_values(opened.labels, window))
            else:
                says_something |= spread.add(opened.labels.values(window))
        if not says_something:
            raise InputError(f"{opened.labels.path}: holds no value at all")
    if not seen:
        raise InputError("the training images hold nothing but nodata")
    mean = total / seen
    std = np.sqrt(np.maximum(squares / seen - mean**2, 1e-12))
    scheme = (
        LabelScheme("values", first.labels.planes)
        if regression
        else _scheme(values, options, first.labels.path, asked)
    )
    return Survey(
        bands=facts[0],
        dtype=facts[1].name,
        scale=scale,
        mean=tuple(round(float(m), 6) for m in mean),
        std=tuple(max(1e-6, round(float(s), 6)) for s in std),
        pixel_size=_pixel_size(shelf, sizes, options),
        scheme=scheme,
        outputs=scheme.classes,
        counts=() if regression else _counts(values, scheme, shelf, options),
        pixels=tuple(areas),
        band_names=_band_names(names),
        value_mean=spread.mean if regression else (),
        value_std=spread.std if regression else (),
    )


class _Spread:
    """Mean and standard deviation of the values of each plane, added up window by window."""

    def __init__(self, planes: int) -> None:
        self._count = np.zeros(planes)
        self._sum = np.zeros(planes)
        self._squares = np.zeros(planes)

    def add(self, values: NDArray[np.float32]) -> bool:
        """Take (planes, height, width) in; whether there is any value."""
        known = np.isfinite(values)
        given = np.where(known, values, 0).astype(np.float64)
        self._count += known.sum((1, 2))
        self._sum += given.sum((1, 2))
        self._squares += (given**2).sum((1, 2))
        return bool(known.any())

    @property
    def mean(self) -> tuple[float, ...]:
        return tuple(float(m) for m in self._sum / np.maximum(self._count, 1))

    @property
    def std(self) -> tuple[float, ...]:
        squares = self._squares / np.maximum(self._count, 1) - np.square(self.mean)
        # A plane of one value has no spread; it is learnt in its own unit.
        return tuple(math.sqrt(s) if s > 1e-12 else 1.0 for s in squares)


def _windows(region: Window, budget: float) -> Iterator[Window]:
    grid = [
        Window(
            y, x, min(WINDOW, region.stop_y - y), min(WINDOW, region.stop_x - x)
        )
        for y in range(region.y, region.stop_y, WINDOW)
        for x in range(region.x, region.stop_x, WINDOW)
    ]  # fmt: skip
    # A part of a large image, drawn: every n-th window may be those of its blank margin.
    count = math.ceil(len(grid) * min(1.0, max(budget, WINDOW**2) / region.area))
    chosen = np.random.default_rng(0).choice(len(grid), count, replace=False)
    yield from (grid[i] for i in sorted(chosen))


def _good(
    opened: OpenPair, window: Window, pixels: NDArray[np.generic], valid: Validity | None
) -> NDArray[np.float64]:
    """The pixels that count, those with data in all bands, (n, bands)."""
    if valid is None:
        return pixels.reshape(-1, pixels.shape[2]).astype(np.float64)
    if opened.image.nodata is None and pixels.dtype.kind == "f":
        bad = ~np.isfinite(pixels).all(2)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"{opened.image.path}: is NaN or infinite at row {window.y + row}, column "
                f"{window.x + column}, and names no nodata value; declare one in the file, or "
                "mend the image"
            )
    return np.asarray(pixels[valid.all(axis=2)], np.float64)


def _values(labels: LabelFile, window: Window) -> dict[int, int]:
    values = labels.read(window)[0]
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and (values == np.round(values)).all()):
            raise InputError(
                f"{labels.path}: holds values that are no labels; train them with labels: values"
            )
        values = values.astype(np.int64)
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _scheme(values: Counter[int], options: TrainOptions, example: str, asked: int) -> LabelScheme:
    labels = sorted(v for v in values if v not in options.ignore)
    kind = options.labels
    if kind == "auto":
        kind = "binary" if labels and set(labels) <= {0, 255} and 255 in labels else "classes"
    named = len(options.classes)
    if kind == "classes":
        labels = [v for v in labels if v != IGNORED]
        largest = max(labels, default=0)
        if not named and largest >= max(MOST_GUESSED, asked):
            raise InputError(
                f"{example} and the others hold {len(labels)} labels up to {largest}: say "
                "--instances if each is an object, or name the classes with --classes"
            )
        count = named or max(asked, largest + 1)
        if labels and largest >= count:
            raise InputError(
                f"the masks hold the label {largest}, and there are {count} classes, 0 to "
                f"{count - 1}; name more with --classes, or --ignore {largest}"
            )
    else:
        count = 3 if options.border and kind == "instances" else 2
        if named and named != count:
            raise InputError(
                f"{named} classes are named, and {kind} masks make {count}: "
                + ", ".join(("background", "object", "border")[:count])
            )
    if options.border and kind != "instances":
        raise InputError("border: needs masks that number their objects (--instances)")
    if count > IGNORED:
        raise InputError(f"{count} classes are more than the {IGNORED} that a mask can hold")
    from tilepipe.training.losses import GAP_REACH

    reach = GAP_REACH * options.border_sigma if options.border_weight else 0.0
    return LabelScheme(kind, count, options.border, options.ignore, reach)


def _counts(
    values: Counter[int], scheme: LabelScheme, shelf: Shelf, options: TrainOptions
) -> tuple[int, ...]:
    """Pixels of each class."""
    known = {v: n for v, n in values.items() if v not in options.ignore}
    if scheme.kind == "classes":
        counts = [known.get(label, 0) for label in range(scheme.classes)]
    else:
        counts = [known.get(0, 0), sum(n for v, n in known.items() if v > 0)]
    if sum(c > 0 for c in counts) < 2:
        only = next((i for i, c in enumerate(counts) if c), None)
        what = "say nothing at all" if only is None else f"hold nothing but label {only}"
        raise InputError(
            f"{shelf.pairs[0].mask} and all other training masks {what}: there is nothing to tell "
            "apart; look whether they are the right files"
        )
    if scheme.border:
        counts = _border_counts(shelf, scheme)
    return tuple(counts)


def _border_counts(shelf: Shelf, scheme: LabelScheme) -> list[int]:
    """Pixels of background, objects and borders between them, which only the distances tell."""
    counts = np.zeros(IGNORED + 1, np.int64)
    for index in range(len(shelf.pairs)):
        opened = shelf[index]
        for window in _windows(opened.region, LARGEST / 4 / len(shelf.pairs)):
            labels = scheme.target(opened.labels, window).labels
            counts += np.bincount(labels.ravel(), minlength=counts.size)
    return [int(n) for n in counts[: scheme.classes]]


def check_validation(shelf: Shelf, judged: Shelf, found: Survey) -> None:
    """Look at the validation pairs before the first step, not at the first look, in an hour.

    Raises
    ------
    InputError
        Naming the file: as for training pairs.
    """
    for index in range(len(judged.pairs)):
        opened = judged[index]
        _same(shelf[0], opened, regression=found.scheme.kind == "values")
        for window in _windows(opened.region, LARGEST / 4 / len(judged.pairs)):
            if found.scheme.kind != "values":
                found.scheme.labels(opened.labels.read(window)[0], opened.labels.path)


def _band_names(names: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The names that all images give, if they tell their bands apart."""
    common = names.pop() if len(names) == 1 else ()
    return common if places_by_name(common, common) else ()


def _same(first: OpenPair, other: OpenPair, *, regression: bool) -> None:
    for what in ("bands", "dtype"):
        ours, theirs = getattr(first.image, what), getattr(other.image, what)
        if ours != theirs:
            raise InputError(
                f"{other.image.path}: has {theirs} {what if what == 'bands' else 'pixels'}, and "
                f"{first.image.path} {ours}; all images must be alike"
            )
    ours, theirs = first.image.band_names, other.image.band_names
    if places_by_name(theirs, ours) not in (None, tuple(range(len(ours)))):
        raise InputError(
            f"{other.image.path}: has its bands in another order ({show_bands(theirs)}) than "
            f"{first.image.path} ({show_bands(ours)}); all images must be alike"
        )
    if regression and other.labels.planes != first.labels.planes:
        raise InputError(
            f"{other.labels.path}: has {other.labels.planes} planes of values, and "
            f"{first.labels.path} {first.labels.planes}; all masks must be alike"
        )


def _pixel_size(
    shelf: Shelf, sizes: Sequence[PixelSize | None], options: TrainOptions
) -> PixelSize | None:
    if options.pixel_size is not None:
        metric = any(size is not None and size.unit == "meter" for size in sizes)
        unit = "meter" if metric else "micrometer"
        return PixelSize(options.pixel_size, options.pixel_size, unit)
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    first = known[0]
    for pair, size in zip(shelf.pairs, known, strict=True):
        if size.unit != first.unit or not (alike(size.y, first.y) and alike(size.x, first.x)):
            raise InputError(
                f"{pair.image}: its pixels are {size.x:g} {size.unit}, those of "
                f"{shelf.pairs[0].image} {first.x:g} {first.unit}; bring them to one scale, or "
                "say --pixel-size if the files are wrong"
            )
    # Models know square pixels only; those of some scanners differ in the fourth digit.
    side = math.sqrt(first.y * first.x)
    return PixelSize(side, side, first.unit) if alike(first.y, first.x) else None
