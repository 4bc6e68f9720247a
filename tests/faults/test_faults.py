"""The fault suite in its short form: each kind of fault once. `make faults` is the long one."""

from __future__ import annotations

import sys

import pytest

from tests.faults.scene import Scene, permitted
from tests.faults.trials import KINDS, attempt, needs
from tests.zygote import Zygote

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="looks at processes as Linux shows them"
    ),
]

CASE = {
    kind: "two workers" if "worker" in kind else ("one process", "COG only")[number % 2]
    for number, kind in enumerate(KINDS)
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.make(tmp_path_factory.mktemp("faults"), small=True)


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_fault_the_same_command_ends_with_the_same_bytes(
    kind: str, scene: Scene, zygote: Zygote
) -> None:
    if reason := needs(kind):
        pytest.skip(reason)
    outcome = attempt(scene, zygote, scene.cases[CASE[kind]], kind, 0)
    assert outcome.faults == []
    assert outcome.same
    assert (outcome.wrong, outcome.lost) == (0, 0)


def test_the_judge_permits_the_margin_and_no_more() -> None:
    mask = permitted((40, 50), [(slice(20, 21), slice(30, 31))], 8)
    assert mask.sum() == 17 * 17
    assert mask[12:29, 22:39].all()
    # Near an edge the mirror brings a pixel back in, from which nothing follows inside.
    assert permitted((40, 50), [(slice(0, 1), slice(0, 1))], 8)[:9, :9].sum() == 81
