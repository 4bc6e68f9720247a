"""Objects across windows are those of the whole image, whatever the windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.objects import oracle
from tests.objects.windows import numbers_of
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects.job import side_for
from tilepipe.objects.rules import BORDER


def expected(labels: NDArray[Any], rule: ObjectRule) -> NDArray[Any]:
    parts = np.array([0, 1, 2, BORDER if rule.border else 3] + [255] * 252, np.uint8)[labels]
    if rule.fill_holes:
        parts = oracle.filled(parts, rule.max_hole)
    least = rule.min_area if rule.specks == "drop" and rule.method != "seeded" else 0
    if rule.method == "split":
        found = oracle.split(parts, rule.depth, least)
    else:
        found = oracle.components(np.where(parts < 253, parts, 0), least)
    if rule.method == "seeded":
        found = oracle.grown(found, parts == BORDER, rule.reach)
    if rule.specks == "merge":
        found = oracle.merged(found, rule.min_area)
    elif rule.method == "seeded":
        found = oracle.numbered(found, rule.min_area)
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[Any], ObjectRule, int]:
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = draw(st.sampled_from([(5, 4, 1, 1), (2, 6, 1, 1), (1, 8, 0, 1), (4, 4, 4, 0)]))
    share = np.array((*weights, 0.2))
    values = rng.choice(
        np.array([0, 1, 2, 3, 255], np.uint8), (height, width), p=share / share.sum()
    )
    if draw(st.booleans()):  # blobs instead of noise
        values = np.kron(values, np.ones((3, 3), np.uint8))[:height, :width]
    method = draw(st.sampled_from(["components", "seeded", "split"]))
    rule = ObjectRule(
        method=method,
        classes=("a", "b"),
        border="border" if method == "seeded" else "",
        reach=draw(st.integers(0, 5)),
        depth=draw(st.sampled_from([1 / 64, 0.25, 1.0, 2.0])),
        min_area=draw(st.integers(0, 6)),
        specks=draw(st.sampled_from(["drop", "merge"])),
        fill_holes=draw(st.booleans()),
        max_hole=draw(st.integers(0, 4)),
    )
    return values, rule, draw(st.integers(max(1, max(height, width) // 4), 12))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cases())
def test_windows_do_not_change_objects(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[NDArray[Any], ObjectRule, int]
) -> None:
    labels, rule, side = case
    found = numbers_of(tmp_path_factory.mktemp("numbering"), labels, rule, side)
    assert (found == expected(labels, rule)).all()


@pytest.mark.parametrize(
    ("memory", "at_once", "side"),
    [
        (700, 3, 512),
        (800, 3, 512),
        (1000, 3, 1024),
        (1000, 1, 1024),
        (4000, 3, 2048),
        (300, 9, 512),
    ],
)  # fmt: skip
def test_windows_are_as_large_as_memory_allows(memory: int, at_once: int, side: int) -> None:
    assert side_for(memory * 10**6, at_once) == side
