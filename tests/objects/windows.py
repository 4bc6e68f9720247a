"""Objects of masks found window by window: with all that is kept on disk, and in memory alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window, WindowGrid
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects import basins
from tilepipe.objects.index import IndexRows
from tilepipe.objects.job import ObjectsJob, start
from tilepipe.objects.numbering import number_objects
from tilepipe.objects.pieces import Pieces, connected_pieces, split_pieces
from tilepipe.objects.rules import BORDER, PartTable
from tilepipe.objects.unions import Unions
from tilepipe.products.base import MaskClass, MaskSpec
from tilepipe.products.store import create_mask

NAMES = ("background", "a", "b", "border")
COLOURS = ("#000000", "#ff0000", "#00ff00", "#0000ff")


def mask_of(folder: Path, labels: NDArray[Any]) -> Path:
    path = folder / "mask.ome.zarr"
    classes = tuple(MaskClass(*each) for each in zip(NAMES, COLOURS, strict=True))
    spec = MaskSpec(*labels.shape, "labels", classes, background=0)
    whole = Window(0, 0, *labels.shape)
    create_mask(path, spec).write(whole, np.ascontiguousarray(labels, dtype=np.uint8))
    return path


def serially(function: Any, items: Any) -> Any:
    return (function(*item) for item in items)


def numbers_of(
    folder: Path, labels: NDArray[Any], rule: ObjectRule, side: int, compute: Any = serially
) -> NDArray[Any]:
    """The numbers of objects, found in windows of ``side``; the index agrees with them."""
    path = folder / "mask.ome.zarr"
    if not path.exists():
        mask_of(folder, labels)
    border = BORDER if rule.border else 3
    table = PartTable((0, 1, 2, border), (), (1, 2, 3))
    job = ObjectsJob(str(path), "x", *labels.shape, rule, table, side=side)
    work = start(folder / f"work{side}", job)
    index = number_objects(work, compute, lambda _title: None)
    found = np.asarray(work.array("numbers")[:])
    assert_described(found, index.read())
    return found


def joined(
    parts: NDArray[Any], tile: tuple[int, int], *, corners: bool = True, depth: float = 0
) -> NDArray[np.int64]:
    """The numbers of components, or of split objects where there is a depth, without a disk."""
    grid = WindowGrid(Window(0, 0, *parts.shape), tile)
    width, steps = parts.shape[1], round(depth * basins.UNIT)

    @cache
    def load(row: int, column: int) -> Pieces:
        window = grid.window(row, column)
        if not depth:
            return connected_pieces(parts[window.slices()], window, width, corners=corners)
        read = window.pad(basins.HALO).intersect(grid.area)
        assert read is not None, "the window is in the image"
        return split_pieces(parts[read.slices()], read, window, width, steps)

    found, index = np.zeros(parts.shape, np.int64), []
    unions = Unions(grid, load, depth=steps or 1, corners=corners)
    for row, (objects, numbers) in enumerate(unions.rows()):
        index.append(objects)
        for column, number in enumerate(numbers):
            found[grid.window(row, column).slices()] = number[load(row, column).numbers]
    assert_described(found, *index)
    return found


def assert_described(numbers: NDArray[Any], *index: IndexRows) -> None:
    """The index of objects has the area and the first pixel of each."""
    area, first = (np.concatenate([getattr(r, name) for r in index]) for name in ("area", "first"))
    assert numbers.max(initial=0) == len(area)
    assert (area == np.bincount(numbers.reshape(-1), minlength=len(area) + 1)[1:]).all()
    assert (numbers.reshape(-1)[first] == np.arange(1, len(area) + 1)).all()
    assert (np.diff(first) > 0).all()
