"""Windows, tiles and blocks: every pixel once, every tile on the phase, all of one shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.grid import (
    CHUNK,
    Geometry,
    Tiling,
    Window,
    WindowGrid,
    candidate_tilings,
    mirror_index,
    mirror_span,
    paper_tiling,
    round_down,
    round_up,
)

PAPER = Geometry()
PADDED = Geometry(576, 576, 96, 16)

QUICK = settings(deadline=None, max_examples=60)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    factor = 2 ** draw(st.integers(0, 6))
    shrink = draw(st.integers(0, 100))
    margin = shrink + factor * draw(st.integers(0, 4))
    side = 2 * margin + factor + draw(st.integers(0, 600))
    return Geometry(side, side - 2 * shrink, margin, factor)


def _blocks() -> st.SearchStrategy[int]:
    return st.integers(1, 4).map(lambda chunks: chunks * CHUNK)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    geometry = draw(geometries())
    block = draw(_blocks()), draw(_blocks())
    factor = geometry.stride_factor
    least = round_up(64, factor)
    keep = tuple(
        draw(st.integers(least // factor, side // factor).map(lambda n: n * factor))
        for side in block
    )
    height, width = draw(st.integers(1, 2600)), draw(st.integers(1, 2600))
    return Tiling(height, width, block, keep, geometry)  # type: ignore[arg-type]


@given(st.integers(-10_000, 10_000), st.integers(1, 300))
@QUICK
def test_rounding_ends_on_a_multiple(value: int, multiple: int) -> None:
    down, up = round_down(value, multiple), round_up(value, multiple)
    assert down % multiple == up % multiple == 0
    assert down <= value <= up
    assert up - down in (0, multiple)


@given(st.integers(1, 40), st.integers(0, 300))
@QUICK
def test_the_mirror_is_numpy_s_reflect(size: int, margin: int) -> None:
    ours = [mirror_index(i, size) for i in range(-margin, size + margin)]
    assert ours == np.pad(np.arange(size), margin, mode="reflect").tolist()


@pytest.mark.parametrize("size", range(1, 12))
def test_a_mirrored_span_is_all_that_its_pixels_mirror_onto(size: int) -> None:
    for start in range(-40, 40):
        for length in range(1, 50):
            real = [mirror_index(i, size) for i in range(start, start + length)]
            assert mirror_span(start, length, size) == (min(real), max(real) + 1)


@given(st.integers(-5000, 5000), st.integers(1, 5000), st.integers(1, 2000))
@QUICK
def test_a_long_mirrored_span_is_too(start: int, length: int, size: int) -> None:
    real = [mirror_index(i, size) for i in range(start, start + length)]
    assert mirror_span(start, length, size) == (min(real), max(real) + 1)


windows = st.builds(
    Window,
    st.integers(-50, 50),
    st.integers(-50, 50),
    st.integers(1, 60),
    st.integers(1, 60),
)


def _pixels(window: Window | None) -> set[tuple[int, int]]:
    if window is None:
        return set()
    rows = range(window.y, window.stop_y)
    return {(y, x) for y in rows for x in range(window.x, window.stop_x)}


@given(windows, windows)
@QUICK
def test_an_intersection_holds_the_common_pixels(a: Window, b: Window) -> None:
    assert _pixels(a.intersect(b)) == _pixels(a) & _pixels(b)
    assert a.contains(b) == (_pixels(b) <= _pixels(a))
    assert a.area == len(_pixels(a))


@given(windows, st.integers(0, 9), windows)
@QUICK
def test_padding_and_shifting_keep_what_they_say(window: Window, by: int, origin: Window) -> None:
    grown = window.pad(by)
    assert grown.contains(window)
    assert (grown.y, grown.x) == (window.y - by, window.x - by)
    assert (grown.stop_y, grown.stop_x) == (window.stop_y + by, window.stop_x + by)
    shifted = window.shift(-origin.y, -origin.x)
    assert shifted.shape == window.shape
    assert window.slices(origin) == shifted.slices()


@pytest.mark.parametrize(("height", "width"), [(0, 1), (1, 0), (-1, 5)])
def test_a_window_without_pixels_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        Window(0, 0, height, width)


def test_the_paper_s_tile_steps_by_384() -> None:
    assert (PAPER.shrink, PAPER.margin, PAPER.step) == (92, 92, 384)
    assert PAPER.kept(1340) == 1152
    assert PAPER.input_for(1152) == 1340
    assert PAPER.smallest_input == 204
    assert not PAPER.is_valid(188)
    assert not PAPER.is_valid(580)
    assert PAPER.input_for(CHUNK) == CHUNK + 188
    # The 4 outputs beyond the step are cropped at the bottom and the right.
    assert PAPER.input_for(384) == 572
    assert PAPER.crop((384, 384)) == (slice(0, 384), slice(0, 384))


def test_the_padded_tile_steps_by_384_too() -> None:
    assert (PADDED.shrink, PADDED.step, PADDED.smallest_input) == (0, 384, 208)
    assert PADDED.crop((384, 400)) == (slice(96, 480), slice(96, 496))


@pytest.mark.parametrize("depth", range(1, 7))
def test_valid_windows_are_those_the_network_takes(depth: int) -> None:
    factor = 2**depth
    margin = 6 * factor - 4
    least = factor + 2 * margin
    side = least + (-4 - least) % factor
    geometry = Geometry(side, side - 2 * margin, margin, factor)

    def taken(size: int) -> int | None:
        for _ in range(depth):
            size -= 4
            if size < 2 or size % 2:
                return None
            size //= 2
        size -= 4
        for _ in range(depth):
            size = 2 * size - 4
        return size if size > 0 else None

    for size in range(1, 4 * side):
        output = taken(size)
        if geometry.is_valid(size):
            assert output == size - 2 * margin
            assert geometry.kept(size) <= output
        else:
            assert output is None or geometry.kept(size) == 0


@given(geometries(), st.integers(1, 60))
@QUICK
def test_a_window_keeps_just_what_it_was_made_for(geometry: Geometry, count: int) -> None:
    keep = count * geometry.stride_factor
    side = geometry.input_for(keep)
    assert geometry.is_valid(side)
    assert geometry.kept(side) == keep
    smaller = side - geometry.stride_factor
    assert geometry.kept(smaller) < keep
    assert geometry.kept(geometry.input) == geometry.step


@given(geometries(), st.integers(1, 9), st.integers(1, 9), st.integers(-9, 9), st.integers(-9, 9))
@QUICK
def test_what_is_kept_lies_in_the_output_a_margin_from_the_window_s_edge(
    geometry: Geometry, rows: int, columns: int, y: int, x: int
) -> None:
    factor = geometry.stride_factor
    kept = Window(y * factor, x * factor, rows * factor, columns * factor)
    window = geometry.window_for(kept)
    assert window.pad(-geometry.margin).contains(kept)
    output = window.pad(-geometry.shrink)
    crop = geometry.crop(kept.shape)
    assert crop == kept.slices(output)
    assert crop[0].stop <= output.height
    assert crop[1].stop <= output.width


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0, 1), "must be positive"),
        ((572, 600, 92, 16), "cannot give an output"),
        ((572, 387, 92, 16), "difference must be even"),
        ((572, 388, 91, 16), "the margin 91 must be 92"),
        ((572, 388, 100, 16), "multiple of the stride factor"),
        ((572, 388, 92, 3), "must divide 512"),
        ((196, 12, 92, 16), "too small"),
    ],
)
def test_a_geometry_that_does_not_hold_together_is_refused(
    arguments: tuple[int, int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry(*arguments)


@given(tilings())
@QUICK
def test_blocks_cover_every_pixel_once_and_share_no_chunk(tiling: Tiling) -> None:
    chunks: set[tuple[int, int]] = set()
    area = 0
    image = Window(0, 0, tiling.height, tiling.width)
    assert len(list(tiling)) == len(tiling) == tiling.shape[0] * tiling.shape[1]
    for number in tiling:
        block = tiling.block_window(number)
        assert image.contains(block)
        area += block.area
        assert block.y % CHUNK == block.x % CHUNK == 0
        for stop, size in ((block.stop_y, tiling.height), (block.stop_x, tiling.width)):
            assert stop % CHUNK == 0 or stop == size
        own = {
            (y, x)
            for y in range(block.y // CHUNK, -(-block.stop_y // CHUNK))
            for x in range(block.x // CHUNK, -(-block.stop_x // CHUNK))
        }
        assert not own & chunks
        chunks |= own
    assert area == image.area


@given(tilings())
@QUICK
def test_tiles_cover_their_block_on_the_phase_and_in_one_shape(tiling: Tiling) -> None:
    factor = tiling.geometry.stride_factor
    for number in tiling:
        block = tiling.block_window(number)
        covered = np.zeros(block.shape, bool)
        for patch in tiling.patches(number):
            tile = patch.keep
            assert tile.y % factor == tile.x % factor == 0
            assert tile.shape == tiling.keep
            assert (tile.y, tile.x) >= (block.y, block.x)
            inside = tile.intersect(block)
            assert inside is not None
            covered[inside.slices(block)] = True
            assert patch.read.shape == tiling.input
        assert covered.all()


@given(tilings())
@QUICK
def test_the_reach_of_a_block_is_the_smallest_window_around_what_its_tiles_read(
    tiling: Tiling,
) -> None:
    for number in tiling:
        reads = [patch.read for patch in tiling.patches(number)]
        assert tiling.full_reach(number) == Window.around(*reads)


@given(tilings())
@QUICK
def test_tiles_stay_within_a_whole_block(tiling: Tiling) -> None:
    for number in tiling:
        block = tiling.block_window(number)
        if block.shape == tiling.block:
            assert all(block.contains(patch.keep) for patch in tiling.patches(number))


@given(tilings())
@QUICK
def test_work_is_the_sum_over_tiles(tiling: Tiling) -> None:
    windows = [patch.read for number in tiling for patch in tiling.patches(number)]
    assert tiling.forward_passes == len(windows)
    assert tiling.work == sum(window.area for window in windows)


def test_tiles_of_a_clipped_block_end_with_the_image() -> None:
    tiling = Tiling(1000, 700, (1024, 1024), (384, 384), PAPER)
    patches = tiling.patches(0)
    assert sorted({patch.keep.y for patch in patches}) == [0, 384, 1008 - 384]
    assert sorted({patch.keep.x for patch in patches}) == [0, 704 - 384]


def test_a_tile_larger_than_a_clipped_block_reaches_past_it() -> None:
    tiling = Tiling(100, 1100, (1024, 1024), (512, 512), PAPER)
    (patch,) = tiling.patches(1)
    assert patch.keep == Window(0, 1024, 512, 512)
    assert patch.use == Window(0, 1024, 100, 76)
    assert tiling.block_window(1) == Window(0, 1024, 100, 76)


def test_the_paper_s_tiles_share_blocks_of_1536() -> None:
    tiling = paper_tiling(10_000, 10_000, PAPER)
    assert tiling.block == (1536, 1536)
    assert len(tiling.patches(0)) == 16
    assert {patch.keep.y for patch in tiling.patches(0)} == {0, 384, 768, 1152}
    assert tiling.input == (572, 572)
    assert paper_tiling(10_000, 10_000, PAPER, side=1340).keep == (1152, 1152)


@given(geometries(), st.integers(1, 5000), st.integers(1, 5000))
@QUICK
def test_every_model_has_a_paper_tiling(geometry: Geometry, height: int, width: int) -> None:
    tiling = paper_tiling(height, width, geometry)
    assert tiling.keep == (geometry.step, geometry.step)
    assert tiling.input[0] == geometry.input_for(geometry.step)


@given(
    st.sampled_from([PAPER, PADDED, Geometry(256, 256, 20, 4)]),
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.sampled_from([64, 500, 1152, 3000]),
)
@settings(deadline=None, max_examples=15)
def test_candidates_are_exact_tilings_within_the_limit(
    geometry: Geometry, height: int, width: int, largest_keep: int
) -> None:
    candidates = list(candidate_tilings(height, width, geometry, largest_keep))
    assert candidates
    for tiling in candidates:
        assert (tiling.height, tiling.width) == (height, width)
        for keep in tiling.keep:
            assert keep <= largest_keep
            assert keep % geometry.stride_factor == 0
    fewest = min(candidates, key=lambda tiling: tiling.forward_passes)
    ordinary = paper_tiling(height, width, geometry, geometry.input_for(64))
    assert fewest.forward_passes <= ordinary.forward_passes


@pytest.mark.slow
@given(st.integers(1, 2500), st.integers(1, 2500))
@settings(deadline=None, max_examples=8)
def test_candidates_cover_the_image(height: int, width: int) -> None:
    for tiling in candidate_tilings(height, width, PAPER, 1152):
        covered = np.zeros((height, width), bool)
        image = Window(0, 0, height, width)
        for number in tiling:
            for patch in tiling.patches(number):
                covered[patch.use.slices(image)] = True
        assert covered.all()


@pytest.mark.parametrize(
    ("height", "width", "block", "keep", "message"),
    [
        (0, 5, (512, 512), (384, 384), "is empty"),
        (5, 5, (500, 512), (384, 384), "not a multiple of the chunk size"),
        (5, 5, (512, 0), (384, 384), "not a multiple of the chunk size"),
        (5, 5, (512, 512), (528, 384), "do not fit a block"),
        (5, 5, (512, 512), (384, 0), "do not fit a block"),
        (5, 5, (512, 512), (384, 388), "multiple of the stride factor"),
    ],
)
def test_a_tiling_that_does_not_hold_together_is_refused(
    height: int, width: int, block: tuple[int, int], keep: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Tiling(height, width, block, keep, PAPER)


@pytest.mark.parametrize("size", [1, 300, 2049, 4096, 5000, 20_000, 32_768, 100_000])
def test_no_window_of_less_work_is_passed_over(size: int) -> None:
    geometry = Geometry()
    found = min(t.work for t in candidate_tilings(size, size, geometry, 2048))
    least = found
    for keep in range(16, min(2048, round_up(size, 16)) + 1, 16):
        for block in range(round_up(keep, 512), round_up(min(size, 4096), 512) + 1, 512):
            tiling = Tiling(size, size, (block, block), (keep, keep), geometry)
            least = min(least, tiling.work)
    assert found == least


@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(1, 400), st.integers(1, 400),
    st.integers(1, 200),
)  # fmt: skip
def test_windows_along_chunks_cover_each_pixel_once(
    height: int, width: int, rows: int, columns: int, side: int
) -> None:
    grid = WindowGrid.along_chunks((height, width), (rows, columns), side)
    covered = np.zeros((height, width), int)
    for window in grid:
        covered[window.slices()] += 1
        # A chunk is decoded once, or in as few windows as its rows allow.
        assert window.x % columns == 0 or columns >= width
    assert (covered == 1).all()
    assert grid.tile[1] <= max(side, columns)


def test_a_grid_of_a_part_of_an_image_starts_at_the_part() -> None:
    grid = WindowGrid(Window(3, 5, 4, 6), (3, 4))
    assert list(grid) == [
        Window(3, 5, 3, 4), Window(3, 9, 3, 2), Window(6, 5, 1, 4), Window(6, 9, 1, 2),
    ]  # fmt: skip
