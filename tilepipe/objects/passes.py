"""The passes that number the objects of a mask. Each is a function of one window, or of all.

Functions of a window are tasks: they may run in any order, anywhere, and again. Those of all
windows run between them, where the pass before is complete.

=========  ==========  ===================================================================
holes      a window    what has no class, and what encloses it
           all         which of it is a hole, and of what
fill       a window    parts with holes filled
pieces     a window    components, seeds or basins
           all         which of them are one object, and its number
number     a window    the numbers, as pixels
grow       a window    seeds grown; how large that makes objects
borders    a window    how long the borders of specks are
           all         what becomes of specks, and the numbers without them
finish     a window    the final numbers, as pixels
=========  ==========  ===================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import CHUNK, Window
from tilepipe.objects import basins
from tilepipe.objects.growth import grow as grown
from tilepipe.objects.holes import enclosing, fillings, open_numbers, open_pieces
from tilepipe.objects.index import IndexRows, IndexWriter, ObjectIndex
from tilepipe.objects.job import ObjectsJob, Workspace
from tilepipe.objects.pieces import Pieces, connected_pieces, split_pieces
from tilepipe.objects.rules import BORDER, FREE, Parts
from tilepipe.objects.specks import SpeckBorders, absorb, speck_borders, summed
from tilepipe.objects.unions import Unions, grid_shape
from tilepipe.storage import StoragePath


def holes(work: Workspace, window: Window) -> None:
    """Find what has no class in a window, and what encloses it."""
    if work.has("holes", window):
        return
    parts, read = work.parts(window, 1, raw=True)
    pieces = _open_pieces(work, parts, read, window)
    beside = enclosing(pieces.numbers, len(pieces.part), parts, read, window)
    work.save("holes", window, {**pieces.tables, "beside": beside})


def judge_holes(work: Workspace) -> None:
    """Decide what is a hole."""

    def load(window: Window) -> tuple[Pieces, NDArray[np.uint8]]:
        tables = work.load("holes", window)
        beside = tables.pop("beside")
        return Pieces.from_tables(tables), beside

    found = fillings(
        work.grid, by_place(work, load), work.job.rule.max_hole, corners=not work.job.corners
    )
    for row, column, becomes in found:
        work.save("fillings", work.grid.window(row, column), {"becomes": becomes})
    work.create_array("filled", "uint8")


def fill(work: Workspace, window: Window) -> None:
    """Write the parts of a window with holes filled."""
    parts, _ = work.parts(window, raw=True)
    becomes = work.load("fillings", window)["becomes"]
    if (becomes != FREE).any():
        numbers = open_numbers(parts, corners=not work.job.corners)
        np.copyto(parts, becomes[numbers], where=numbers > 0)
    work.write_array("filled", window, parts)


def prepare_pieces(work: Workspace) -> None:
    """Make room for the pieces of all windows."""
    work.create_array("pieces", "int32")
    if not work.job.target:
        work.create_array("numbers", "uint32", CHUNK)


def pieces(work: Workspace, window: Window) -> None:
    """Find the pieces of a window: components, seeds or basins."""
    if work.has("pieces", window):
        return
    rule, width = work.job.rule, work.grid.area.width
    if rule.method == "split":
        parts, read = work.parts(window, basins.HALO)
        found = split_pieces(parts, read, window, width, _depth(work))
    else:
        parts, _ = work.parts(window)
        found = connected_pieces(parts, window, width, corners=work.job.corners)
    if len(found.part):
        work.write_array("pieces", window, found.numbers)
    work.save("pieces", window, found.tables)


def join_pieces(work: Workspace) -> None:
    """Decide which pieces are one object, and number the objects."""
    rule = work.job.rule
    unions = Unions(
        work.grid,
        by_place(work, lambda window: Pieces.from_tables(work.load("pieces", window))),
        depth=_depth(work),
        min_area=0 if is_provisional(work) else rule.min_area,
        corners=work.job.corners,
    )
    index = IndexWriter(work.path / "index" / ("seeds" if is_provisional(work) else "final"))
    for windows, (objects, numbers) in zip(work.rows(), unions.rows(), strict=True):
        index.append(objects)
        for window, number in zip(windows, numbers, strict=True):
            work.save("numbers", window, {"numbers": number})
    index.finish()
    if is_provisional(work):
        work.create_array("seeds", "uint32")


def number(work: Workspace, window: Window) -> None:
    """Write the numbers of the objects in a window."""
    numbers = work.load("numbers", window)["numbers"]
    if not numbers.any():
        return
    found = numbers[np.asarray(work.array("pieces")[window.slices()])]
    if is_provisional(work):
        work.write_array("seeds", window, found)
    else:
        _write(work, window, found)


def is_provisional(work: Workspace) -> bool:
    """Whether objects still change once pieces are joined: they grow, or take in specks."""
    rule = work.job.rule
    return rule.method == "seeded" or (rule.specks == "merge" and rule.min_area > 0)


def prepare_growth(work: Workspace) -> None:
    """Make room for grown seeds."""
    work.create_array("grown", "uint32")


def grow(work: Workspace, window: Window) -> None:
    """Grow the seeds of a window, and count the pixels of each object in it."""
    if work.has("grown", window):
        return
    reach = work.job.rule.reach
    parts, read = work.parts(window, reach)
    seeds = np.asarray(work.array("seeds")[read.slices()])
    found = grown(seeds, parts == BORDER, reach)[window.slices(read)]
    there = np.flatnonzero(found)
    numbers, at, areas = np.unique(found.reshape(-1)[there], return_index=True, return_counts=True)
    if len(numbers):
        work.write_array("grown", window, found)
    y, x = np.divmod(there[at], window.width)
    first = (y + window.y) * work.grid.area.width + x + window.x
    tables = {"numbers": numbers, "areas": areas, "first": first}
    work.save("grown", window, {name: table.astype(np.int64) for name, table in tables.items()})


def find_specks(work: Workspace) -> None:
    """Decide which objects are too small to stand alone."""
    index = ObjectIndex(work.path / "index" / "seeds").read()
    area, first = index.area, index.first
    if work.job.rule.method == "seeded":
        area = np.zeros(len(index), np.int64)
        for window in work.windows():
            found = work.load("grown", window)
            at = found["numbers"] - 1
            area[at] += found["areas"]
            first[at] = np.minimum(first[at], found["first"])
    writer = IndexWriter(work.path / "index" / "grown")
    writer.append(IndexRows(index.part, first, area))
    writer.finish()


def borders(work: Workspace, window: Window) -> None:
    """Count the edges that specks share with other objects in a window."""
    if work.has("borders", window):
        return
    wide = Window(window.y, window.x, window.height + 1, window.width + 1)
    read = wide.intersect(work.grid.area)
    assert read is not None, "the window is in the mask"
    numbers = np.asarray(_grown(work)[read.slices()])
    found = speck_borders(numbers, _specks(work), window.shape)
    work.save("borders", window, found._asdict())


def settle_specks(work: Workspace) -> None:
    """Decide what becomes of specks, and number what is left."""
    if work.job.rule.specks != "merge" or not work.job.rule.min_area:
        find_specks(work)
    index = ObjectIndex(work.path / "index" / "grown").read()
    becomes = np.where(_specks(work), 0, np.arange(len(index) + 1))
    if work.job.rule.specks == "merge" and work.job.rule.min_area:
        counted = summed(SpeckBorders(**work.load("borders", w)) for w in work.windows())
        becomes = absorb(_specks(work), *counted)
    number = np.zeros(len(index) + 1, np.int64)
    first, area = index.first.copy(), np.zeros(len(index) + 1, np.int64)
    np.add.at(area, becomes[1:], index.area)
    joined = np.flatnonzero(becomes[1:])
    np.minimum.at(first, becomes[1:][joined] - 1, index.first[joined])
    kept = np.flatnonzero(becomes[1:] == np.arange(1, len(index) + 1))
    kept = kept[np.argsort(first[kept], kind="stable")]
    number[kept + 1] = np.arange(1, len(kept) + 1)
    writer = IndexWriter(work.path / "index" / "final")
    writer.append(IndexRows(index.part[kept], first[kept], area[kept + 1]))
    writer.finish()
    final = number[becomes].astype(np.uint32)
    for window in work.windows():
        there = np.flatnonzero(_present(work, window))
        work.save("final", window, {"numbers": there, "becomes": final[there]})


def finish(work: Workspace, window: Window) -> None:
    """Write the final numbers of a window."""
    found = work.load("final", window)
    if not found["becomes"].any():
        return
    numbers = np.asarray(_grown(work)[window.slices()])
    at = np.searchsorted(found["numbers"], numbers).clip(0, len(found["numbers"]) - 1)
    _write(work, window, np.where(numbers > 0, found["becomes"][at], 0).astype(np.uint32))


def _grown(work: Workspace) -> Any:
    return work.array("grown" if work.job.rule.method == "seeded" else "seeds")


def _present(work: Workspace, window: Window) -> NDArray[np.bool_]:
    """Which objects have pixels in a window, from number 0 to the highest there."""
    seeded = work.job.rule.method == "seeded"
    numbers = work.load("grown" if seeded else "numbers", window)["numbers"].astype(np.int64)
    present = np.zeros(int(numbers.max(initial=0)) + 1, np.bool_)
    present[numbers] = True
    present[0] = False
    return present


def _specks(work: Workspace) -> NDArray[np.bool_]:
    return _specks_of(work.path, work.job)


@lru_cache(maxsize=2)
def _specks_of(path: StoragePath, job: ObjectsJob) -> NDArray[np.bool_]:
    """Whether each object is a speck, from number 0 on, which is none."""
    area = ObjectIndex(path / "index" / "grown").read().area
    return np.concatenate(([False], area < job.rule.min_area))


def _write(work: Workspace, window: Window, numbers: NDArray[np.uint32]) -> None:
    if work.job.target:
        target = work.target
        target.write(window, numbers)
        target.flush(window)
    else:
        work.write_array("numbers", window, numbers)


def _depth(work: Workspace) -> int:
    rule = work.job.rule
    return round(rule.depth * basins.UNIT) if rule.method == "split" else 1


def _open_pieces(work: Workspace, parts: Parts, read: Window, window: Window) -> Pieces:
    corners = not work.job.corners
    return open_pieces(parts, read, window, work.grid.area.width, corners=corners)


def by_place(work: Workspace, load: Callable[[Window], Any]) -> Callable[[int, int], Any]:
    """Load by row and column; three rows of windows are kept, as joining goes along rows."""
    columns = grid_shape(work.grid)[1]

    @lru_cache(maxsize=3 * columns + 1)
    def at(row: int, column: int) -> Any:
        return load(work.grid.window(row, column))

    return at
