"""The two passes over a pair: labels counted as they are, then objects put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.evaluation.errors_picture import Sample
from tilepipe.evaluation.grids import require_one_grid, warped
from tilepipe.evaluation.label_maps import SIDE, Grid, LabelMap, open_label_map, windows
from tilepipe.evaluation.meaning import BINS, NONE, Meaning, Reading, binned
from tilepipe.evaluation.metrics import Errors, joint_histogram
from tilepipe.evaluation.objects import ObjectCounts
from tilepipe.evaluation.pairs import Pair
from tilepipe.evaluation.stitching import OverlapTally, StitchedObjects
from tilepipe.grid import CHUNK, Window, round_down
from tilepipe.products.base import NO_ANSWER, Kind

BYTES_A_PIXEL = 64
"""Held for each pixel of a window, both maps and what is made of them."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many pixels of how many."""


@dataclass(frozen=True, slots=True)
class Options:
    """What both passes over a pair need to know."""

    reading: Reading
    warp: bool
    memory: int
    tell: Progress


@dataclass(slots=True)
class Seen:
    """A pair's labels, counted as they are, before it is known what they mean."""

    pair: Pair
    kind: Kind
    ours: tuple[bool, bool]
    """Of mask and truth, whether tilepipe wrote them."""
    wide: tuple[bool, bool]
    """Whether their labels are stored in more than a byte."""
    named: tuple[tuple[str, ...] | None, tuple[str, ...] | None]
    """The classes that they name."""
    joints: list[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]]
    """For each plane the truth's bins, the mask's, and how often they meet."""
    errors: tuple[Errors, ...]
    sample: Sample | None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Of the mask."""
        return self.named[0]

    def joint(self, plane: int) -> NDArray[np.int64]:
        """The joint histogram of a plane, (258, 258); rows are the truth."""
        rows, columns, counts = self.joints[plane]
        table = np.zeros((BINS, BINS), np.int64)
        table[rows, columns] = counts
        return table


def look(pair: Pair, options: Options, *, sampled: bool) -> Seen:
    """The first pass: labels are counted as they are."""
    with ExitStack() as stack:
        mask, truth = _open(pair, options, stack)
        grid = _grid(mask, truth, options.memory)
        sample = Sample(mask.shape, mask.planes, mask.kind) if sampled else None
        joints = np.zeros((mask.planes, BINS, BINS), np.int64)
        errors = tuple(Errors() for _ in range(mask.planes))
        for window in _told(grid, pair, options):
            said, true = mask.read(window), truth.read(window)
            if mask.kind == "values":
                for plane, e in enumerate(errors):
                    e.add(said[plane], true[plane])
            else:
                said = binned(said, mask.nodata, ())
                true = binned(true, truth.nodata, options.reading.ignore)
                for plane in range(mask.planes):
                    joints[plane] += joint_histogram(said[plane], true[plane], BINS)
            if sample is not None:
                sample.add(window, said, true)
        return Seen(
            pair,
            mask.kind,
            (mask.ours, truth.ours),
            (mask.dtype.itemsize > 1, truth.dtype.itemsize > 1),
            (mask.classes, truth.classes),
            [_sparse(joint) for joint in joints],
            errors if mask.kind == "values" else (),
            sample,
        )


def _sparse(joint: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    rows, columns = joint.nonzero()
    return rows, columns, joint[rows, columns]


def compare_objects(
    pair: Pair,
    meaning: Meaning,
    filled: int | None,
    options: Options,
    min_size: int,
    fill_holes: bool,
) -> ObjectCounts:
    """The second pass: objects are put together over windows, and what they share is counted."""
    parts, mask_table = meaning.parts, meaning.mask_table
    if filled is not None:
        unanswered = mask_table == NO_ANSWER
        mask_table = np.where(unanswered, filled, mask_table).astype(np.uint8)
        if parts is not None:
            parts = np.where(unanswered, filled == meaning.object_class, parts).astype(np.uint8)
    tally = OverlapTally(min_size)
    with ExitStack() as stack:
        mask, truth = _open(pair, options, stack)
        grid = _grid(mask, truth, options.memory)
        mask_bins, truth_bins = _Bins(mask), _Bins(truth, options.reading.ignore)
        # Each side may fill a quarter of the memory with the numbers of its objects.
        limit = options.memory // 4
        said = _objects(mask_bins, parts, grid, limit, fill_holes=fill_holes)
        true = _objects(truth_bins, meaning.truth_parts, grid, limit)
        for window in _told(grid, pair, options):
            predicted, real = said(window), true(window)
            answered = (mask_table != NO_ANSWER)[mask_bins(window)]
            known = (meaning.truth_table != NO_ANSWER)[truth_bins(window)]
            counting = answered & known
            tally.add(predicted, real, None if counting.all() else counting)
    return ObjectCounts.from_overlaps(tally.overlaps())


class _Bins:
    """The bins of a window of labels; those of the last window are kept."""

    def __init__(self, labels: LabelMap, ignore: tuple[int, ...] = ()) -> None:
        self.labels = labels
        self._ignore = ignore
        self._last: tuple[Window, NDArray[Any]] | None = None

    def __call__(self, window: Window) -> NDArray[Any]:
        # A window is asked for with its rim and then without: the file is read once.
        if self._last is None or not self._last[0].contains(window):
            self._last = (window, self.of(self.labels.read(window)[0]))
        around, bins = self._last
        return bins[window.slices(around)]

    def of(self, labels: NDArray[Any]) -> NDArray[Any]:
        return binned(labels, self.labels.nodata, self._ignore)


def _objects(
    bins: _Bins,
    parts: NDArray[np.uint8] | None,
    grid: Grid,
    memory: int,
    *,
    fill_holes: bool = False,
) -> Callable[[Window], NDArray[Any]]:
    """What gives the objects of a window: numbers as they stand, or components put together."""
    if parts is None:

        def numbers(window: Window) -> NDArray[Any]:
            found = bins.labels.read(window)[0].astype(np.int64)
            if found.max() >= 1 << 31:
                raise InputError(
                    f"{bins.labels.path} numbers an object {found.max()}; number them below "
                    f"{1 << 31}"
                )
            return np.where(bins.of(found) == NONE, 0, found)

        return numbers
    return StitchedObjects(
        lambda window: parts[bins(window)],
        grid,
        border=bool((parts == 2).any()),
        fill_holes=fill_holes,
        memory=memory,
    ).read


def _open(pair: Pair, options: Options, stack: ExitStack) -> tuple[LabelMap, LabelMap]:
    mask = stack.enter_context(open_label_map(pair.mask, options.memory))
    truth = stack.enter_context(open_label_map(pair.truth, options.memory))
    if options.warp:
        truth = stack.enter_context(warped(truth, mask))
    if (mask.kind == "values") != (truth.kind == "values"):
        holds = {"values": "values", "labels": "labels", "planes": "labels"}
        raise InputError(
            f"{mask.path} holds {holds[mask.kind]}, and {truth.path} {holds[truth.kind]}; "
            "compare like with like"
        )
    if mask.planes != truth.planes:
        raise InputError(
            f"{mask.path} and {truth.path} differ in their number of bands, {mask.planes} and "
            f"{truth.planes}; give label maps with as many"
        )
    require_one_grid(mask, truth)
    return mask, truth


def _grid(mask: LabelMap, truth: LabelMap, memory: int) -> Grid:
    planes = mask.planes
    side = round_down(isqrt(memory // (BYTES_A_PIXEL * planes)), CHUNK)
    return windows(mask.shape, [mask.chunk, truth.chunk], min(SIDE, max(CHUNK, side)))


def _told(grid: Grid, pair: Pair, options: Options) -> Iterator[Window]:
    """The windows of a grid, telling of each when it is done."""
    total, done = grid.shape[0] * grid.shape[1], 0
    for window in grid:
        yield window
        done += window.area
        options.tell(pair.name, done, total)
