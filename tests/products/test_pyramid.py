from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tests.products.making import (
    KINDS,
    NO_ANSWER,
    make_content,
    make_mask,
    make_spec,
    tree,
    whole,
)
from tilepipe.grid import CHUNK, Window, WindowGrid
from tilepipe.products.pyramid import (
    build_pyramid,
    downsample_block,
    pyramid_blocks,
    within,
    write_parts,
)
from tilepipe.products.reduction import mean, mode, rounded_mean
from tilepipe.products.store import create_mask


def mode_by_loop(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = labels.shape
    out = np.zeros((-(-height // 2), -(-width // 2)), np.uint8)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            four = labels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()
            votes = Counter(value for value in four if value != NO_ANSWER)
            most = max(votes.values(), default=0)
            winners = [value for value, count in votes.items() if count == most]
            out[y, x] = min(winners, default=NO_ANSWER)
    return out


def mean_by_loop(values: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = values.shape
    out = np.full((-(-height // 2), -(-width // 2)), np.nan, np.float32)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            four = values[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().astype(np.float64)
            known = four[~np.isnan(four)]
            if known.size:
                out[y, x] = known.sum() / known.size
    return out


FEW_LABELS = st.sampled_from([0, 1, 2, 3, 254, 255])
SMALL = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)


@given(hnp.arrays(np.uint8, SMALL, elements=FEW_LABELS))
def test_a_label_is_the_mode_of_its_four_and_the_lower_one_in_a_tie(
    labels: NDArray[np.uint8],
) -> None:
    np.testing.assert_array_equal(mode(labels, NO_ANSWER), mode_by_loop(labels))


def test_every_combination_of_four_labels_gives_its_mode() -> None:
    values = np.array([0, 1, 2, 3, 255], np.uint8)
    fours = np.stack(np.meshgrid(*[values] * 4, indexing="ij"), -1).reshape(-1, 2, 2)
    strip = np.concatenate(list(fours), axis=1)
    np.testing.assert_array_equal(mode(strip, NO_ANSWER), mode_by_loop(strip))


@given(
    hnp.arrays(np.float32, SMALL, elements=st.floats(-1e6, 1e6, width=32) | st.just(float("nan")))
)
def test_a_value_is_the_mean_of_those_of_its_four_that_are_known(
    values: NDArray[np.float32],
) -> None:
    np.testing.assert_array_equal(mean(values), mean_by_loop(values))


def test_four_large_values_do_not_overflow() -> None:
    large = np.full((2, 2), np.finfo(np.float32).max)
    assert mean(large)[0, 0] == np.finfo(np.float32).max


def test_planes_are_reduced_one_by_one() -> None:
    planes = np.random.default_rng(0).integers(0, 3, (3, 7, 5)).astype(np.uint8)
    np.testing.assert_array_equal(
        mode(planes, NO_ANSWER), np.stack([mode_by_loop(plane) for plane in planes])
    )


def test_stored_probabilities_are_averaged_without_those_missing() -> None:
    stored = np.array([[[254, 253, 255], [255, 255, 255], [10, 255, 255]]], np.uint8)
    np.testing.assert_array_equal(rounded_mean(stored, NO_ANSWER), [[[254, 255], [10, 255]]])


def test_stored_halves_are_averaged_as_values() -> None:
    stored = np.array([[[0.5, 0.25], [np.nan, np.nan]]], np.float16)
    np.testing.assert_array_equal(mean(stored), [[[0.375]]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (513, 1), (1025, 700), (2100, 600)])
def test_each_level_is_the_one_before_it_reduced(
    tmp_path: Path, kind: Any, shape: tuple[int, int]
) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec(shape, kind))
    reduce = mask.spec.product.reduce
    expected = make_content(mask.spec)
    for level, size in enumerate(mask.levels):
        assert expected.shape[-2:] == size
        np.testing.assert_array_equal(mask.read(whole(size), level), expected)
        expected = reduce(expected)


def test_units_cover_each_level_once_and_keep_to_chunks(tmp_path: Path) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec((9000, 5000)))
    blocks = pyramid_blocks(mask)
    assert sorted(blocks) == list(range(1, len(mask.levels)))
    for level, windows in blocks.items():
        height, width = mask.levels[level]
        assert sum(window.area for window in windows) == height * width
        assert all(w.y % CHUNK == 0 and w.x % CHUNK == 0 for w in windows)
        assert all(max(w.shape) <= 2048 for w in windows)


def test_units_are_those_above_what_was_computed(tmp_path: Path) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec((9000, 5000)))
    everywhere = pyramid_blocks(mask)
    computed = [Window(8192, 4096, 808, 904), Window(0, 1024, 512, 512)]
    for level, windows in pyramid_blocks(mask, computed).items():
        above = [
            unit
            for unit in everywhere[level]
            if any(_covers(unit, level, window) for window in computed)
        ]
        assert windows == above
    assert sum(map(len, pyramid_blocks(mask, computed).values())) == 2 + 2 + 1 + 1 + 1
    assert not any(pyramid_blocks(mask, []).values())


def _covers(unit: Window, level: int, window: Window) -> bool:
    factor = 2**level
    below = Window(unit.y * factor, unit.x * factor, unit.height * factor, unit.width * factor)
    return below.intersect(window) is not None


def test_what_was_never_written_stays_unwritten(tmp_path: Path) -> None:
    mask = create_mask(tmp_path / "m.ome.zarr", make_spec((1025, 700)))
    downsample_block(mask, 1, pyramid_blocks(mask)[1][0])
    assert not (tmp_path / "m.ome.zarr" / "1" / "c").exists()


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 8), st.integers(1, 8), st.data())
def test_a_block_writes_those_chunks_of_coarser_levels_that_no_other_block_touches(
    height: int, width: int, rows: int, columns: int, data: st.DataObject
) -> None:
    levels = make_spec((height, width)).levels
    block = rows * CHUNK, columns * CHUNK
    row = data.draw(st.integers(0, (height - 1) // block[0]))
    column = data.draw(st.integers(0, (width - 1) // block[1]))
    window = WindowGrid(Window(0, 0, height, width), block).window(row, column)
    parts = within(window, levels)
    assert len(parts) < len(levels)
    for level, part in enumerate(parts, 1):
        for own, size, side, at in (
            ((part.y, part.stop_y), levels[level][0], (window.y, window.stop_y), height),
            ((part.x, part.stop_x), levels[level][1], (window.x, window.stop_x), width),
        ):
            assert own[0] % CHUNK == 0
            assert own[1] % CHUNK == 0 or own[1] == size
            assert own[0] * 2**level == side[0]
            assert own[1] * 2**level == side[1] or side[1] == at
    if len(parts) + 1 < len(levels):
        factor = CHUNK * 2 ** (len(parts) + 1)
        ends = (window.stop_y, height), (window.stop_x, width)
        shared = [start % factor != 0 for start in (window.y, window.x)]
        shared += [stop % factor != 0 and stop != size for stop, size in ends]
        assert any(shared), "the next level would have been the block's own, too"


@pytest.mark.parametrize("kind", KINDS)
def test_what_blocks_write_of_coarser_levels_is_what_is_made_of_the_whole_mask(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilepipe.products.pyramid.STRIP_BYTES", 100_000)
    spec = make_spec((1100, 1061), kind)
    make_mask(tmp_path / "whole.ome.zarr", spec)
    mask = create_mask(tmp_path / "blocks.ome.zarr", spec)
    content = make_content(spec)
    for window in WindowGrid(whole(mask.shape), (1024, 1024)):
        pixels = np.ascontiguousarray(content[(..., *window.slices(whole(mask.shape)))])
        mask.write(window, pixels)
        parts = within(window, mask.levels)
        assert len(parts) == 1
        write_parts(mask, parts, (pixels,))
    assert tree(tmp_path / "blocks.ome.zarr" / "1") == tree(tmp_path / "whole.ome.zarr" / "1")
    build_pyramid(mask)
    assert tree(tmp_path / "blocks.ome.zarr") == tree(tmp_path / "whole.ome.zarr")


@pytest.mark.parametrize("probabilities", ["float16", "uint8"])
def test_probabilities_have_the_same_levels(tmp_path: Path, probabilities: Any) -> None:
    mask = make_mask(tmp_path / "m.ome.zarr", make_spec(), probabilities=probabilities)
    layer = mask.layer("probabilities")
    for level, size in enumerate(mask.levels[1:], start=1):
        above = layer.read(whole(mask.levels[level - 1]), level - 1)
        np.testing.assert_array_equal(layer.read(whole(size), level), layer.product.reduce(above))
