"""Cells: what touches a cell is in it, and sums over them are those of counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.engine.plan.coverage import Coverage
from tilepipe.grid import Geometry, Tiling, Window
from tilepipe.images.base import Level
from tilepipe.regions.cells import (
    MOST_CELLS,
    CellGrid,
    Placement,
    Region,
    cells_as_text,
    cells_from_text,
    touched_cells,
)


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    scale=st.sampled_from([(1.0, 1.0), (0.37, 0.41), (2.0, 2.0), (3.3, 1.7)]),
    step=st.sampled_from([(1.0, 1.0), (3.0, 2.5), (0.5, 7.0), (-1.0, 1.0), (40.0, 40.0)]),
    origin=st.sampled_from([(0.0, 0.0), (-11.5, 30.0), (60.0, 2.0)]),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_a_cell_is_inside_if_any_pixel_of_the_mask_touches_it(
    size: tuple[int, int],
    scale: tuple[float, float],
    step: tuple[float, float],
    origin: tuple[float, float],
    seed: int,
) -> None:
    grid = CellGrid(*size, cell=16, scale=scale)
    mask = np.random.default_rng(seed).random((23, 31)) < 0.03
    found = touched_cells(lambda a, b: mask[a:b], mask.shape, Placement(origin, step), grid)
    expected = np.zeros(grid.shape, bool)
    for row, column in np.argwhere(mask):
        y = sorted(origin[0] + step[0] * (row + i) for i in (0, 1))
        x = sorted(origin[1] + step[1] * (column + i) for i in (0, 1))
        for r in range(grid.shape[0]):
            for c in range(grid.shape[1]):
                high, wide = grid.sides
                expected[r, c] |= (
                    y[0] < (r + 1) * high - 1e-3
                    and y[1] > r * high + 1e-3
                    and x[0] < (c + 1) * wide - 1e-3
                    and x[1] > c * wide + 1e-3
                )
    assert (found == expected).all()


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(0).random((400, 300)) < 0.01
    grid = CellGrid(800, 600, 16, (1.1, 1.1))
    asked = []

    def read(top: int, bottom: int) -> np.ndarray:
        asked.append(bottom - top)
        return mask[top:bottom]

    place = Placement(step=(2.2, 2.2))
    whole = touched_cells(read, mask.shape, place, grid)
    monkeypatch.setattr("tilepipe.regions.cells.STRIP_PIXELS", 3000)
    strips = touched_cells(read, mask.shape, place, grid)
    assert (whole == strips).all()
    assert max(asked[1:]) <= 10


def test_cells_grow_with_the_image_and_are_whole_stride_factors() -> None:
    for side, factor, cell in ((5000, 16, 16), (5000, 2, 16), (5000, 32, 32), (100_000, 16, 64)):
        grid = CellGrid.of(Level(side, side, 1.0, 1.0), factor)
        assert grid.cell == cell
        assert grid.shape[0] * grid.shape[1] <= MOST_CELLS


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_cells_come_back_from_text(rows: int, columns: int, seed: int) -> None:
    cells = np.random.default_rng(seed).random((rows, columns)) < 0.4
    text = cells_as_text(cells)
    assert (cells_from_text(text, (rows, columns)) == cells).all()
    with pytest.raises(ValueError, match="are not"):
        cells_from_text(text, (rows + 8, columns))
    with pytest.raises(ValueError, match=r"damaged|base64|padding"):
        cells_from_text(text[:-8] + "AAAAAAA=", (rows, columns))


@given(
    size=st.tuples(st.integers(1, 1800), st.integers(1, 1800)),
    block=st.tuples(st.sampled_from([512, 1024, 1536]), st.sampled_from([512, 1024])),
    keep=st.tuples(st.sampled_from([16, 128, 384, 400]), st.sampled_from([208, 384, 512])),
    share=st.sampled_from([0.0005, 0.01, 0.5]),
    cell=st.sampled_from([16, 32]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_coverage_is_what_counting_every_part_of_every_tile_gives(
    size: tuple[int, int],
    block: tuple[int, int],
    keep: tuple[int, int],
    share: float,
    cell: int,
    seed: int,
) -> None:
    tiling = Tiling(*size, block, keep, Geometry())
    shape = -(-size[0] // cell), -(-size[1] // cell)
    cells = np.random.default_rng(seed).random(shape) < share
    region = Region(*size, cell, cells)
    image = np.kron(cells, np.ones((cell, cell), bool))[: size[0], : size[1]]
    assert region.pixels == image.sum()
    coverage = Coverage(tiling, region)
    passes, active = 0, []
    seen = np.zeros(size, np.uint8)
    for number in tiling:
        expected = []
        for patch in tiling.patches(number):
            assert patch.keep.contains(patch.use)
            assert tiling.block_window(number).contains(patch.use)
            seen[patch.use.slices()] += 1
            if image[patch.use.slices()].any():
                expected.append(patch)
        assert list(coverage.patches(number)) == expected
        passes += len(expected)
        if expected:
            active.append(number)
            assert all(coverage.reach(number).contains(patch.read) for patch in expected)
        window = tiling.block_window(number)
        inside = coverage.inside(window)
        assert (image[window.slices()] == (True if inside is None else inside)).all()
        assert (number in coverage) == bool(expected)
    assert (seen == 1).all(), "parts share a block out"
    assert coverage.passes == passes
    assert coverage.work == passes * tiling.input[0] * tiling.input[1]
    assert list(coverage) == active
    assert len(coverage) == len(active)


def test_without_a_region_everything_is_covered() -> None:
    tiling = Tiling(1700, 900, (1536, 512), (384, 512), Geometry())
    coverage = Coverage(tiling)
    assert list(coverage) == list(tiling)
    assert coverage.passes == tiling.forward_passes == sum(len(tiling.patches(n)) for n in tiling)
    assert coverage.work == tiling.work
    assert coverage.inside(Window(0, 0, 5, 5)) is None
    assert coverage.reach(1) == tiling.full_reach(1)
    assert (0 in coverage, 99 in coverage) == (True, False)


@pytest.mark.slow
@given(
    size=st.tuples(st.integers(1, 1800), st.integers(1, 1800)),
    block=st.tuples(st.sampled_from([512, 1024, 1536]), st.sampled_from([512, 1024])),
    keep=st.tuples(st.sampled_from([32, 128, 384]), st.sampled_from([32, 256, 512])),
    share=st.sampled_from([0.0005, 0.01, 0.5, 1.0]),
    cell=st.sampled_from([16, 32]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_frames_hold_the_region_once_and_are_windows_that_fit(
    size: tuple[int, int],
    block: tuple[int, int],
    keep: tuple[int, int],
    share: float,
    cell: int,
    seed: int,
) -> None:
    tiling = Tiling(*size, block, keep, Geometry())
    cells = np.random.default_rng(seed).random((-(-size[0] // cell), -(-size[1] // cell))) < share
    image = np.kron(cells, np.ones((cell, cell), bool))[: size[0], : size[1]]
    coverage = Coverage(tiling, Region(*size, cell, cells), framed=True)
    seen = np.zeros(size, np.uint8)
    work = passes = 0
    for number in coverage:
        patches, reach = coverage.patches(number), coverage.reach(number)
        assert patches
        for patch in patches:
            tile, part = patch.keep, patch.use
            assert tile.y % 16 == tile.x % 16 == tile.height % 16 == tile.width % 16 == 0
            assert tile.height <= keep[0]
            assert tile.width <= keep[1]
            assert tile.contains(part)
            assert tiling.block_window(number).contains(part)
            assert image[part.slices()].any()
            assert reach.contains(patch.read)
            seen[part.slices()] += 1
            work += patch.read.area
        passes += len(patches)
    assert seen.max(initial=0) <= 1
    assert seen[image].all()
    assert (coverage.work, coverage.passes) == (work, passes)


def test_two_corners_of_a_block_are_two_small_windows() -> None:
    cells = np.zeros((128, 128), bool)
    cells[:20, :10] = cells[100:, 120:] = True
    region = Region(2048, 2048, 16, cells)
    coverage = Coverage(Tiling(2048, 2048, (2048, 2048), (2048, 2048), Geometry()), region, True)
    parts = [patch.use for patch in coverage.patches(0)]
    assert parts == [Window(1600, 1920, 448, 128), Window(0, 0, 320, 160)], "the largest first"


def test_the_largest_window_of_a_region_is_computed_first() -> None:
    """Memory for it serves all others."""
    cells = np.zeros((64, 96), bool)
    cells[:2, :3] = cells[2:30, 40:44] = cells[10:50, 70:90] = True
    tiling = Tiling(1024, 1536, (1024, 512), (1024, 512), Geometry())
    coverage = Coverage(tiling, Region(1024, 1536, 16, cells), framed=True)
    assert list(coverage) == [0, 1, 2]
    assert list(coverage.in_order()) == [2, 1, 0]
    unframed = Coverage(tiling, Region(1024, 1536, 16, cells))
    assert list(unframed.in_order()) == [0, 1, 2]
