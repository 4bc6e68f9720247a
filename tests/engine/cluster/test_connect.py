"""Workers that come, go and differ; what a cluster file says; what a slow disk does."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tilepipe
from tests.making import WINDOW, digest, make_image, write_tiff
from tilepipe.engine.cluster.cluster_file import KINDS, SLOTS, read_cluster_file, what_went_wrong
from tilepipe.engine.cluster.connect import gpu_memory, local_resources
from tilepipe.engine.cluster.in_process import InProcessClient
from tilepipe.engine.cluster.pool import Task, TaskPool
from tilepipe.engine.cluster.workers import Workers
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.resources import Estimate, Resources
from tilepipe.engine.run.job import LazyWorkers
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.work import block as work
from tilepipe.engine.work import context
from tilepipe.errors import EnvironmentFailure, InputError, UnfitWorkerError
from tilepipe.products.store import ZarrMask
from tilepipe.quantities import parse_duration


class Troubles(RunCallbacks):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_warning(self, message: str) -> None:
        self.heard.append(message)


class Crew:
    """A cluster of threads of this process, whose workers come and go by name."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster

    def join(self, *names: str) -> None:
        from distributed import Worker

        for name in names:
            options = {"nthreads": 2, "dashboard_address": None}
            self.cluster.worker_spec[name] = {"cls": Worker, "options": options}
        self.cluster.sync(self.cluster._correct_state)

    def leave(self, *names: str) -> None:
        for name in names:
            del self.cluster.worker_spec[name]
        self.cluster.sync(self.cluster._correct_state)


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    from distributed import Scheduler, SpecCluster

    monkeypatch.setattr("tilepipe.engine.cluster.workers.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("tilepipe.engine.cluster.pool.TICK_SECONDS", 0.05)
    monkeypatch.setattr("tilepipe.engine.cluster.bundle.MOST", 1)
    scheduler = {
        "cls": Scheduler,
        "options": {"protocol": "inproc://", "dashboard_address": "127.0.0.1:0"},
    }
    with SpecCluster(scheduler=scheduler, workers={}, silence_logs=50) as cluster:
        yield Crew(cluster)


@contextmanager
def watched(crew: Crew, **settings: Any) -> Iterator[Workers]:
    from distributed import Client

    with Client(crew.cluster, set_as_default=False) as client:
        workers = Workers(client, **{"wait": 60, **settings})
        workers.ask(_fit_unless_odd)
        with workers.monitored():
            yield workers


def _fit_unless_odd(dask_worker: Any) -> dict[str, str]:
    odd = str(dask_worker.name).startswith("odd")
    return {"error": "sees another image"} if odd else {}


def _who(number: int) -> str:
    from distributed import get_worker

    time.sleep(0.01)
    return str(get_worker().name)


def _unless_odd(number: int) -> str:
    from distributed import get_worker

    here = get_worker()
    if str(here.name).startswith("odd"):
        raise UnfitWorkerError("sees another image", here.address)
    time.sleep(0.01)
    return str(here.name)


def _numbers(crew: Crew, at: int, change: Callable[[], None], until: int = 60) -> Iterator[Any]:
    """Items, with something that happens when so many are drawn."""
    for number in range(until):
        if number == at:
            change()
        yield (number,)


def _run(workers: Workers, items: Iterator[Any], function: Any = _who) -> dict[int, str]:
    found = {}
    tasks = (Task(function, item) for item in items)
    for outcome in TaskPool(workers, retries=0).run(tasks):
        assert outcome.error is None
        (number,) = outcome.task.arguments
        assert number not in found, "a task is yielded once"
        found[number] = outcome.value
    return found


def _until(reached: Callable[[], bool]) -> None:
    for _ in range(12000):  # a bound against hanging; nothing is timed
        if reached():
            return
        time.sleep(0.005)
    raise AssertionError("this never came to be")


def test_workers_that_join_get_their_share_and_more_tasks_are_in_flight(crew: Crew) -> None:
    crew.join("first")
    with watched(crew) as workers:
        assert workers.roster.in_flight() == 3

        def join() -> None:
            crew.join("second")
            _until(lambda: workers.roster.in_flight() == 6)

        found = _run(workers, _numbers(crew, 5, join))
    assert sorted(found) == list(range(60))
    assert set(found.values()) == {"first", "second"}


@pytest.mark.slow
@pytest.mark.parametrize("asked_first", [True, False])
def test_an_odd_worker_that_joins_late_is_named_once_and_gets_no_block(
    crew: Crew, asked_first: bool
) -> None:
    watch = Troubles()
    crew.join("first")
    with watched(crew, watch=watch) as workers:

        def join() -> None:
            crew.join("odd 1", "odd 2")
            if asked_first:
                _until(lambda: workers.roster.eligible() is not None)

        # Its first task may be quicker than the question; then the task finds out.
        found = _run(workers, _numbers(crew, 5, join), _unless_odd)
        _until(lambda: workers.roster.eligible() is not None)
        crew.leave("odd 1", "odd 2")
        _until(lambda: workers.roster.eligible() is None)
    assert sorted(found) == list(range(60))
    assert set(found.values()) == {"first"}
    assert len(watch.heard) == 1
    assert "left out: sees another image" in watch.heard[0]


def test_an_odd_worker_at_the_start_is_refused(crew: Crew) -> None:
    crew.join("first", "odd")
    with pytest.raises(InputError, match="sees another image"), watched(crew):
        pass


def test_all_workers_lost_is_said_and_the_run_goes_on_with_others(crew: Crew) -> None:
    watch = Troubles()
    crew.join("first")
    with watched(crew, watch=watch) as workers:

        def exchange() -> None:
            crew.leave("first")

            def later() -> None:
                _until(lambda: bool(watch.heard))
                crew.join("second")

            threading.Thread(target=later).start()

        found = _run(workers, _numbers(crew, 20, exchange))
    assert sorted(found) == list(range(60))
    assert set(found.values()) == {"first", "second"}
    assert watch.heard == ["no workers are left; waiting 60 s for others to join"]


def test_tasks_bound_to_the_fit_go_to_others_when_these_are_lost(crew: Crew) -> None:
    watch, exchanged = Troubles(), threading.Event()
    crew.join("first")
    with watched(crew, watch=watch) as workers:

        def exchange() -> None:
            crew.join("odd")
            _until(lambda: workers.roster.eligible() is not None)

            def after_a_while() -> None:
                crew.leave("first")
                crew.join("second")
                exchanged.set()

            threading.Timer(0.1, after_a_while).start()

        def items() -> Iterator[Any]:
            for item in _numbers(crew, 5, exchange):
                if item[0] == 40:  # some are left for the second, however fast this machine is
                    exchanged.wait(600)
                yield item

        found = _run(workers, items(), _unless_odd)
    assert sorted(found) == list(range(60))
    assert set(found.values()) == {"first", "second"}


def test_no_worker_for_too_long_ends_the_run_resumably(crew: Crew) -> None:
    crew.join("first")
    with (
        watched(crew, wait=0.2) as workers,
        pytest.raises(EnvironmentFailure, match=r"no workers are left for 0\.2 s") as caught,
    ):
        _run(workers, _numbers(crew, 10, lambda: crew.leave("first")))
    assert caught.value.exit_code == 4


def test_an_adaptive_cluster_sees_enough_tasks_to_grow_for(crew: Crew) -> None:
    crew.join("first")
    with watched(crew, at_most=40) as workers:
        assert workers.roster.in_flight() == 40


@pytest.mark.slow
def test_workers_let_go_of_a_run_and_tasks_of_a_dead_one_open_nothing(
    image: Path, model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m.ome.zarr"
    tilepipe.run(image, model=model, outputs=output, window=WINDOW)
    assert not context._contexts
    with pytest.raises(EnvironmentFailure, match="has ended"):
        work.compute_block(str(output), "a dead run", 0)
    assert not context._contexts
    run_id = RunState(output).begin()
    context.worker_context(str(output), run_id)
    with context.borrowed(str(output), run_id) as opened:
        context.release_context(run_id)
        opened.device.submit_lock.acquire()  # still usable: a task is at it
        assert opened.device._thread.submit(int).result() == 0
    with pytest.raises(RuntimeError, match="shutdown"):
        opened.device._thread.submit(int)


def test_workers_that_share_a_gpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (10 * 10**9, 16 * 10**9))
    assert gpu_memory(0) is None
    assert gpu_memory(2) == gpu_memory(2, 2) == 9 * 10**9
    assert gpu_memory(2, 3) == gpu_memory(2, 4) == 4.5 * 10**9
    assert gpu_memory(1, 4) == 2.25 * 10**9


def growing(most: int) -> Callable[[RunOptions, int], Resources]:
    """Stands in for `local_resources`: more blocks may be in hand, without a GPU."""
    return lambda options, gpus: replace(local_resources(options, gpus), most_slots=most)


@pytest.mark.parametrize(
    ("gpus", "workers", "count", "most"),
    [(0, None, 16, 0), (1, None, 16, 8), (1, None, 5, 5), (1, 2, 16, 0), (2, None, 16, 0)],
)
def test_only_a_process_alone_with_a_gpu_may_have_more_blocks_in_hand(
    gpus: int, workers: int | None, count: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilepipe.engine.cluster.connect.gpu_memory", lambda *_: None)
    monkeypatch.setattr("tilepipe.engine.cluster.connect.cores", lambda: count)
    resources = local_resources(RunOptions("image.tif", workers=workers), gpus)
    assert resources.most_slots == most
    assert resources.slots == SLOTS, "with which windows are planned"
    assert resources.workers == (workers or max(1, gpus))
    assert resources.in_process is (workers is None and gpus < 2)


def test_the_worker_inside_works_on_as_many_at_once_as_it_is_told() -> None:
    with InProcessClient(2) as client:
        for count in (4, 1, 3):
            client.resize(count)
            assert list(client.nthreads().values()) == [count]
            barrier = threading.Barrier(count)
            waiting = [client.submit(barrier.wait, 20) for _ in range(count)]
            assert sorted(call.result() for call in waiting) == list(range(count))
            one_more = threading.Barrier(count + 1)
            waiting = [client.submit(one_more.wait, 0.2) for _ in range(count + 1)]
            for call in waiting:
                with pytest.raises(threading.BrokenBarrierError):
                    call.result()


def test_of_images_under_way_the_one_that_may_have_fewest_blocks_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tilepipe.engine.cluster.connect.local_resources", growing(8))
    options = RunOptions("image.tif", device="cpu")
    with LazyWorkers(options, RunCallbacks()) as lazy_workers:

        def now() -> int:
            workers, resources = lazy_workers.connected()
            assert resources.slots == SLOTS, "for which the next image is planned"
            assert workers.client.nthreads() == {"in-process": lazy_workers.slots}
            workers.refresh()
            assert workers.roster.in_flight() in (0, lazy_workers.slots + 1)
            return lazy_workers.slots

        assert now() == SLOTS
        with lazy_workers.holding(8):
            assert now() == 8
            with lazy_workers.holding(3), lazy_workers.holding(5):
                assert now() == 3
            assert now() == 8
        assert now() == 8, "until another image is there"
        with lazy_workers.holding(4):
            assert now() == 4


class InHand:
    """Counts the blocks that were read and are not written yet, with a slow end.

    The slow end waits until so many are in hand; then a little longer, for one too many.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow: str, wanted: int) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()
        read, write = work.read_with_valid, ZarrMask.write

        def wait() -> None:
            _until(lambda: self.most >= wanted)
            time.sleep(0.15)

        def slow_read(*arguments: Any) -> Any:
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
            if slow == "reader":
                wait()
            return read(*arguments)

        def slow_write(*arguments: Any, **more: Any) -> None:
            if slow == "writer":
                wait()
            write(*arguments, **more)
            with self._lock:
                self.now -= 1

        monkeypatch.setattr(work, "read_with_valid", slow_read)
        monkeypatch.setattr(ZarrMask, "write", slow_write)


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["reader", "writer"])
def test_a_slow_end_makes_the_run_slower_and_not_larger(
    slow: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_tiff(tmp_path / "wide.tif", make_image(128, 5 * 512))
    in_hand = InHand(monkeypatch, slow, SLOTS)
    summary = tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.zarr", window=WINDOW)
    assert summary.blocks == 5
    # What a worker has in hand is all that the plan's memory counts; the rest is not yet read.
    assert in_hand.most == SLOTS


def test_more_blocks_are_in_hand_where_a_run_may(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_tiff(tmp_path / "wide.tif", make_image(128, 8 * 512))
    output = tmp_path / "m.ome.zarr"
    monkeypatch.setattr("tilepipe.engine.cluster.connect.local_resources", growing(5))
    in_hand, watch = InHand(monkeypatch, "reader", 5), Planned()
    tilepipe.run(image, model=model, outputs=output, window=WINDOW, watch=watch)
    assert in_hand.most == 5
    assert watch.estimate.slots == 5
    assert watch.estimate.memory <= watch.estimate.memory_limit
    in_batch = InHand(monkeypatch, "reader", 5)
    folder = tmp_path / "masks"
    tilepipe.run_batch([image], model=model, outputs=f"{folder}/", window=WINDOW)
    assert in_batch.most == 5


class Planned(RunCallbacks):
    """Keeps the estimate of a run."""

    estimate: Estimate

    def planned(self, plan: Plan, estimate: Estimate, done: int) -> None:
        self.estimate = estimate


def test_no_more_blocks_are_written_at_once_than_gains_anything(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_tiff(tmp_path / "wide.tif", make_image(128, 9 * 512))
    monkeypatch.setattr("tilepipe.engine.cluster.connect.local_resources", growing(7))
    lock, counts, write = threading.Lock(), {"now": 0, "most": 0, "all": 0}, ZarrMask.write

    def slow_write(*arguments: Any, **more: Any) -> None:
        with lock:
            counts["now"] += 1
            counts["all"] += 1
            mine = counts["all"]
            counts["most"] = max(counts["most"], counts["now"])
        _until(lambda: counts["most"] >= context.WRITERS)
        time.sleep(0.1)
        try:
            write(*arguments, **more)
            if mine == 2:
                raise OSError(errno.EAGAIN, "for once")  # and the block is tried again
        finally:
            with lock:
                counts["now"] -= 1

    monkeypatch.setattr(ZarrMask, "write", slow_write)
    output = tmp_path / "m.ome.zarr"
    summary = tilepipe.run(image, model=model, outputs=output, window=WINDOW, retries=3)
    assert summary.blocks == 9
    assert counts["all"] == 10
    assert counts["most"] == context.WRITERS


# Cluster files.


def written(folder: Path, text: str) -> str:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.slow
def test_a_local_cluster_of_a_file_gives_the_same_bytes(
    image: Path, model: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"model": model, "window": WINDOW, "threads": 1}
    for name in "ab":
        (tmp_path / name).mkdir()
    tilepipe.run(image, outputs=tmp_path / "a" / "m.ome.zarr", **settings)
    file = written(tmp_path, "cluster: local\nworkers: 2\nenvironment:\n  OMP_NUM_THREADS: 1\n")
    tilepipe.run(image, outputs=tmp_path / "b" / "m.ome.zarr", cluster=file, **settings)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a list", "must hold"),
        ("cluster: [", "is not valid YAML"),
        ("workers: 2", "cluster must be one of"),
        ("cluster: slurmy", "cluster slurmy is not known"),
        ("cluster: local\nworker: 2", "worker is not a known option; did you mean workers?"),
        ("cluster: local\nworkers: two", "workers must be a whole number, not 'two'"),
        ("cluster: local\nworkers: 0", "workers must be at least 1, not 0"),
        ("cluster: local\nworkers: 1\nadapt: {maximum: 2}", "exclude each other"),
        ("cluster: local\nadapt: {minimum: 2}", "adapt: maximum"),
        ("cluster: local\nadapt: {most: 2}", "adapt: most is not a known option"),
        (
            "cluster: local\nadapt: {maximum: many}",
            "adapt: maximum must be a whole number, not 'many'",
        ),
        ("cluster: local\narguments: [1]", "arguments must be an object, not [1]"),
        ("cluster: local\narguments: {n_workers: 2}", "use `workers:` instead"),
        ("cluster: local\nprologue: module load x", "prologue: local runs no script"),
        ("cluster: slurm\nprologue: 3", "prologue[0] must be a string, not 3"),
        ("cluster: ssh\nenvironment: {A: 1}", "environment: ssh cannot set variables"),
        ("cluster: ssh\nworkers: 2", "workers: the hosts determine"),
        (
            "cluster: kubernetes\nenvironment: {A: 1}\narguments: {custom_cluster_spec: {}}",
            "environment: custom_cluster_spec replaces it",
        ),
        ("cluster: ssh\narguments: {hosts: [one]}", "hosts must be a list of at least two"),
        ("cluster: local\nwait: soon", "wait: 'soon' is not a time"),
    ],
)
def test_what_is_wrong_in_a_cluster_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_cluster_file(written(tmp_path, text))
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("os.path.join", "is not a Dask cluster"),
        ("no_such_package.Cluster", "cannot be imported"),
        ("distributed.NoSuchCluster", "there is no NoSuchCluster"),
    ],
)
def test_only_dask_clusters_are_started(
    name: str, said: str, image: Path, model: Path, tmp_path: Path
) -> None:
    file = written(tmp_path, f"cluster: {name}\n")
    with pytest.raises(InputError, match=said):
        tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.zarr", cluster=file)


def test_arguments_that_a_cluster_does_not_take_are_one_sentence(
    image: Path, model: Path, tmp_path: Path
) -> None:
    file = written(tmp_path, "cluster: local\narguments: {wokers: 2}\n")
    with pytest.raises(InputError, match="wokers"):
        tilepipe.run(image, model=model, outputs=tmp_path / "m.ome.zarr", cluster=file)


def test_cores_of_a_job_are_for_its_passes() -> None:
    from tilepipe.engine.cluster.cluster_file import ClusterFile

    arguments = {"cores": 16, "processes": 2, "memory": "32GB", "worker_extra_args": ["--lifetime", "1h"]}  # fmt: skip  # noqa: E501
    environment = {"A": "b c"}
    file = ClusterFile("f", KINDS["slurm"], 4, None, arguments, environment, ("module load x",))
    assert file.threads == 8
    full = file.full_arguments()
    assert full["worker_extra_args"] == ["--lifetime", "1h", "--nthreads", "3"]
    assert full["job_script_prologue"] == ["export A='b c'", "module load x"]


def test_what_a_queue_says_of_a_job_is_one_line() -> None:
    error = RuntimeError(
        "Command exited with non-zero exit code.\nExit code: 1\nCommand:\nsbatch /tmp/x.sh\n"
        "stdout:\n\nstderr:\nsbatch: error: invalid partition specified: gpu\n"
    )
    assert what_went_wrong(error) == "sbatch: error: invalid partition specified: gpu"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10 min", 600), ("2h", 7200), (30, 30)]
)
def test_times(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_cluster_excludes_workers_and_scheduler() -> None:
    with pytest.raises(InputError, match="cluster and workers exclude"):
        RunOptions("i.tif", cluster="c.yaml", workers=2)
    with pytest.raises(InputError, match="cluster and scheduler exclude"):
        RunOptions("i.tif", cluster="c.yaml", scheduler="tcp://head:8786")
