"""Windows for `verify` that the run did not use, across the seams of its tiles and blocks."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from tilepipe.engine.plan.coverage import Coverage
from tilepipe.grid import Tiling, Window, round_down, round_up
from tilepipe.regions.cells import Region

CLEAR = 32
"""Pixels around its centre that a window still contains after it is moved, in a region."""


def seam_windows(
    tiling: Tiling, factor: int, count: int, seed: int, coverage: Coverage | None = None
) -> list[Window]:
    """The outputs to keep of ``count`` windows, centred on seams and corners of tiles and blocks.

    Windows that the run used are moved by a stride factor: in an image without seams, windows are
    at least cut elsewhere. In a region, each window contains some of it.
    """
    choose = random.Random(seed)
    seams = _seams(tiling, 0), _seams(tiling, 1)
    rows = _in_turn(seams[0], tiling.height, choose)
    columns = _in_turn(seams[1], tiling.width, choose)
    height, width = (max(factor, round_down(keep, factor)) for keep in tiling.keep)
    region = None if coverage is None else coverage.region
    inside = None if region is None else np.argwhere(region.cells)
    windows = []
    for i in range(count):
        # In turn: a corner, a horizontal seam, a vertical one.
        own: set[tuple[int, int]] | None = None
        if coverage is None or region is None or inside is None:
            centre_y = next(rows) if i % 3 != 2 else choose.randrange(tiling.height)
            centre_x = next(columns) if i % 3 != 1 else choose.randrange(tiling.width)
        else:
            row, column = inside[choose.randrange(len(inside))] * region.cell
            part, own = _part_of(coverage, int(row), int(column))
            middle = region.cell // 2
            edges = [part.y, part.stop_y] if i % 3 != 2 else []
            centre_y = _near(edges, int(row) + middle, height)
            edges = [part.x, part.stop_x] if i % 3 != 1 else []
            centre_x = _near(edges, int(column) + middle, width)
        y = _start(centre_y, height, tiling.height, factor)
        x = _start(centre_x, width, tiling.width, factor)
        is_own = (y, x) in own if own is not None else y in (0, *seams[0]) and x in (0, *seams[1])
        if is_own:
            # Cut elsewhere, but not off an image that is smaller than the stride factor.
            moves = [m for m in (-factor, factor) if y + m + height > 0 and y + m < tiling.height]
            if region is not None:  # nor off the region
                moves = [m for m in moves if _holds(region, Window(y + m, x, height, width))]
            y += choose.choice(moves or [0])
        windows.append(Window(y, x, height, width))
    return windows


def _in_turn(seams: list[int], size: int, choose: random.Random) -> Iterator[int]:
    """The seams in random order, each once before any is repeated; random places without seams."""
    while True:
        yield from choose.sample(seams, len(seams)) or [choose.randrange(size)]


def _part_of(coverage: Coverage, row: int, column: int) -> tuple[Window, set[tuple[int, int]]]:
    """The pixels used of the tile that a pixel comes from, and the corners of its block's tiles."""
    block, across = coverage.tiling.block, coverage.tiling.shape[1]
    patches = coverage.patches(row // block[0] * across + column // block[1])
    pixel = Window(row, column, 1, 1)
    part = next(patch.use for patch in patches if patch.use.contains(pixel))
    return part, {(patch.keep.y, patch.keep.x) for patch in patches}


def _near(seams: list[int], place: int, keep: int) -> int:
    """The nearest seam, if a window centred on it contains the place; otherwise the place."""
    seam = min(seams, key=lambda seam: abs(seam - place), default=place)
    return seam if abs(seam - place) < keep // 2 - CLEAR else place


def _holds(region: Region, window: Window) -> bool:
    common = window.intersect(Window(0, 0, region.height, region.width))
    return common is not None and bool(region.inside(common).any())


def _start(centre: int, keep: int, size: int, factor: int) -> int:
    # Within the image; or at its edge, if it is not larger than the window.
    last = max(0, round_up(size, factor) - keep)
    return min(max(round_down(centre - keep // 2, factor), 0), last)


def _seams(tiling: Tiling, axis: int) -> list[int]:
    size, step = (tiling.height, tiling.width)[axis], tiling.shape[1] if axis == 0 else 1
    blocks = (tiling.block_window(n) for n in range(0, tiling.shape[axis] * step, step))
    seams = {seam for block in blocks for seam in tiling.starts(block, axis)}
    return sorted(seam for seam in seams if 0 < seam < size)
