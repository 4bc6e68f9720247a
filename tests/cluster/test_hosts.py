"""A scheduler and workers on hosts of their own; hosts, processes and links that fail mid-run.

Each test does something to a run and compares every byte of the mask with that of an undisturbed
run. `TILEPIPE_LONG=N` adds more of them, and N runs through a long sequence of failures.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tilepipe
from tests.cluster.hosts import (
    PORT,
    Host,
    kill_tree,
    network,
    require_namespaces,
    signal_tree,
    wait_for,
)
from tests.making import digest, make_image, save_tiny, write_tiff
from tilepipe.models.unet import UNetArguments

pytestmark = pytest.mark.slow

BLOCKS = 24
LONG = pytest.mark.skipif("TILEPIPE_LONG" not in os.environ, reason="set TILEPIPE_LONG=1 to run it")
DASK = {
    # A host that does not answer is given up after 12 seconds instead of 30 (11 is the least).
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "12s",
}


class Cluster:
    """A head with the scheduler, and two hosts with a worker each; what ended is started again."""

    def __init__(self, head: Host, hosts: list[Host], folder: Path) -> None:
        self.head, self.hosts, self.folder = head, hosts, folder
        self.address = f"tcp://{head.address}:{PORT}"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def ensure(self) -> None:
        """Let everything run and everybody be there."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            self.scheduler = self.head.start(
                "-m", "dask", "scheduler", "--host", self.head.address, "--port", str(PORT),
                "--no-dashboard", log=self.log("scheduler"),
            )  # fmt: skip
        self.wait_for_workers(len(self.hosts))

    def ensure_worker(self, host: Host, blind: Path | None = None) -> None:
        """What a supervisor (systemd, a batch system) does on a node."""
        running = self.workers.get(host.name)
        if running is not None and running.poll() is None:
            return
        self.workers[host.name] = host.start(
            "-m", "dask", "worker", self.address, "--host", host.address, "--nthreads", "2",
            "--no-dashboard", "--memory-limit", "0", "--preload", "tests.cluster.slow",
            "--local-directory", str(self.folder / host.name), log=self.log(host.name),
            blind=blind,
        )  # fmt: skip

    def wait_for_workers(self, number: int) -> None:
        asked = subprocess.Popen(
            ["ip", "netns", "exec", self.head.namespace, sys.executable, "-c",
             "import sys; from distributed import Client\n"
             f"c = Client({self.address!r}, timeout=600); c.wait_for_workers({number}, 600)\n"
             f"assert len(c.nthreads()) == {number}, c.nthreads()"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        while asked.poll() is None:
            # Again and again: one of a dead scheduler may take a while to find out, and end.
            for host in self.hosts:
                self.ensure_worker(host)
            time.sleep(0.2)
        said = asked.communicate()[1]
        assert asked.returncode == 0, said.decode()

    def run(self, case: Case, *more: str) -> subprocess.Popen[bytes]:
        """The command, on the head."""
        return self.head.start(
            "-m", "tilepipe", "run", str(case.image), "-m", str(case.model),
            "-o", str(case.output), "--scheduler", self.address, "--window", "572",
            "--threads", "1", "--memory", "2GB", "--wait", "120s", *more, log=case.log,
        )  # fmt: skip


class Case:
    """One run, and how far it is."""

    def __init__(self, image: Path, model: Path, folder: Path) -> None:
        self.image, self.model, self.folder = image, model, folder
        self.output, self.log = folder / "m.ome.zarr", folder.with_suffix(".log")

    @property
    def done(self) -> int:
        """Blocks in the ledger."""
        try:
            return (self.output / ".tilepipe" / "ledger").read_bytes().count(b'"block"')
        except FileNotFoundError:
            return 0

    def wait_for(self, blocks: int, process: subprocess.Popen[bytes]) -> None:
        wait_for(lambda: self.done >= blocks or process.poll() is not None, f"{blocks} blocks")
        assert process.poll() is None, self.said()

    def said(self) -> str:
        return self.log.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    require_namespaces()
    with network(TILEPIPE_TEST_DELAY="0.4", OMP_NUM_THREADS="1", **DASK) as made:
        yield Cluster(made.host("head"), [made.host("one"), made.host("two")], folder)


@pytest.fixture(scope="module")
def inputs(folder: Path) -> tuple[Path, Path]:
    model = folder / "tiny.safetensors"
    save_tiny(model, UNetArguments(width=2))
    return write_tiff(folder / "image.tif", make_image(128, BLOCKS * 1536 - 40)), model


@pytest.fixture(scope="module")
def undisturbed(inputs: tuple[Path, Path], folder: Path) -> dict[str, str]:
    alone = folder / "alone"
    alone.mkdir()
    summary = tilepipe.run(
        inputs[0], model=inputs[1], outputs=alone / "m.ome.zarr", window=572, threads=1
    )
    assert summary.blocks == BLOCKS
    return digest(alone)


@pytest.fixture
def case(inputs: tuple[Path, Path], tmp_path: Path) -> Case:
    folder = tmp_path / "run"
    folder.mkdir()
    return Case(*inputs, folder)


@LONG
def test_a_link_that_flickers_is_not_noticed(
    cluster: Cluster, case: Case, undisturbed: dict[str, str]
) -> None:
    cluster.ensure()
    run = cluster.run(case)
    case.wait_for(3, run)
    cluster.hosts[0].unplug()
    case.wait_for(case.done + 2, run)
    cluster.hosts[0].plug()
    assert run.wait() == 0, case.said()
    assert digest(case.folder) == undisturbed


def test_a_host_that_is_cut_off_and_comes_back(
    cluster: Cluster, case: Case, undisturbed: dict[str, str]
) -> None:
    cluster.ensure()
    run = cluster.run(case)
    case.wait_for(3, run)
    lost = cluster.hosts[1]
    lost.unplug()
    # The cut-off worker finishes the blocks in its hand and writes them, as it sees the disk.
    assert run.wait() == 0, case.said()
    assert digest(case.folder) == undisturbed
    lost.plug()
    # Its scheduler has given it up: it ends, and whoever started it starts it again.
    wait_for(lambda: cluster.workers[lost.name].poll() is not None, "its worker ends by itself")
    assert digest(case.folder) == undisturbed
    cluster.ensure()


def test_a_worker_that_is_killed_one_that_cannot_take_part_and_one_that_can(
    cluster: Cluster, case: Case, undisturbed: dict[str, str]
) -> None:
    cluster.ensure()
    run = cluster.run(case)
    case.wait_for(3, run)
    one, two = cluster.hosts
    one.kill(cluster.workers[one.name])
    # The other one freezes, so that the run lasts until the third is there.
    signal_tree(cluster.workers[two.name], signal.SIGSTOP)
    cluster.ensure_worker(one, blind=case.folder)
    wait_for(lambda: "left out" in case.said() or run.poll() is not None, "it is named", 240)
    signal_tree(cluster.workers[two.name], signal.SIGCONT)
    assert case.said().count("does not see the output") == 1
    one.kill(cluster.workers[one.name])
    cluster.ensure_worker(one)
    two.kill(cluster.workers[two.name])
    assert run.wait() == 0, case.said()
    assert digest(case.folder) == undisturbed


@LONG
def test_all_workers_killed_is_said_and_survived(
    cluster: Cluster, case: Case, undisturbed: dict[str, str]
) -> None:
    cluster.ensure()
    run = cluster.run(case)
    case.wait_for(3, run)
    for host in cluster.hosts:
        host.kill(cluster.workers[host.name])
    wait_for(lambda: "no workers are left" in case.said(), "the loss is said")
    cluster.ensure_worker(cluster.hosts[0])
    assert run.wait() == 0, case.said()
    assert digest(case.folder) == undisturbed


@LONG
def test_a_killed_scheduler_ends_the_run_and_another_one_resumes_it(
    cluster: Cluster, case: Case, undisturbed: dict[str, str]
) -> None:
    cluster.ensure()
    run = cluster.run(case)
    case.wait_for(3, run)
    assert cluster.scheduler is not None
    cluster.head.kill(cluster.scheduler)
    assert run.wait() == 4, case.said()
    assert "the scheduler was lost" in case.said()
    assert "to resume: tilepipe run" in case.said()
    assert case.done < BLOCKS
    for host in cluster.hosts:
        wait_for(lambda h=host: cluster.workers[h.name].poll() is not None, "its worker ends")
    cluster.ensure()
    assert cluster.run(case).wait() == 0, case.said()
    assert "blocks are done already" in case.said()
    assert digest(case.folder) == undisturbed


@LONG
def test_a_killed_client_leaves_workers_that_another_one_can_use(
    cluster: Cluster, case: Case, undisturbed: dict[str, str]
) -> None:
    cluster.ensure()
    run = cluster.run(case)
    case.wait_for(3, run)
    kill_tree(run)  # while blocks are in the workers' hands
    assert cluster.run(case).wait() == 0, case.said()
    assert "blocks are done already" in case.said()
    assert digest(case.folder) == undisturbed


@LONG
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(int(os.environ.get("TILEPIPE_LONG") or 1)))
def test_one_failure_after_the_other(
    seed: int, cluster: Cluster, case: Case, undisturbed: dict[str, str]
) -> None:
    rng = random.Random(seed)
    run: subprocess.Popen[bytes] | None = None
    for _ in range(12):
        if run is None or run.poll() is not None:
            for host in cluster.hosts:
                host.plug()
            cluster.ensure()
            run = cluster.run(case)
        goal = case.done + rng.randrange(1, 4)
        wait_for(lambda g=goal, r=run: case.done >= g or r.poll() is not None, "some blocks")
        host = rng.choice(cluster.hosts)
        what = rng.choice(["unplug", "plug", "kill", "start", "scheduler", "client"])
        if what == "unplug":
            host.unplug()
        elif what == "plug":
            host.plug()
        elif what == "kill" and host.name in cluster.workers:
            host.kill(cluster.workers[host.name])
        elif what == "start":
            cluster.ensure_worker(host)
        elif what == "scheduler" and cluster.scheduler is not None:
            cluster.head.kill(cluster.scheduler)
        elif what == "client":
            kill_tree(run)
        if not any(h.name in cluster.workers for h in cluster.hosts):
            cluster.ensure_worker(host)
    for host in cluster.hosts:
        host.plug()
    if run is not None and run.poll() is None:
        kill_tree(run)
    if cluster.scheduler is None or cluster.scheduler.poll() is not None:
        for worker in cluster.workers.values():
            wait_for(lambda w=worker: w.poll() is not None, "workers without scheduler end")
    cluster.ensure()
    assert cluster.run(case).wait() == 0, case.said()
    assert digest(case.folder) == undisturbed
