"""Which coarser chunks blocks write, and what the ledger tells of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.products.making import make_spec
from tilepipe.engine.events import BlockReport
from tilepipe.engine.state.coarser import own_parts, written_with_blocks
from tilepipe.engine.state.ledger import Ledger
from tilepipe.grid import CHUNK, Geometry, Tiling

GEOMETRY = Geometry(32, 32, 0, 16)


def plan_of(height: int, width: int, rows: int, columns: int, **more: Any) -> Any:
    tiling = Tiling(height, width, (rows * CHUNK, columns * CHUNK), (16, 16), GEOMETRY)
    facts = {"tiling": tiling, "mask": make_spec((height, width)), "like_image": None}
    return SimpleNamespace(**facts | more)


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 8), st.integers(1, 8))
def test_parts_of_blocks_are_of_the_same_levels_and_cover_them_once(
    height: int, width: int, rows: int, columns: int
) -> None:
    plan = plan_of(height, width, rows, columns)
    parts = [own_parts(plan, number) for number in plan.tiling]
    assert len({len(own) for own in parts}) == 1
    for level, of_level in enumerate(zip(*parts, strict=True), 1):
        size = plan.mask.levels[level]
        assert sum(part.area for part in of_level) == size[0] * size[1]
        assert all(part.y % CHUNK == part.x % CHUNK == 0 for part in of_level)


def test_blocks_of_2048_have_parts_of_two_levels_and_those_of_1536_none() -> None:
    assert len(own_parts(plan_of(9000, 9000, 4, 4), 0)) == 2
    assert own_parts(plan_of(9000, 9000, 3, 3), 0) == []
    assert own_parts(plan_of(4608, 4608, 3, 3), 8) == []
    assert own_parts(plan_of(9000, 9000, 4, 4, like_image=object()), 0) == []


def test_what_has_changed_since_no_longer_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger"

    def report(number: int, *coarser: str) -> dict[str, Any]:
        return BlockReport(number, (), 0, 0, 0, 0, 0, "", 0, coarser=coarser).to_record()

    with Ledger(path) as ledger:
        for record in (report(0, "a", "b"), report(1, "c", "d"), report(2, "e", "f"), report(3)):
            ledger.append(record)
        assert written_with_blocks(path, 1) == {0: "a", 1: "c", 2: "e"}
        assert written_with_blocks(path, 3) == {}
        ledger.append({"kind": "changed", "number": 1})
        ledger.append({"kind": "damaged", "name": "m.tif"})
        ledger.append(report(2, "g", "h"))
        assert written_with_blocks(path, 1) == {0: "a", 2: "g"}
        ledger.append({"kind": "damaged", "level": 2})
        assert written_with_blocks(path, 1) == {0: "a", 2: "g"}
        assert written_with_blocks(path, 2) == {}
        ledger.append({"kind": "changed", "level": 1})
        assert written_with_blocks(path, 1) == {}
