"""Medians in passes over values, against those of values in memory."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.objects.medians import medians

floats = st.floats(allow_nan=False, allow_infinity=False, width=64).map(lambda v: v / 4)


@given(st.lists(st.tuples(st.integers(0, 2), floats | st.sampled_from([0.0, -0.0, 1.5]))))
def test_medians_are_those_of_each_group(pairs):
    groups = np.array([group for group, _ in pairs], np.intp)
    values = np.array([value for _, value in pairs], np.float64)

    def parts():
        for start in range(0, len(values), 3):
            yield groups[start : start + 3], values[start : start + 3]

    found = medians(parts, np.bincount(groups, minlength=3))
    for group in range(3):
        mine = np.sort(values[groups == group])
        if not len(mine):
            assert np.isnan(found[group])
            continue
        low, high = mine[(len(mine) - 1) // 2], mine[len(mine) // 2]
        assert found[group] == low + (high - low) / 2
        np.testing.assert_allclose(found[group], np.median(mine), rtol=1e-12)
