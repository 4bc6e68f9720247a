"""Outlines and measurements of up to a million nuclei: time and memory, in blocks and all at once.

    python benchmarks/objects.py [--nuclei 10000 100000 1000000] [--whole 100000]

Nuclei are ellipses, one in each square of 48 pixels of a slide that exists only as far as it is
asked for. In blocks: `trace_block` for one window after another in one process, then `assemble` to
a table on disk. All at once: the mask in memory, `skimage.measure.label`, `regionprops_table` and
`rasterio.features.shapes`, for at most ``--whole`` nuclei. Each way is a process of its own,
measured from outside. Numbers are given: labelling is not part of it.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import WORK, command_line, fresh, measure, parse, record
from numpy.typing import NDArray

from tilepipe.grid import Window, WindowGrid

CELL = 48
"""Pixels a side of the square with one nucleus."""
SHAPES = 256
"""Different nuclei."""
BLOCK = 2048


class Nuclei:
    """Labels of a slide of nuclei, numbered in raster order of their first pixels."""

    def __init__(self, count: int) -> None:
        self.side = math.isqrt(count)
        self.shape = (self.side * CELL, self.side * CELL)
        random = np.random.default_rng(0)
        self._masks = np.stack([_ellipse(random) for _ in range(SHAPES)])
        self._kind = random.integers(0, SHAPES, (self.side, self.side))
        top, left = np.divmod(self._masks.reshape(SHAPES, -1).argmax(axis=1), CELL)
        y, x = np.mgrid[: self.side, : self.side] * CELL
        first = (y + top[self._kind]) * self.shape[1] + x + left[self._kind]
        order = np.argsort(first.ravel())
        self._number = np.empty(len(order), np.uint32)
        self._number[order] = np.arange(1, len(order) + 1)
        self._number = self._number.reshape(first.shape)

    def __len__(self) -> int:
        return self.side**2

    def read(self, window: Window) -> NDArray[np.uint32]:
        """The numbers of the nuclei in a window."""
        rows = slice(window.y // CELL, -(-window.stop_y // CELL))
        columns = slice(window.x // CELL, -(-window.stop_x // CELL))
        number = self._number[rows, columns]
        cells = self._masks[self._kind[rows, columns]] * number[:, :, None, None]
        whole = cells.transpose(0, 2, 1, 3).reshape(len(number) * CELL, -1)
        y, x = window.y - rows.start * CELL, window.x - columns.start * CELL
        return whole[y : y + window.height, x : x + window.width]


def _ellipse(random: np.random.Generator) -> NDArray[np.bool_]:
    """A nucleus in its square, which touches the edge of that at times."""
    y, x = np.mgrid[:CELL, :CELL] - CELL / 2 + 0.5 + random.uniform(-8, 8, (2, 1, 1))
    long, short, turned = random.uniform(12, 18), random.uniform(8, 13), random.uniform(0, math.pi)
    along, across = (
        x * math.cos(turned) + y * math.sin(turned),
        y * math.cos(turned) - x * math.sin(turned),
    )
    inside: NDArray[np.bool_] = (along / long) ** 2 + (across / short) ** 2 < 1
    return inside


def in_blocks(nuclei: Nuclei, folder: Path) -> None:
    """Trace block by block, and assemble the table; print the seconds of both."""
    from tilepipe.objects.measuring import Measures, columns_of
    from tilepipe.objects.stages import assemble, trace_block
    from tilepipe.objects.table import TableWriter

    grid = WindowGrid(Window(0, 0, *nuclei.shape), (BLOCK, BLOCK))
    measures = Measures()
    spilled = folder / "spilled"
    spilled.mkdir(parents=True)
    begin = time.perf_counter()
    for window in grid:
        trace_block(nuclei.read, window, nuclei.shape, spilled, measures)
    traced = time.perf_counter()
    writer = TableWriter(folder / "table", columns_of(measures), outlines=True)
    classes = np.ones(len(nuclei), np.uint8)
    assert assemble(spilled, grid, writer, classes, measures) == len(nuclei)
    print(time.process_time(), traced - begin, time.perf_counter() - traced)


def at_once(nuclei: Nuclei, _: Path) -> None:
    """What one writes by hand; print the seconds of labelling, measuring and outlines."""
    import rasterio.features
    from skimage.measure import label, regionprops_table

    mask = nuclei.read(Window(0, 0, *nuclei.shape)) > 0
    begin = time.perf_counter()
    labels = label(mask, connectivity=2)
    names = (
        "area", "perimeter", "centroid", "bbox", "axis_major_length", "axis_minor_length",
    )  # fmt: skip
    regionprops_table(labels, properties=names)
    measured = time.perf_counter()
    shapes = list(rasterio.features.shapes(labels.astype(np.int32), mask))
    assert shapes
    print(time.process_time(), measured - begin, time.perf_counter() - measured)


WAYS: dict[str, Any] = {"in blocks": in_blocks, "at once": at_once}


def main() -> None:
    """Start each way for each number of nuclei, or be what was started."""
    parser = command_line(__doc__)
    parser.add_argument("--nuclei", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--whole", type=int, default=100_000)
    parser.add_argument("--way", choices=WAYS)
    options = parse(parser, nuclei=[400], whole=400)
    folder = WORK / "objects"
    if options.way:
        WAYS[options.way](Nuclei(options.nuclei[0]), folder)
        return
    for count in options.nuclei:
        for way in WAYS:
            if way == "at once" and count > options.whole:
                continue
            fresh(folder)
            words = [sys.executable, __file__, "--nuclei", count, "--way", way]
            found = measure(words)
            processor, first, second = map(float, found.output.split()[-3:])
            parts = ("tracing and measuring", "assembling") if way == "in blocks" else (
                "labelling and measuring", "outlines")  # fmt: skip
            figures = [
                (parts[0], first, "s", ""),
                (parts[1], second, "s", ""),
                ("whole command", found.seconds, "s", ""),
                ("processor time", processor, "s", ""),
                ("peak memory", found.peak / 2**20, "MiB", ""),
            ]
            record("objects", f"{count:,} nuclei, {way}", figures)
    fresh(folder)


if __name__ == "__main__":
    main()
