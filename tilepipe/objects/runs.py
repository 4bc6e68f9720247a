"""The rows of pixels that make up the labels of a window, and the parts that they join to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.objects.walks import groups

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of a window: pixels of one label that follow each other in a row.

    Arrays have an entry for each run in raster order, those of label 0 included. Parts are the
    4-connected components of a label in the window: 1, 2, 3 ... in raster order of their first
    pixels; 0 is no label.
    """

    number: Ints
    """(n,): its label."""
    start: Ints
    """(n,): its first pixel, counted in raster order in the window."""
    length: Ints
    part: Ints
    of_pixel: NDArray[np.int32]
    """(H, W): the run of each pixel."""

    @property
    def width(self) -> int:
        """Columns of the window."""
        return int(self.of_pixel.shape[1])

    @property
    def parts(self) -> Ints:
        """The label of each part; part 0, of label 0, included."""
        labels = np.zeros(int(self.part.max(initial=0)) + 1, np.int64)
        labels[self.part] = self.number
        return labels


def runs_of(labels: NDArray[Any]) -> Runs:
    """The runs of a window of labels, shape (H, W)."""
    height, width = labels.shape
    begins = np.ones((height, width), bool)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    of_pixel = np.cumsum(begins, dtype=np.int32).reshape(height, width)
    of_pixel -= 1
    start = np.flatnonzero(begins)
    number = labels.ravel()[start].astype(np.int64)
    length = np.diff(start, append=height * width)
    # Two runs overlap from where the later of them begins.
    meets = (labels[1:] == labels[:-1]) & (begins[1:] | begins[:-1]) & (labels[1:] > 0)
    below = np.flatnonzero(meets) + width
    flat = of_pixel.ravel()
    named = groups(len(start), flat[below - width], flat[below])
    part = np.zeros(len(start), np.int64)
    some = number > 0
    found, first = np.unique(named[some], return_inverse=True)
    part[some] = np.arange(1, len(found) + 1)[first]
    return Runs(number, start, length, part, of_pixel)
