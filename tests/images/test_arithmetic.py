"""Pyramid arithmetic: which images are levels, and the mean of four pixels."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.images.halving import halve
from tilepipe.images.levels import pyramid

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int64", "uint64"]


@given(
    st.sampled_from(DTYPES), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(0)
)
def test_the_mean_of_whole_numbers_is_rounded_half_up(
    dtype: str, height: int, width: int, bands: int, seed: int
) -> None:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(limits.min, limits.max, (height, width, bands), dtype, endpoint=True)
    half, valid = halve(pixels, None, np.zeros(bands))
    assert valid is None
    assert half.dtype == pixels.dtype
    assert half.shape == (-(-height // 2), -(-width // 2), bands)
    for y, x, band in np.ndindex(half.shape):
        four = [
            int(pixels[min(2 * y + i, height - 1), min(2 * x + j, width - 1), band])
            for i in (0, 1)
            for j in (0, 1)
        ]
        assert int(half[y, x, band]) == (Fraction(sum(four), 4) + Fraction(1, 2)) // 1


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_all_valid_is_the_same_as_no_mask(dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 120, (9, 12, 2)).astype(dtype)
    masked, some = halve(pixels, np.ones((9, 12, 1), bool), np.zeros(2))
    np.testing.assert_array_equal(masked, halve(pixels, None, np.zeros(2))[0])
    assert some is not None
    assert some.all()


def test_pixels_of_no_data_are_left_out_of_the_mean() -> None:
    pixels: Any = np.array([[10, 255, 255, 255], [20, 255, 255, 255]], np.uint8)[..., None]
    half, valid = halve(pixels, pixels != 255, np.array([255.0]))
    assert half[..., 0].tolist() == [[15, 255]]
    assert valid is not None
    assert valid[..., 0].tolist() == [[True, False]]


def test_nan_is_left_out_of_the_mean() -> None:
    pixels: Any = np.array([[1.0, np.nan, np.nan, np.nan]] * 2, np.float32)[..., None]
    half, _ = halve(pixels, np.isfinite(pixels), np.array([np.nan]))
    np.testing.assert_array_equal(half[..., 0], [[1.0, np.nan]])


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 6), st.booleans())
def test_halved_sizes_are_levels_however_rounded(
    height: int, width: int, count: int, up: bool
) -> None:
    sizes = [(height, width)]
    for _ in range(count):
        y, x = sizes[-1]
        smaller = (-(-y // 2), -(-x // 2)) if up else (y // 2, x // 2)
        if min(smaller) < 8:
            break
        sizes.append(smaller)
    levels = pyramid(sizes)
    assert [levels[i].scale_y for i in range(len(sizes))] == [2.0**i for i in range(len(sizes))]


@pytest.mark.parametrize(
    "other",
    [(431, 1280), (768, 768), (2967, 2220), (3000, 2300), (1, 700)],
    ids=["macro", "another aspect", "as large", "larger", "a line"],
)
def test_other_images_of_a_file_are_no_levels(other: tuple[int, int]) -> None:
    assert set(pyramid([(2967, 2220), other, (742, 555)])) == {0, 2}
