"""Measurements of objects, from sums of integers that add up exactly whatever the blocks.

A window gives sums for each of its labels; those of an object in several windows are added; and
only then do numbers become lengths and areas. So a measurement is the same to the last bit
whatever the windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.objects.runs import Runs
from tilepipe.objects.table import Column
from tilepipe.objects.walks import ranges

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ADDED = ("pixels", "x", "y", "xx", "xy", "yy", "across", "down", "diagonal")
"""Sums over an object's pixels: of 1, of their indices and the products of those; and the crossings
of its border by lines along the rows, along the columns, and along both diagonals."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of the pixels of objects that are averaged, such as a band of the image."""

    name: str
    """Its columns are ``mean_NAME`` and ``max_NAME``."""
    read: Callable[[Window, NDArray[Any]], NDArray[Any]]
    """Of a window and its labels: (H, W). NaN where there is no value."""
    quantum: float = 1.0
    """Values are rounded to multiples of it: 2**-24 for float16, 1 for integers."""
    factor: float = 1.0
    """What values are multiplied with in the end: 1 / 254 for a share in 254 parts."""
    unit: str = ""
    has_mean: bool = True
    has_max: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of pixels, in the unit of lengths."""

    y: float = 1.0
    x: float = 1.0
    unit: str = "px"
    """``um``, ``m``, or ``px`` where it is unknown."""
    ground: Layer | None = None
    """The area of each pixel, where a CRS distorts it; lengths are scaled by its root."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What is measured of each object."""

    scale: Scale = Scale()
    layers: tuple[Layer, ...] = ()

    @property
    def summed(self) -> tuple[Layer, ...]:
        """The layers whose values are summed: last, the ground."""
        ground = self.scale.ground
        return self.layers if ground is None else (*self.layers, ground)


@dataclass(frozen=True, slots=True)
class Sums:
    """What adds up, for each of n labels in ascending order."""

    number: Ints
    added: NDArray[Any]
    """(n, `ADDED` + 2 for each layer): sums; of each layer its count and its sum."""
    lowest: Ints
    """(n, 2): the first column and row."""
    highest: Ints
    """(n, 2 + layers): the column and the row after the last, and the maximum of each layer."""

    def __len__(self) -> int:
        return len(self.number)

    def take(self, chosen: NDArray[Any]) -> Sums:
        """Some of them, by their indices or by a mask."""
        return Sums(
            self.number[chosen], self.added[chosen], self.lowest[chosen], self.highest[chosen]
        )

    def moved(self, y: int, x: int) -> Sums:
        """The same with indices that begin ``y`` rows and ``x`` columns earlier, as Python's ints.

        Sums of squares of a whole slide do not fit into 64 bits.
        """
        added = self.added.astype(object)
        n, sum_x, sum_y, xx, xy, yy = added.T[:6]
        added[:, 3] = xx + 2 * x * sum_x + n * (x * x)
        added[:, 4] = xy + x * sum_y + y * sum_x + n * (x * y)
        added[:, 5] = yy + 2 * y * sum_y + n * (y * y)
        added[:, 1], added[:, 2] = sum_x + n * x, sum_y + n * y
        highest = self.highest.copy()
        highest[:, :2] += (x, y)
        return Sums(self.number, added, self.lowest + np.array((x, y)), highest)


def sums_of(labels: NDArray[Any], runs: Runs, window: Window, layers: Sequence[Layer]) -> Sums:
    """The sums of all labels of a window, with indices counted from its first pixel.

    Parameters
    ----------
    labels : ndarray of integers, shape (H + 2, W + 2)
        The window with a rim of one pixel.
    runs : Runs
        Of the window without the rim.
    window : Window
        What the layers read.
    layers : sequence of Layer
        Their values are summed.
    """
    some = np.flatnonzero(runs.number > 0)
    some = some[np.argsort(runs.number[some], kind="stable")]
    number, begin = np.unique(runs.number[some], return_index=True)
    y, x = np.divmod(runs.start[some], runs.width)
    n = runs.length[some]
    steps = n * (n - 1) // 2
    sum_x = n * x + steps
    xx = n * x * x + 2 * x * steps + steps * (2 * n - 1) // 3
    crossings = _crossings(labels, runs, number)
    added = [np.stack((n, sum_x, n * y, xx, y * sum_x, n * y * y), axis=1)]
    highest = [x + n, y + 1]
    core = labels[1:-1, 1:-1]
    pixels = ranges(runs.start[some], n)
    rows = np.concatenate(([0], np.cumsum(n)))[:-1]
    for layer in layers:
        counted, most = _of_layer(layer, layer.read(window, core).ravel()[pixels], rows)
        added.append(counted)
        highest.append(most)
    if not len(number):
        width = len(ADDED) + 2 * len(layers)
        return Sums(number, *(np.zeros((0, k), np.int64) for k in (width, 2, 2 + len(layers))))
    total = np.add.reduceat(np.concatenate(added, axis=1), begin)
    return Sums(
        number,
        np.concatenate((total[:, :6], crossings, total[:, 6:]), axis=1),
        np.minimum.reduceat(np.stack((x, y), axis=1), begin),
        np.maximum.reduceat(np.stack(highest, axis=1), begin),
    )


LEAST = -(1 << 62)
"""The maximum of no values."""


def _of_layer(layer: Layer, values: NDArray[Any], begin: Ints) -> tuple[Ints, Ints]:
    """Count and sum (runs, 2) and maximum (runs,) of pixels, in multiples of the quantum."""
    if not len(begin):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    if values.dtype.kind == "f":
        known = np.isfinite(values)
        whole = np.rint(np.where(known, values, 0) / np.float64(layer.quantum)).astype(np.int64)
    else:
        known, whole = np.ones(len(values), bool), values.astype(np.int64)
    most = np.maximum.reduceat(np.where(known, whole, LEAST), begin)
    both = np.stack((known.astype(np.int64), whole), axis=1)
    return np.add.reduceat(both, begin), most


def _crossings(labels: NDArray[Any], runs: Runs, number: Ints) -> Ints:
    """How often lines along rows, columns and diagonals cross the border of each label: (n, 3)."""
    height, width = runs.of_pixel.shape
    core, of_pixel = labels[1:-1, 1:-1], runs.of_pixel.ravel()
    some, index = core > 0, np.searchsorted(number, runs.number)
    found = np.zeros((len(number), 3), np.int64)
    for y in range(3):
        for x in range(3):
            if (y, x) != (1, 1):
                other = labels[y : y + height, x : x + width]
                pixels = np.flatnonzero((core != other) & some)
                kind = 0 if y == 1 else 1 if x == 1 else 2
                found[:, kind] += np.bincount(index[of_pixel[pixels]], minlength=len(number))
    return found


def merged(parts: Sequence[Sums]) -> Sums:
    """The sums of all windows together; those of an object in several of them are added."""
    number = np.concatenate([part.number for part in parts])
    order = np.argsort(number, kind="stable")
    number, begin = np.unique(number[order], return_index=True)
    fields = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("added", "lowest", "highest")
    )
    if not len(number):
        return Sums(number, *fields)
    reductions = (np.add, np.minimum, np.maximum)
    return Sums(
        number, *(each.reduceat(f, begin) for each, f in zip(reductions, fields, strict=True))
    )


def columns_of(measures: Measures) -> tuple[Column, ...]:
    """The columns of a table, the number and the class first."""
    unit = measures.scale.unit
    area = f"{unit}2"
    found = [
        Column("number", "uint32", "", "Number"),
        Column("class", "uint8", "", "Class"),
        Column("area", "float64", area, "Area"),
        Column("perimeter", "float64", unit, "Perimeter"),
        Column("centroid_x", "float64", "px", "Centroid x"),
        Column("centroid_y", "float64", "px", "Centroid y"),
        Column("left", "int32", "px", "Left"),
        Column("top", "int32", "px", "Top"),
        Column("right", "int32", "px", "Right"),
        Column("bottom", "int32", "px", "Bottom"),
        Column("major_axis", "float64", unit, "Major axis"),
        Column("minor_axis", "float64", unit, "Minor axis"),
        Column("circularity", "float64", "", "Circularity"),
    ]
    for layer in measures.layers:
        if layer.has_mean:
            found.append(Column(f"mean_{layer.name}", "float64", layer.unit, f"Mean {layer.name}"))
        if layer.has_max:
            found.append(Column(f"max_{layer.name}", "float64", layer.unit, f"Max {layer.name}"))
    return tuple(found)


def measurements(sums: Sums, measures: Measures) -> dict[str, NDArray[Any]]:
    """The columns of objects but for their class, from their sums in the whole image.

    - area: of all pixels;
    - perimeter: by Crofton's formula, from the crossings with lines in four directions. The length
      of an outline along pixel edges is up to 27 % too long;
    - axes: of the ellipse with the object's second central moments;
    - circularity: 4 pi area / perimeter², at most 1.
    """
    scale = measures.scale
    added = sums.added.astype(object)
    n, sum_x, sum_y = added.T[:3]
    count = n.astype(np.float64)
    area = count * (scale.y * scale.x)
    stretch = np.ones(len(sums))
    if scale.ground is not None:
        area = added[:, -1].astype(np.float64) * (scale.ground.quantum * scale.ground.factor)
        stretch = np.sqrt(area / (count * (scale.y * scale.x)))
    perimeter = _perimeter(sums.added[:, 6:9].astype(np.float64), scale) * stretch
    major, minor = _axes(added, scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        circularity = np.minimum(4 * math.pi * area / perimeter**2, 1.0)
    left, top = sums.lowest.T
    right, bottom = sums.highest.T[:2]
    found: dict[str, NDArray[Any]] = {
        "number": sums.number,
        "area": area,
        "perimeter": perimeter,
        "centroid_x": (2 * sum_x + n).astype(np.float64) / (2 * count),
        "centroid_y": (2 * sum_y + n).astype(np.float64) / (2 * count),
        "left": left,
        "top": top,
        "right": right,
        "bottom": bottom,
        "major_axis": major * stretch,
        "minor_axis": minor * stretch,
        "circularity": circularity,
    }
    for k, layer in enumerate(measures.layers):
        known, total = added.T[len(ADDED) + 2 * k : len(ADDED) + 2 * k + 2].astype(np.float64)
        value = layer.quantum * layer.factor
        with np.errstate(divide="ignore", invalid="ignore"):
            found[f"mean_{layer.name}"] = total / known * value
        most = sums.highest[:, 2 + k].astype(np.float64) * value
        found[f"max_{layer.name}"] = np.where(known > 0, most, np.nan)
    return found


def _perimeter(crossings: Floats, scale: Scale) -> Floats:
    """Crofton's formula: half the sum of crossings x distance of lines x angle between lines."""
    across, down, diagonal = crossings.T
    angle = math.atan2(scale.y, scale.x)
    apart = scale.y * scale.x / math.hypot(scale.y, scale.x)
    return np.asarray(
        0.5
        * (
            across * (scale.y * angle)
            + down * (scale.x * (math.pi / 2 - angle))
            + diagonal * (apart * math.pi / 4)
        )
    )


def _axes(added: NDArray[Any], scale: Scale) -> tuple[Floats, Floats]:
    """Major and minor axis length, without the stretch of the ground."""
    n, x, y, xx, xy, yy = added.T[:6]
    count = n.astype(np.float64)
    # n² times the covariance is an integer that does not depend on where indices begin.
    var_x, cov, var_y = (
        each.astype(np.float64) / count / count for each in (n * xx - x * x, n * xy - x * y,
                                                             n * yy - y * y)
    )  # fmt: skip
    var_x, var_y = (var_x + 1 / 12) * scale.x**2, (var_y + 1 / 12) * scale.y**2
    cov = cov * (scale.x * scale.y)
    middle, half = (var_x + var_y) / 2, (var_x - var_y) / 2
    spread = np.sqrt(half * half + cov * cov)
    return 4 * np.sqrt(middle + spread), 4 * np.sqrt(np.maximum(middle - spread, 0))
