"""One worker inside the process, processes, or a cluster elsewhere: the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import tilepipe
from tests.making import WINDOW, digest, make_image, write_tiff
from tilepipe.engine.cluster.pool import Task, TaskPool
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.state.folder import RunState
from tilepipe.errors import EnvironmentFailure, InputError

pytestmark = pytest.mark.slow


def _fit() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve blocks: more than workers have in hand."""
    path = tmp_path_factory.mktemp("image") / "image.tif"
    return write_tiff(path, make_image(540, 2600))


def options(model: Path, folder: Path) -> dict[str, object]:
    return {
        "model": model, "outputs": [folder / "m.ome.zarr", folder / "m.tif"], "window": WINDOW,
        "threads": 1,
    }  # fmt: skip


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`dask scheduler` and two `dask worker`s, as a user starts them: address and scheduler."""
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    common = ["--no-dashboard"]
    file = folder / "scheduler.json"
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file,
         *common], **quiet,
    )  # fmt: skip
    processes = [scheduler]
    try:
        worker = [*dask, "worker", "--scheduler-file", file, "--nthreads", "2", *common]
        while not file.exists():
            assert scheduler.poll() is None
            time.sleep(0.02)
        processes += [subprocess.Popen(worker, **quiet) for _ in range(2)]
        from distributed import Client

        with Client(scheduler_file=file, timeout=600, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=600)
            address = client.scheduler.address
        yield address, scheduler
    finally:
        for process in processes:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for child in children:
                if child.is_running():
                    child.kill()


@pytest.fixture(scope="module")
def in_process(
    image: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("in_process")
    tilepipe.run(image, **options(model, folder))  # type: ignore[arg-type]
    return digest(folder)


def test_two_worker_processes_give_the_same_bytes(
    image: Path, model: Path, in_process: dict[str, str], tmp_path: Path
) -> None:
    tilepipe.run(image, workers=2, **options(model, tmp_path))  # type: ignore[arg-type]
    assert digest(tmp_path) == in_process


class KillAWorker(RunCallbacks):
    """Kills one of this process's worker processes when the first block is done."""

    def __init__(self) -> None:
        self.killed = 0

    def block(self, receipt: object) -> None:
        if not self.killed:
            workers = [
                child
                for child in psutil.Process().children(recursive=True)
                if "spawn_main" in " ".join(child.cmdline())
            ]
            self.killed = workers[0].pid
            os.kill(self.killed, signal.SIGKILL)


def test_a_worker_that_dies_is_survived(
    image: Path, model: Path, in_process: dict[str, str], tmp_path: Path
) -> None:
    watch = KillAWorker()
    summary = tilepipe.run(image, workers=2, watch=watch, **options(model, tmp_path))  # type: ignore[arg-type]
    assert watch.killed
    assert summary.incomplete == ()
    assert digest(tmp_path) == in_process


def test_an_external_cluster_gives_the_same_bytes_and_its_loss_is_resumed(
    image: Path, model: Path, in_process: dict[str, str], tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    with cluster(tmp_path_factory.mktemp("cluster")) as (address, scheduler):
        tilepipe.run(image, scheduler=address, **options(model, tmp_path))  # type: ignore[arg-type]
        assert digest(tmp_path) == in_process

        class KillTheScheduler(RunCallbacks):
            def block(self, receipt: object) -> None:
                scheduler.kill()

        with pytest.raises(EnvironmentFailure, match="scheduler was lost"):
            tilepipe.run(
                image,
                scheduler=address,
                watch=KillTheScheduler(),
                **options(model, other),  # type: ignore[arg-type]
            )
    tilepipe.run(image, **options(model, other))  # type: ignore[arg-type]
    assert digest(other) == in_process


def test_a_worker_that_does_not_see_the_image_is_named(image: Path, model: Path) -> None:
    from tilepipe.engine.work.context import prepare

    report = prepare("/nowhere/m.ome.zarr", "run")
    assert "does not see the output" in report["error"]


def test_a_scheduler_that_is_not_there_is_said_in_one_line(
    image: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilepipe.engine.cluster.connect.CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match="cannot be reached"):
        tilepipe.run(
            image, model=model, outputs=tmp_path / "m.ome.zarr", scheduler="tcp://127.0.0.1:9"
        )
    assert list(tmp_path.iterdir()) == []


def test_workers_of_another_kind_are_refused_unless_allowed(
    image: Path, model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=output)
    state = RunState(output)
    plan = state.read_plan()
    assert plan is not None
    state.freeze(replace(plan, environment=plan.environment | {"torch": "1.0"}))
    with pytest.raises(InputError, match="another kind of worker"):
        tilepipe.run(image, model=model, outputs=output)
    tilepipe.run(image, model=model, outputs=output, allow_mixed=True)


def _slow(number: int) -> int:
    time.sleep(0.001)
    return number


_tries: dict[int, int] = {}


def _failing(number: int) -> int:
    _tries[number] = _tries.get(number, 0) + 1
    if number == 3 or (number == 5 and _tries[5] < 3):
        raise RuntimeError(f"no {number}")
    return number


def test_no_more_tasks_are_in_flight_than_the_workers_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from distributed import Client, LocalCluster

    monkeypatch.setattr("tilepipe.engine.cluster.bundle.MOST", 1)
    drawn: list[int] = []

    def tasks() -> Iterator[Task]:
        for number in range(200):
            drawn.append(number)
            yield Task(_slow, (number,))

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=3, processes=False, dashboard_address="127.0.0.1:0"
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        done = []
        workers = Workers(client, wait=60)
        workers.ask(_fit)
        for outcome in TaskPool(workers, retries=0).run(tasks()):
            assert outcome.task.arguments == (outcome.value,)
            done.append(outcome.value)
            assert len(drawn) - len(done) <= 4
    assert sorted(done) == list(range(200))


def test_a_task_that_fails_is_tried_again_and_then_given_up() -> None:
    from distributed import Client, LocalCluster

    _tries.clear()
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        workers = Workers(client, wait=60)
        workers.ask(_fit)
        tasks = (Task(_failing, (n,), n) for n in range(8))
        outcomes = {o.task.label: o for o in TaskPool(workers, retries=2).run(tasks)}
    assert _tries == {0: 1, 1: 1, 2: 1, 3: 3, 4: 1, 5: 3, 6: 1, 7: 1}
    assert isinstance(outcomes.pop(3).error, RuntimeError)
    assert [outcomes[n].value for n in (0, 1, 2, 4, 5, 6, 7)] == [0, 1, 2, 4, 5, 6, 7]
