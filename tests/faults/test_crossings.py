"""Whatever features a run has, whatever happens to it: the bytes of an undisturbed run.

Each feature meets each event, and each feature each other one, in one of the rows. By default the
first rows run, in which each feature and each event is; `TILEPIPE_LONG=1` runs all.
"""

from __future__ import annotations

import os
import sys
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from tests.faults.crossings import EVENTS, FEATURES, Bench, Row, Setting, Trial, rows
from tests.zygote import Zygote

pytestmark = pytest.mark.slow

ROWS = rows(FEATURES, EVENTS)
FIRST = ROWS if "TILEPIPE_LONG" in os.environ else ROWS[: len(EVENTS)]


def _row(row: Row) -> Any:
    event, features = row
    return pytest.param(*row, id=f"{event}: {', '.join(sorted(features))}")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Bench:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    return Bench(tmp_path_factory.mktemp("crossings"), zygote)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks runs as Linux does")
@pytest.mark.parametrize(("event", "features"), [_row(row) for row in FIRST])
def test_the_bytes_are_those_of_an_undisturbed_run(
    event: str, features: frozenset[str], bench: Bench, tmp_path: Path
) -> None:
    EVENTS[event](Trial(bench, Setting(features), tmp_path))


def test_every_pair_meets_in_a_row() -> None:
    met = {
        frozenset(pair) for event, features in ROWS for pair in combinations((event, *features), 2)
    }
    wanted = [*combinations(FEATURES, 2), *product(FEATURES, EVENTS)]
    assert [pair for pair in wanted if frozenset(pair) not in met] == []
    assert {event for event, _ in FIRST} == set(EVENTS)
    assert frozenset().union(*(features for _, features in FIRST)) == set(FEATURES)
