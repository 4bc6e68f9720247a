"""The worker inside this process, and bundles of short tasks: no task is lost or made twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tilepipe.engine.cluster import bundle
from tilepipe.engine.cluster.bundle import MOST, Answers, Pace, call_in_turn
from tilepipe.engine.cluster.in_process import InProcessClient
from tilepipe.engine.cluster.pool import Task, TaskPool
from tilepipe.engine.cluster.workers import Workers
from tilepipe.errors import EnvironmentFailure, InputError


def _fit() -> dict[str, str]:
    return {}


@pytest.fixture
def workers() -> Iterator[Workers]:
    with InProcessClient(3) as client:
        workers = Workers(client, wait=60)
        workers.ask(_fit)
        yield workers


def numbered(function: Any, last: int) -> Iterator[Task]:
    return (Task(function, (number,), number) for number in range(last))


def test_each_of_many_short_tasks_comes_back_once_and_few_are_in_hand(workers: Workers) -> None:
    drawn, most = 0, 0

    def tasks() -> Iterator[Task]:
        nonlocal drawn
        for task in numbered(abs, 3000):
            drawn += 1
            yield task

    values = []
    for outcome in TaskPool(workers, retries=0).run(tasks()):
        values.append(outcome.value)
        most = max(most, drawn - len(values))
    assert sorted(values) == list(range(3000))
    assert 4 < most <= 4 * MOST  # several travelled together


def test_what_raises_among_short_tasks_is_tried_again_alone(workers: Workers) -> None:
    tries: list[int] = []

    def odd(number: int) -> int:
        if number % 100 == 50:
            tries.append(number)
            if number != 150 or tries.count(number) < 3:
                raise ValueError(f"no {number}")
        return number

    outcomes = {o.task.label: o for o in TaskPool(workers, retries=2).run(numbered(odd, 1000))}
    failed = {number for number, outcome in outcomes.items() if outcome.error is not None}
    assert failed == {number for number in range(50, 1000, 100) if number != 150}
    assert sorted(tries) == sorted(3 * list(range(50, 1000, 100)))
    assert all(o.value == number for number, o in outcomes.items() if number not in failed)


def test_a_full_disk_in_a_bundle_ends_the_run(workers: Workers) -> None:
    def full(number: int) -> int:
        if number == 700:
            raise OSError(28, "No space left on device", "chunk")
        return number

    with pytest.raises(EnvironmentFailure, match="make room"):
        for _ in TaskPool(workers, retries=2).run(numbered(full, 1000)):
            pass


def test_what_was_drawn_does_not_wait_for_what_is_long_in_coming(workers: Workers) -> None:
    pool = TaskPool(workers, retries=0)
    last = threading.Event()

    def answer(number: int) -> int:
        if number == 599:
            last.set()
        return number

    def tasks() -> Iterator[Task | None]:
        yield from numbered(answer, 600)
        yield None
        assert last.wait(600), "all before are computed meanwhile"
        yield Task(answer, (600,), 600)

    done = [outcome.value for outcome in pool.run(tasks())]
    assert sorted(done) == list(range(601))


def test_a_bundle_ends_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def slow(number: int) -> int:
        nonlocal now
        now += 1
        return number

    monkeypatch.setattr(bundle.time, "perf_counter", lambda: now)
    answers = call_in_turn([(slow, (number,)) for number in range(10)], 3.0)
    assert (answers.found, answers.seconds) == ([(0, None), (1, None), (2, None)], 3.0)
    assert len(call_in_turn([(slow, (0,))] * 2, 0.0).found) == 1


def test_bundles_grow_while_tasks_are_short_and_shrink_at_once() -> None:
    def of(count: int, seconds: float) -> Answers:
        return Answers([(None, None)] * count, seconds)

    pace, sizes = Pace(), []
    for _ in range(10):
        pace.note(of(pace.tasks, 0.0))
        sizes.append(pace.tasks)
    assert sizes == [2, 4, 8, 16, 32, 64, MOST, MOST, MOST, MOST]
    pace.note(of(2, 3.0))
    assert pace.tasks == 1
    pace.note(of(1, 0.02))
    assert pace.tasks == 2


class _RootedError(Exception):
    def __init__(self) -> None:
        super().__init__("holds what belongs to one process")
        self.lock = threading.Lock()


def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    def fail() -> None:
        raise _RootedError()

    ((_, error),) = call_in_turn([(fail, ())], 1.0).found
    assert str(error) == "_RootedError: holds what belongs to one process"


def test_a_run_that_ends_early_leaves_no_thread_and_begins_nothing_more() -> None:
    began, go = [], threading.Event()

    def wait(number: int) -> None:
        began.append(number)
        go.wait(600)

    with InProcessClient(2) as client:
        workers = Workers(client, wait=60)
        workers.ask(_fit)
        outcomes = TaskPool(workers, 0, timeout=0.05).run(numbered(wait, 10))
        with pytest.raises(EnvironmentFailure, match="no block finished"):
            next(outcomes)
        go.set()
    assert sorted(began) == [0, 1]
    assert not any(thread.name.startswith("tilepipe-worker") for thread in threading.enumerate())


def test_a_worker_that_cannot_take_part_is_an_error_of_the_input() -> None:
    with InProcessClient(1) as client, pytest.raises(InputError, match="sees nothing"):
        Workers(client, wait=60).ask(lambda: {"error": "sees nothing"})


@pytest.mark.slow
def test_a_run_in_this_process_loads_no_dask() -> None:
    code = (
        "import sys, tilepipe.engine.run.run as _\n"
        "from tilepipe.engine.cluster.connect import connect\n"
        "from tilepipe.engine.options import RunOptions\n"
        "with connect(RunOptions('i.tif')) as (workers, resources):\n"
        "    assert resources.in_process\n"
        "print(sorted({'dask', 'distributed'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
