"""Labels to trace, and their table in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from tilepipe.grid import Window, WindowGrid
from tilepipe.objects import stages
from tilepipe.objects.measuring import Layer, Measures, Scale
from tilepipe.objects.outlines import Outlines, joined
from tilepipe.objects.runs import runs_of
from tilepipe.objects.table import ObjectBatch
from tilepipe.objects.tracing import trace

Labels = NDArray[np.uint32]


def numbered(classes: NDArray[Any]) -> Labels:
    """8-connected components of each class but 0, numbered in raster order of first pixels."""
    found, count = np.zeros(classes.shape, np.int64), 0
    for value in np.unique(classes[classes > 0]):
        parts, more = ndimage.label(classes == value, np.ones((3, 3)))
        found[parts > 0] = parts[parts > 0] + count
        count += more
    names, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(np.where(names > 0, first, -1))] = np.arange(len(names))
    labels = rank[inverse].reshape(found.shape)
    return (labels if (found == 0).any() else labels + 1).astype(np.uint32)


sides = st.integers(1, 7)
classes = st.builds(lambda h, w: (h, w), sides, sides).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 2))
)


def outlines_of(labels: Labels) -> Outlines:
    runs = runs_of(labels)
    whole = Window(0, 0, *labels.shape)
    return trace(np.pad(labels, 1), runs, whole, labels.shape[1]).outlines()


def noise(shape: tuple[int, int], share: float, seed: int = 0) -> Labels:
    return numbered(np.random.default_rng(seed).random(shape) < share)


class InMemory:
    """What a `TableWriter` is to `assemble`, without a disk."""

    def __init__(self) -> None:
        self.batches: list[ObjectBatch] = []

    @property
    def count(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def append(self, batch: ObjectBatch) -> None:
        self.batches.append(batch)

    def whole(self) -> ObjectBatch:
        names = self.batches[0].columns if self.batches else ()
        columns = {n: np.concatenate([b.columns[n] for b in self.batches]) for n in names}
        drawn = [b.outlines for b in self.batches if b.outlines is not None]
        return ObjectBatch(columns, joined(drawn) if drawn else None)


def table_of(
    labels: Labels,
    tile: tuple[int, int],
    folder: Path,
    layers: Sequence[Layer] = (),
    scale: Scale | None = None,
    **options: Any,
) -> ObjectBatch:
    """The table of all objects, made in blocks of ``tile`` pixels (height, width)."""
    folder.mkdir(parents=True, exist_ok=True)

    def read(window: Window) -> Labels:
        return labels[window.y : window.stop_y, window.x : window.stop_x]

    measures = Measures(scale or Scale(), tuple(layers))
    grid = WindowGrid(Window(0, 0, *labels.shape), tile)
    for window in grid:
        stages.trace_block(read, window, labels.shape, folder, measures, **options)
    writer: Any = InMemory()
    classes = np.zeros(int(labels.max(initial=0)), np.uint8)
    stages.assemble(folder, grid, writer, classes, measures, **options)
    return InMemory.whole(writer)


def as_bytes(batch: ObjectBatch) -> dict[str, bytes]:
    """All of a table, to compare it with another."""
    found = {name: values.tobytes() for name, values in batch.columns.items()}
    if isinstance(batch.outlines, Outlines):
        for name in ("points", "rings", "polygons", "objects", "nodes"):
            found[f"outlines {name}"] = getattr(batch.outlines, name).tobytes()
    return found
