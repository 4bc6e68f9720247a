"""Specks joined to the neighbour with the longest common border, against one pixel at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tilepipe.objects.specks import SpeckBorders, absorb, speck_borders, summed

OBJECTS = 6

maps = arrays.arrays(
    np.int32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.integers(0, OBJECTS),
)
tables = arrays.arrays(np.bool_, OBJECTS + 1, elements=st.booleans())


def by_pixels(ids, is_speck):
    """The counts of all pairs, one pixel at a time."""
    counts = Counter()
    for y, x in np.ndindex(ids.shape):
        for other in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if not (0 <= other[0] < ids.shape[0] and 0 <= other[1] < ids.shape[1]):
                continue
            speck, neighbour = int(ids[y, x]), int(ids[other])
            if speck and neighbour and is_speck[speck] and not is_speck[neighbour]:
                counts[speck, neighbour] += 1
    return counts


def by_pair(borders):
    return {(int(s), int(n)): int(e) for s, n, e in zip(*borders, strict=True)}


@given(maps, tables)
def test_counts_each_edge_between_a_speck_and_an_object_that_is_none(ids, is_speck):
    borders = speck_borders(ids, is_speck)
    assert by_pair(borders) == by_pixels(ids, is_speck)
    assert all(part.dtype == np.int64 for part in borders)


@given(maps, tables, st.integers(1, 5), st.integers(1, 5))
def test_counts_of_windows_add_up_to_those_of_the_image(ids, is_speck, height, width):
    parts = [
        speck_borders(ids[y : y + height + 1, x : x + width + 1], is_speck, (height, width))
        for y in range(0, ids.shape[0], height)
        for x in range(0, ids.shape[1], width)
    ]
    whole = speck_borders(ids, is_speck)
    for found, expected in zip(summed(parts), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    for each in (absorb(is_speck, *np.concatenate(parts, 1)), absorb(is_speck, *whole)):
        np.testing.assert_array_equal(each, expected_of(by_pixels(ids, is_speck), is_speck))


def expected_of(counts, is_speck):
    becomes = []
    for number in range(len(is_speck)):
        beside = [(-edges, n) for (speck, n), edges in counts.items() if speck == number]
        becomes.append(number if not is_speck[number] else min(beside)[1] if beside else 0)
    return becomes


def test_no_windows_have_no_borders():
    assert by_pair(summed([])) == {}
    assert absorb(np.array([False, True]), *summed([])).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("edges", "taken"), [((3, 3), 2), ((3, 4), 5)], ids=["a tie", "the longer one"]
)
def test_speck_joins_the_longest_border_and_the_lower_number_at_a_tie(edges, taken):
    is_speck = np.array([False, False, False, True, False, False])
    borders = SpeckBorders(np.array([3, 3]), np.array([5, 2]), np.array(edges[::-1]))
    assert absorb(is_speck, *borders)[3] == taken


def test_specks_beside_specks_alone_become_none():
    ids = np.array([[1, 2, 0, 3]])
    is_speck = np.array([False, True, True, False])
    assert absorb(is_speck, *speck_borders(ids, is_speck)).tolist() == [0, 0, 0, 3]


def test_background_that_is_marked_as_a_speck_is_none():
    ids = np.array([[0, 1]])
    assert by_pair(speck_borders(ids, np.array([True, False]))) == {}
