"""Windows that a run did not use, across the seams of its tiles and blocks."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from tilepipe.engine.plan.coverage import Coverage
from tilepipe.grid import Tiling, Window, round_down, round_up
from tilepipe.regions.cells import Region

CLEAR = 32
"""Pixels by which windows of a region hold the place that they are chosen for: they are moved."""


def seam_windows(
    tiling: Tiling, factor: int, count: int, seed: int, coverage: Coverage | None = None
) -> list[Window]:
    """Kept outputs of ``count`` windows, centred on seams and corners of tiles and blocks.

    Each is moved by whole stride factors, so that none is a window of the run: where an image has
    no seams, at least the windows are cut elsewhere. Of a region, each holds some.
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
    """The seams in random order, each once before any comes again; without any, anywhere."""
    while True:
        yield from choose.sample(seams, len(seams)) or [choose.randrange(size)]


def _part_of(coverage: Coverage, row: int, column: int) -> tuple[Window, set[tuple[int, int]]]:
    """What the tile that a pixel comes from is for, and where the tiles of its block begin."""
    block, across = coverage.tiling.block, coverage.tiling.shape[1]
    tiles = coverage.tiles(row // block[0] * across + column // block[1])
    pixel = Window(row, column, 1, 1)
    part = next(part for _, part in tiles if part.contains(pixel))
    return part, {(tile.y, tile.x) for tile, _ in tiles}


def _near(seams: list[int], place: int, keep: int) -> int:
    """The seam nearest to a place, if a window centred on it holds that place; or the place."""
    seam = min(seams, key=lambda seam: abs(seam - place), default=place)
    return seam if abs(seam - place) < keep // 2 - CLEAR else place


def _holds(region: Region, window: Window) -> bool:
    common = window.intersect(Window(0, 0, region.height, region.width))
    return common is not None and bool(region.inside(common).any())


def _start(centre: int, keep: int, size: int, factor: int) -> int:
    # Within the image, or, where that is no larger than the window, from its edge on.
    last = max(0, round_up(size, factor) - keep)
    return min(max(round_down(centre - keep // 2, factor), 0), last)


def _seams(tiling: Tiling, axis: int) -> list[int]:
    size, step = (tiling.height, tiling.width)[axis], tiling.shape[1] if axis == 0 else 1
    seams: set[int] = set()
    for number in range(0, tiling.shape[axis] * step, step):
        for tile in tiling.tiles(number):
            seams.add((tile.y, tile.x)[axis])
    return sorted(seam for seam in seams if 0 < seam < size)
