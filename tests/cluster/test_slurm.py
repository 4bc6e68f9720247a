"""Workers as jobs of a real SLURM; jobs that are cancelled, requeued, at the end of their time.

`TILEPIPE_LONG=1` adds walltimes, of which SLURM knows none below a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import tilepipe
from tests.cluster.hosts import wait_for
from tests.cluster.slurm import ask, jobs, require_slurm, slurm
from tests.making import digest, make_image, save_tiny, write_tiff
from tilepipe.models.unet import UNetArguments

pytestmark = pytest.mark.slow

BLOCKS = 24
ROOT = Path(__file__).parents[2]
LONG = pytest.mark.skipif("TILEPIPE_LONG" not in os.environ, reason="set TILEPIPE_LONG=1 to run it")


@pytest.fixture(scope="module")
def queue() -> Iterator[dict[str, str]]:
    pytest.importorskip("dask_jobqueue")
    require_slurm()
    with slurm() as variables:
        yield variables


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    model = folder / "tiny.safetensors"
    save_tiny(model, UNetArguments(width=2))
    return write_tiff(folder / "image.tif", make_image(128, BLOCKS * 1536 - 40)), model


@pytest.fixture(scope="module")
def undisturbed(
    inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("alone")
    image, model = inputs
    tilepipe.run(image, model=model, outputs=folder / "m.ome.zarr", window=572, threads=1)
    return digest(folder)


class Case:
    """One command, and the jobs it has."""

    def __init__(
        self, inputs: tuple[Path, Path], queue: dict[str, str], folder: Path, delay: float = 0.5
    ) -> None:
        self.inputs, self.queue, self.delay = inputs, queue, delay
        self.folder, self.file, self.log = folder / "out", folder / "slurm.yaml", folder / "log"
        self.folder.mkdir()
        self.jobs_log = folder / "jobs"

    def start(self, *lifetime: str, **changes: Any) -> subprocess.Popen[bytes]:
        """The file of `workflows/`, with what this small cluster has."""
        document = yaml.safe_load((ROOT / "workflows/clusters/slurm.yaml").read_text())
        document["wait"] = "4min"
        document["environment"] = {"TILEPIPE_TEST_DELAY": self.delay, "OMP_NUM_THREADS": 1}
        document["arguments"] |= {
            "queue": "short", "cores": 1, "memory": "2GB", "walltime": "00:10:00",
            "interface": "lo", "log_directory": str(self.jobs_log),
            "local_directory": str(self.folder.parent / "scratch"),
            "worker_extra_args": ["--preload", "tests.cluster.slow", *lifetime],
        }  # fmt: skip
        document["arguments"] |= changes.pop("arguments", {})
        if "adapt" in changes:
            del document["workers"]
        document |= changes
        self.file.write_text(yaml.safe_dump(document))
        image, model = self.inputs
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tilepipe", "run", str(image), "-m", str(model),
                 "-o", str(self.folder / "m.ome.zarr"), "--cluster", str(self.file),
                 "--window", "572", "--threads", "1", "--memory", "1GB"],
                stdout=log, stderr=log, env=os.environ | self.queue | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip

    def ledger(self) -> list[dict[str, Any]]:
        """The blocks that are done, as workers reported them."""
        try:
            lines = (self.folder / "m.ome.zarr/.tilepipe/ledger").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [json.loads(line[line.index("{") : line.rindex("}") + 1]) for line in lines]
        return [record for record in found if record.get("kind") == "block"]

    def wait_for(self, blocks: int, run: subprocess.Popen[bytes]) -> None:
        wait_for(
            lambda: len(self.ledger()) >= blocks or run.poll() is not None, f"{blocks} blocks", 240
        )
        assert run.poll() is None, self.said()

    def said(self) -> str:
        jobs_said = [log.read_text()[-2000:] for log in self.jobs_log.glob("*.err")]
        return "\n---\n".join([self.log.read_text(), *jobs_said])


@pytest.fixture
def case(inputs: tuple[Path, Path], queue: dict[str, str], tmp_path: Path) -> Case:
    return Case(inputs, queue, tmp_path)


def test_a_run_on_jobs_that_are_cancelled_and_requeued(
    case: Case, queue: dict[str, str], undisturbed: dict[str, str]
) -> None:
    run = case.start(workers=3)
    case.wait_for(2, run)
    wait_for(lambda: len(jobs(queue)) == 3, "three jobs run")
    first, second, _ = jobs(queue)
    ask(queue, "scancel", first)
    ask(queue, "scontrol", "requeue", second)
    assert run.wait() == 0, case.said()
    assert digest(case.folder) == undisturbed
    wait_for(lambda: not jobs(queue), "its jobs end with the run")


@LONG
def test_all_jobs_lost_are_said_and_replaced(
    case: Case, queue: dict[str, str], undisturbed: dict[str, str]
) -> None:
    run = case.start(workers=2)
    case.wait_for(2, run)
    lost = jobs(queue)
    ask(queue, "scancel", *lost)
    assert run.wait() == 0, case.said()
    assert "no workers are left" in case.said()
    assert digest(case.folder) == undisturbed


@LONG
def test_an_adaptive_crew_grows(
    case: Case, queue: dict[str, str], undisturbed: dict[str, str]
) -> None:
    adapt = {"minimum": 0, "maximum": 3, "target_duration": "1s"}
    run = case.start(adapt=adapt)
    assert run.wait() == 0, case.said()
    assert len({record["worker"] for record in case.ledger()}) > 1, case.said()
    assert digest(case.folder) == undisturbed


@LONG
def test_a_job_that_the_queue_refuses_is_one_line(case: Case) -> None:
    assert case.start(workers=1, arguments={"queue": "nowhere"}).wait() == 2
    lines = case.log.read_text().strip().splitlines()
    assert "invalid partition" in lines[-1]
    assert lines[-1].startswith(f"tilepipe: {case.file}: ")
    assert not case.ledger()


@LONG
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("lifetime", [[], ["--lifetime", "40s", "--lifetime-stagger", "8s"]])
def test_walltimes_end_and_no_block_is_lost(
    inputs: tuple[Path, Path],
    queue: dict[str, str],
    undisturbed: dict[str, str],
    tmp_path: Path,
    lifetime: list[str],
) -> None:
    # Of one worker with three slots, 8 rounds of 15 seconds: two minutes, in jobs of one.
    case = Case(inputs, queue, tmp_path, delay=15)
    run = case.start(*lifetime, workers=1, arguments={"walltime": "00:01:00"})
    assert run.wait() == 0, case.said()
    assert digest(case.folder) == undisturbed
    assert len(list(case.jobs_log.glob("*.err"))) > 1, "one job after the other"
