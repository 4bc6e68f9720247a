"""The objects of a mask with up to a million nuclei, and of one object as large as the slide.

    python benchmarks/objects.py [--nuclei 10000 100000 1000000] [--at-once 100000]

Masks are drawn block by block into an OME-Zarr. Nuclei are ellipses, one for each square of 40
pixels, that touch and overlap their neighbours; the slide-wide object is the background of a
million pores. tilepipe's way is `tilepipe.find_objects` from that mask to a GeoJSON file, without
and with a memory limit of 1 GB. The way by hand has the mask in memory: distance transform,
watershed, `regionprops_table`, `rasterio.features.shapes` and `json`, for at most ``--at-once``
nuclei. Each is a process of its own, measured from outside.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import WORK, command_line, fresh, measure, parse, record
from numpy.typing import NDArray

from tilepipe.grid import CHUNK, Window, WindowGrid
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.products.store import create_mask, open_zarr_mask

SHAPES = 256
"""Different ellipses."""
SMALLEST = 60
"""Smaller objects are dropped, in pixels."""


class Drawing:
    """A square of ellipses that exists only as far as it is asked for: 1 inside, 0 outside.

    Each has a square cell, which it may overlap by half a cell on all sides.
    """

    def __init__(self, count: int, cell: int, radii: tuple[tuple[int, int], tuple[int, int]]):
        self._count, self._half = math.isqrt(count), cell // 2
        self.side = self._count * cell
        random = np.random.default_rng(0)
        stamps = np.stack([_ellipse(random, cell, *radii) for _ in range(SHAPES)])
        quarters = stamps.reshape(SHAPES, 4, self._half, 4, self._half)
        self._quarters = quarters.transpose(1, 3, 0, 2, 4).copy()
        self._kinds = random.integers(0, SHAPES, (self._count, self._count))

    def read(self, window: Window) -> NDArray[np.uint8]:
        """A window of it."""
        half, cell = self._half, 2 * self._half
        first_row, first_column = max(0, window.y // cell - 1), max(0, window.x // cell - 1)
        last_row, last_column = -(-window.stop_y // cell) + 1, -(-window.stop_x // cell) + 1
        kinds = self._kinds[first_row:last_row, first_column:last_column]
        rows, columns = kinds.shape
        drawn = np.zeros((2 * rows + 2, 2 * columns + 2, half, half), np.uint8)
        for y in range(4):
            for x in range(4):
                drawn[y : y + 2 * rows : 2, x : x + 2 * columns : 2] |= self._quarters[y, x, kinds]
        whole = drawn.transpose(0, 2, 1, 3).reshape(len(drawn) * half, -1)
        top, left = window.y - first_row * cell + half, window.x - first_column * cell + half
        return whole[top : top + window.height, left : left + window.width]

    def write(self, path: Path) -> None:
        """Write it as a mask of nuclei."""
        classes = (MaskClass("background", "#000000"), MaskClass("nucleus", "#ff0000"))
        mask = create_mask(path, MaskSpec(self.side, self.side, "labels", classes, background=0))
        for window in WindowGrid(Window(0, 0, self.side, self.side), (4 * CHUNK, 4 * CHUNK)):
            mask.write(window, self.read(window))


def _ellipse(
    random: np.random.Generator, cell: int, long: tuple[int, int], short: tuple[int, int]
) -> NDArray[np.uint8]:
    """An ellipse in the middle of a square of two cells."""
    y, x = np.mgrid[: 2 * cell, : 2 * cell] - cell + 0.5
    y, x = (axis - random.uniform(-cell / 8, cell / 8) for axis in (y, x))
    along, across, turned = random.uniform(*long), random.uniform(*short), random.uniform(0, 3.14)
    u = x * math.cos(turned) + y * math.sin(turned)
    v = y * math.cos(turned) - x * math.sin(turned)
    return ((u / along) ** 2 + (v / across) ** 2 < 1).astype(np.uint8)


def nuclei(count: int) -> Drawing:
    """Nuclei of 30 to 46 by 26 to 38 pixels, many of which touch."""
    return Drawing(count, 40, ((15, 23), (13, 19)))


def pores(count: int) -> Drawing:
    """Pores that do not touch, so that all around them is one object."""
    return Drawing(count, 16, ((3, 5), (2, 4)))


def by_tilepipe(mask: Path, output: Path, **options: Any) -> int:
    """Find all objects; their number."""
    import tilepipe

    found = tilepipe.find_objects(mask, outputs=[str(output)], workers=2, **options)
    return found.summary.total.count


def by_hand(mask: Path, output: Path) -> int:
    """What one writes by hand; the number of objects."""
    import rasterio.features
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.measure import regionprops_table
    from skimage.morphology import remove_small_objects
    from skimage.segmentation import watershed

    opened = open_zarr_mask(mask)
    inside = ndimage.binary_fill_holes(opened.read(Window(0, 0, *opened.levels[0])) == 1)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), 1)
    markers = np.zeros(inside.shape, np.int32)
    peaks = peak_local_max(distance, min_distance=7, labels=inside.astype(np.uint8))
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = remove_small_objects(watershed(-distance, markers, mask=inside), max_size=SMALLEST - 1)
    names = (
        "label", "area", "perimeter", "centroid", "bbox", "axis_major_length", "axis_minor_length",
    )  # fmt: skip
    table = regionprops_table(labels, properties=names)
    rows = dict(zip(table["label"].tolist(), zip(*table.values(), strict=True), strict=True))
    features = [
        {
            "type": "Feature", "geometry": shape,
            "properties": {k: float(v) for k, v in zip(table, rows[int(number)], strict=True)},
        }
        for shape, number in rasterio.features.shapes(labels.astype(np.int32), labels > 0)
    ]  # fmt: skip
    with output.open("w") as file:
        json.dump({"type": "FeatureCollection", "features": features}, file)
    return len(rows)


SPLIT = {"method": "split", "min_area": str(SMALLEST), "fill_holes": True}
WAYS: dict[str, Any] = {
    "tilepipe": lambda *paths: by_tilepipe(*paths, **SPLIT),
    "tilepipe, --memory 1GB": lambda *paths: by_tilepipe(*paths, **SPLIT, memory="1GB"),
    "by hand": by_hand,
    "components": lambda *paths: by_tilepipe(*paths, method="components", only=["background"]),
    "components, --memory 1GB": lambda *paths: by_tilepipe(
        *paths, method="components", only=["background"], memory="1GB"
    ),
}
WIDE = [way for way in WAYS if way.startswith("components")]
"""Those of one object as large as the slide."""


def measured(case: str, way: str, mask: Path) -> None:
    """Measure a way in a process of its own."""
    output = mask.with_name("objects.geojson")
    fresh(output, output.with_name(f"{output.name}.unfinished"))
    load = os.getloadavg()[0]
    found = measure([sys.executable, __file__, "--way", way, "--mask", mask, "--output", output])
    load = max(load, os.getloadavg()[0])
    count, processor = map(float, found.output.split()[-2:])
    record(
        "objects", f"{case}, {way}",
        [
            ("objects", count, "", ""),
            ("whole command", found.seconds, "s", ""),
            ("processor time", processor, "s", ""),
            ("peak of all processes", found.peak / 2**20, "MiB", ""),
            ("size of the file", output.stat().st_size / 2**20, "MiB", ""),
            ("load of the machine", load, "", ""),
        ],
    )  # fmt: skip
    fresh(output)


def be(way: str, mask: Path, output: Path) -> None:
    """Go one way, and print the number of objects and the processor time of all processes."""
    count = WAYS[way](mask, output)
    print(count, sum(os.times()[:4]))


def main() -> None:
    """Start each way for each mask, or be what was started."""
    parser = command_line(__doc__)
    parser.add_argument("--nuclei", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--pores", type=int, nargs="*", default=[1 << 20])
    parser.add_argument("--at-once", type=int, default=100_000)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), metavar="WAY")
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--output", type=Path)
    options = parse(parser, nuclei=[100], pores=[100], at_once=100)
    if options.way:
        be(options.way, options.mask, options.output)
        return
    folder = WORK / "objects"
    for kind, counts in ((nuclei, options.nuclei), (pores, options.pores)):
        for count in counts:
            drawing, mask = kind(count), folder / "mask.ome.zarr"
            fresh(folder)
            folder.mkdir(parents=True)
            drawing.write(mask)
            case = f"{count:,} {kind.__name__}, {drawing.side} x {drawing.side}"
            for way in options.ways:
                by_hand = way == "by hand" and count > options.at_once
                if (way in WIDE) == (kind is pores) and not by_hand:
                    measured(case, way, mask)
    fresh(folder)


if __name__ == "__main__":
    main()
