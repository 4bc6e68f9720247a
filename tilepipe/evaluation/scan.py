"""The two passes over a pair: labels are counted as they are, then objects are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.evaluation.error_pictures import Subsample
from tilepipe.evaluation.grids import require_one_grid, warped
from tilepipe.evaluation.label_maps import LabelMap, open_label_map
from tilepipe.evaluation.label_semantics import BINS, NONE, LabelMapping, LabelStats, binned
from tilepipe.evaluation.matching import ObjectCounts, OverlapTally
from tilepipe.evaluation.metrics import Errors, joint_histogram
from tilepipe.evaluation.objects import FoundObjects
from tilepipe.evaluation.options import EvaluateOptions
from tilepipe.evaluation.pairs import MaskPair
from tilepipe.grid import CHUNK, Window, WindowGrid, round_down
from tilepipe.models.object_rule import Method
from tilepipe.objects.job import side_for
from tilepipe.objects.rules import BORDER
from tilepipe.products.base import NO_ANSWER, Kind
from tilepipe.text import count

SIDE = 2048
"""Side of the windows that are read, if the files' tiles and the memory allow it."""

BYTES_A_PIXEL = 64
"""Memory for each pixel of a window: both maps, and the arrays made of them."""

OnProgress = Callable[[str, int, int], None]
"""Called with the name of a pair, the number of pixels done, and how many there are."""

SparseHistogram = tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]
"""Bins of the truth, bins of the mask, and how many pixels have both."""


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The labels of a pair, counted as they are, before their meaning is known."""

    pair: MaskPair
    kind: Kind
    ours: tuple[bool, bool]
    """Whether tilepipe wrote the mask, and the truth."""
    wide: tuple[bool, bool]
    """Whether the labels of mask and truth take more than a byte."""
    named: tuple[tuple[str, ...] | None, tuple[str, ...] | None]
    """The names of classes in mask and truth."""
    histograms: list[SparseHistogram]
    """The joint histogram of each plane; empty for values."""
    errors: tuple[Errors, ...]
    """The errors of each plane of values."""
    subsample: Subsample | None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of classes in the mask."""
        return self.named[0]

    @property
    def planes(self) -> int:
        """Number of planes of the mask."""
        return len(self.histograms) + len(self.errors)

    def histogram(self, plane: int) -> NDArray[np.int64]:
        """The joint histogram of a plane, (258, 258); rows are the truth."""
        rows, columns, counts = self.histograms[plane]
        table = np.zeros((BINS, BINS), np.int64)
        table[rows, columns] = counts
        return table


def label_stats(scans: list[ScanResult], side: int, plane: int = 0) -> LabelStats:
    """What was counted of a plane of all masks (side 0), or of all truths (side 1), together."""
    return LabelStats(
        str((scans[0].pair.mask, scans[0].pair.truth)[side]),
        scans[0].named[side],
        all(scan.ours[side] for scan in scans),
        any(scan.wide[side] for scan in scans),
        sum((scan.histogram(plane).sum(side) for scan in scans), start=np.zeros(BINS, np.int64)),
    )


def scan(pair: MaskPair, options: EvaluateOptions, progress: OnProgress) -> ScanResult:
    """The first pass over a pair: count its labels as they are.

    Raises
    ------
    InputError
        One of the files cannot be opened, or they do not fit each other.
    """
    with ExitStack() as stack:
        mask, truth = _open(pair, options, stack)
        values = mask.kind == "values"
        subsample = Subsample(mask.shape, mask.planes, mask.kind) if options.plot else None
        joint = np.zeros((0 if values else mask.planes, BINS, BINS), np.int64)
        errors = tuple(Errors() for _ in range(mask.planes if values else 0))
        for window in _with_progress(_grid(mask, truth, options.memory), pair, progress):
            predicted, true = mask.read(window), truth.read(window)
            if not values:
                predicted = binned(predicted, mask.nodata, ())
                true = binned(true, truth.nodata, options.ignore)
            for plane, e in enumerate(errors):
                e.add(predicted[plane], true[plane])
            for plane, table in enumerate(joint):
                table += joint_histogram(predicted[plane], true[plane], BINS)
            if subsample is not None:
                subsample.add(window, predicted, true)
        return ScanResult(
            pair,
            mask.kind,
            (mask.ours, truth.ours),
            (mask.dtype.itemsize > 1, truth.dtype.itemsize > 1),
            (mask.classes, truth.classes),
            [_sparse(table) for table in joint],
            errors,
            subsample,
        )


def _sparse(table: NDArray[np.int64]) -> SparseHistogram:
    rows, columns = table.nonzero()
    return rows, columns, table[rows, columns]


def compare_objects(
    pair: MaskPair, mapping: LabelMapping, options: EvaluateOptions, progress: OnProgress
) -> ObjectCounts:
    """The second pass over a pair: find objects across windows, and count what they share."""
    tally = OverlapTally(options.min_size)
    with ExitStack() as stack:
        mask, truth = _open(pair, options, stack)
        grid = _grid(mask, truth, options.memory)
        mask_bins, truth_bins = _BinReader(mask), _BinReader(truth, options.ignore)
        side = side_for(options.memory, 1)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tilepipe-")))
        read_predicted = _object_reader(
            mask_bins,
            mapping.mask_parts,
            grid,
            folder / "mask",
            side=side,
            fill_holes=options.fill_holes,
            split=options.split,
        )
        read_true = _object_reader(
            truth_bins, mapping.truth_parts, grid, folder / "truth", side=side
        )
        for window in _with_progress(grid, pair, progress):
            predicted, true = read_predicted(window), read_true(window)
            answered = (mapping.mask_table != NO_ANSWER)[mask_bins(window)]
            known = (mapping.truth_table != NO_ANSWER)[truth_bins(window)]
            counting = answered & known
            tally.add(predicted, true, None if counting.all() else counting)
    return tally.total()


class _BinReader:
    """Reads the labels of a window as bins, and keeps those of the last window."""

    def __init__(self, labels: LabelMap, ignore: tuple[int, ...] = ()) -> None:
        self.labels = labels
        self._ignore = ignore
        self._last: tuple[Window, NDArray[Any]] | None = None

    def __call__(self, window: Window) -> NDArray[Any]:
        # A map of one window is read only once.
        if self._last is None or self._last[0] != window:
            self._last = (window, self.bins_of(self.labels.read(window)[0]))
        return self._last[1]

    def bins_of(self, labels: NDArray[Any]) -> NDArray[Any]:
        return binned(labels, self.labels.nodata, self._ignore)


def _object_reader(
    bins: _BinReader,
    parts: NDArray[np.uint8] | None,
    grid: WindowGrid,
    folder: Path,
    *,
    side: int,
    fill_holes: bool = False,
    split: bool = False,
) -> Callable[[Window], NDArray[Any]]:
    """A function that reads the objects of a window: the file's own numbers, or components."""
    if parts is not None:
        blocks = ((window, parts[bins(window)]) for window in grid)
        method: Method = "split" if split else "seeded" if BORDER in parts else "components"
        return FoundObjects(
            folder, grid.area.shape, blocks, method, fill_holes=fill_holes, side=side
        ).read

    def read_numbers(window: Window) -> NDArray[Any]:
        numbers = bins.labels.read(window)[0].astype(np.int64)
        if numbers.max() >= 1 << 31:
            raise InputError(
                f"{bins.labels.path} has an object with the number {numbers.max()}; use numbers "
                f"below {1 << 31}"
            )
        return np.where(bins.bins_of(numbers) == NONE, 0, numbers)

    return read_numbers


def _open(pair: MaskPair, options: EvaluateOptions, stack: ExitStack) -> tuple[LabelMap, LabelMap]:
    mask = stack.enter_context(open_label_map(pair.mask, options.memory))
    truth = stack.enter_context(open_label_map(pair.truth, options.memory))
    if options.warp:
        truth = stack.enter_context(warped(truth, mask))
    if (mask.kind == "values") != (truth.kind == "values"):
        holds = {"values": "values", "labels": "labels", "planes": "labels"}
        raise InputError(
            f"{mask.path} holds {holds[mask.kind]}, and {truth.path} holds {holds[truth.kind]}; "
            "compare labels with labels, or values with values"
        )
    if mask.planes != truth.planes:
        raise InputError(
            f"{mask.path} has {count(mask.planes, 'band')}, and {truth.path} has {truth.planes}; "
            "compare label maps with the same number of bands"
        )
    require_one_grid(mask, truth)
    return mask, truth


def _grid(mask: LabelMap, truth: LabelMap, memory: int) -> WindowGrid:
    affordable = round_down(isqrt(memory // (BYTES_A_PIXEL * mask.planes)), CHUNK)
    chunk = max(mask.chunk[0], truth.chunk[0]), max(mask.chunk[1], truth.chunk[1])
    return WindowGrid.along_chunks(mask.shape, chunk, min(SIDE, max(CHUNK, affordable)))


def _with_progress(grid: WindowGrid, pair: MaskPair, progress: OnProgress) -> Iterator[Window]:
    """The windows of a grid; after each one, the progress is reported."""
    done = 0
    for window in grid:
        yield window
        done += window.area
        progress(pair.name, done, grid.area.area)
