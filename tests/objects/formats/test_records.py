"""Values as files have them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.objects.formats.records import shortest, unlike


def test_values_have_few_digits() -> None:
    assert shortest(np.array([0.1, 1e-3, 2.5e6], np.float32)).tolist() == [0.1, 0.001, 2.5e6]
    noise = np.array([0.030000000000000006, 3285102.9000000004, -1197.6500000000003])
    assert shortest(noise).tolist() == [0.03, 3285102.9, -1197.65]
    assert shortest(np.array([7], np.int16)).tolist() == [7]


def test_values_that_are_no_numbers_stay() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, 1e300, 1e-300])
    assert np.array_equal(shortest(odd), odd, equal_nan=True)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_are_the_same_when_read_again(value: float) -> None:
    (found,) = shortest(np.array([value], np.float32))
    assert np.float32(found) == np.float32(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float64_change_by_less_than_anything_measured(value: float) -> None:
    (found,) = shortest(np.array([value]))
    assert abs(found - value) <= abs(value) * 1e-11


def test_names_are_made_unlike() -> None:
    assert unlike(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
