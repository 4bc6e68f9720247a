"""Blocks that do not come back are said to be late; the clock is the test's."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tilepipe.engine.cluster import pool
from tilepipe.engine.cluster.pool import Task, TaskPool
from tilepipe.engine.cluster.watchdog import PATIENCE, TIMES_USUAL, Watchdog
from tilepipe.engine.cluster.workers import Workers
from tilepipe.errors import EnvironmentFailure
from tilepipe.text import duration


def _fit() -> dict[str, str]:
    return {}


def items(late: list[tuple[str, Any, float]]) -> list[Any]:
    return [item for _, item, _ in late]


def test_a_block_is_late_after_a_quarter_of_an_hour_and_each_time_that_doubles() -> None:
    dog = Watchdog()
    dog.submitted("a", 1, 0)
    dog.submitted("b", 2, 600)
    assert items(dog.late(PATIENCE - 1)) == []
    assert items(dog.late(PATIENCE)) == [1]
    assert items(dog.late(PATIENCE + 1)) == []
    assert items(dog.late(2 * PATIENCE - 1)) == [2]
    assert items(dog.late(2 * PATIENCE)) == [1]


def test_a_block_that_came_back_is_not_late() -> None:
    dog = Watchdog()
    dog.submitted("a", 1, 0)
    dog.finished("a", 1)
    dog.finished("never sent", 2)
    assert dog.late(1e9) == []


def test_slow_blocks_have_more_time() -> None:
    dog = Watchdog()
    for number in range(9):
        dog.submitted(str(number), number, 0)
        dog.finished(str(number), 100)
    dog.submitted("x", "x", 100)
    assert dog.late(100 + TIMES_USUAL * 100 - 1) == []
    assert items(dog.late(100 + TIMES_USUAL * 100)) == ["x"]


def test_with_a_timeout_it_is_said_at_half_of_it_and_ends_at_all_of_it() -> None:
    dog = Watchdog(timeout=60)
    assert dog.late(1e6) == []  # nothing is out
    dog.submitted("a", 1, 1e6)
    assert items(dog.late(1e6 + 30)) == [1]
    dog.submitted("b", 2, 1e6 + 50)
    dog.finished("b", 1e6 + 55)
    assert dog.late(1e6 + 114) == [("a", 1, 114.0)]
    with pytest.raises(EnvironmentFailure, match="no block finished for 60 s"):
        dog.late(1e6 + 115)


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (5.4, 119, 900)] == ["5.4 s", "2 min", "15 min"]


_let_go = threading.Event()


def _hangs(number: int) -> int:
    if number:
        _let_go.wait(600)
    return number


def test_a_task_that_hangs_is_told_of_and_ends_the_run_when_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from distributed import Client, LocalCluster

    told: list[Any] = []
    step, now = 0.0, 0.0  # the clock stands until the first task is back

    def monotonic() -> float:
        nonlocal now
        now += step
        return now

    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
    _let_go.clear()
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, protocol="inproc://",
            dashboard_address="127.0.0.1:0",
        ) as local,
        Client(local, set_as_default=False) as client,
    ):  # fmt: skip
        workers = Workers(client, wait=60)
        workers.ask(_fit)
        task_pool = TaskPool(
            workers, 0, timeout=1.0,
            on_late=lambda tasks, seconds, worker: told.append((tasks[0].label, worker)),
        )  # fmt: skip
        outcomes = task_pool.run([Task(_hangs, (0,), 0), Task(_hangs, (1,), 1)])
        first = next(outcomes)
        assert (first.task.label, first.value) == (0, 0)
        step = 0.6
        with pytest.raises(EnvironmentFailure, match="no block finished"):
            next(outcomes)
        _let_go.set()
    assert [number for number, _ in told] == [1]
    assert told[0][1].startswith("inproc://")
