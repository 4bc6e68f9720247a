"""What a run takes of a machine: no more than its control groups let it have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import tilepipe
from tests.making import make_image, write_tiff
from tilepipe.engine import hardware
from tilepipe.engine.hardware import Grant, cores, default_memory, free_memory, granted, most_memory
from tilepipe.engine.planning.survey import _survey_worker
from tilepipe.errors import InputError

GB = 10**9
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="control groups are Linux's"
)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 GB, 40 GB of them free, and 8 cores, on which this process holds 1 GB."""
    memory = type("memory", (), {"available": 40 * GB, "total": 64 * GB})
    process = type("process", (), {"memory_info": lambda _: type("info", (), {"rss": GB})})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(hardware.psutil, "Process", process)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group of 3 GB, 1 GB of them taken, and one and a half cores."""
    folder = tmp_path / "cgroup" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(f"{3 * GB}\n")
    (folder / "memory.current").write_text(f"{GB}\n")
    (folder / "cpu.max").write_text("250000 100000\n")
    own = tmp_path / "own"
    own.write_text("0::/job\n")
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "OWN_CGROUPS", own)
    return folder


def test_without_a_group_a_run_takes_half_of_what_is_free_or_its_own() -> None:
    assert free_memory(Grant()) == 40 * GB
    assert most_memory(Grant()) == 64 * GB
    assert default_memory(Grant()) == 41 * GB // 2
    assert cores(Grant()) == 8


def test_a_wide_group_changes_nothing() -> None:
    wide = Grant(60 * GB, 2 * GB, 12.0)
    assert free_memory(wide) == 40 * GB
    assert most_memory(wide) == 60 * GB
    assert default_memory(wide) == 41 * GB // 2
    assert cores(wide) == 8


@pytest.mark.parametrize(("quota", "usable"), [(0.2, 1), (1.2, 1), (1.8, 2), (7.0, 7)])
def test_a_quota_is_a_number_of_cores(quota: float, usable: int) -> None:
    assert cores(Grant(cpus=quota)) == usable


@linux
def test_a_narrow_group_is_heeded(group: Path) -> None:
    assert granted() == Grant(3 * GB, GB, 2.5)
    assert free_memory() == 2 * GB
    assert most_memory() == 3 * GB
    assert default_memory() == int(0.8 * 3 * GB)
    assert cores() == 2


@linux
def test_memory_from_which_a_group_is_slowed_is_a_limit_too(group: Path) -> None:
    (group / "memory.high").write_text(f"{2 * GB}\n")
    assert granted().memory == 2 * GB


@linux
def test_a_full_group_has_nothing_left(group: Path) -> None:
    (group / "memory.current").write_text(f"{4 * GB}\n")
    assert free_memory() == 0


@linux
def test_a_worker_reports_what_its_group_lets_it_have(group: Path) -> None:
    manager = type("manager", (), {"memory_limit": None})
    worker = type("worker", (), {"memory_manager": manager})
    report = _survey_worker("cpu", worker)
    assert (report["memory"], report["granted"]) == (int(2.4 * GB), int(2.4 * GB))
    assert report["cores"] == 2
    manager.memory_limit = GB
    assert _survey_worker("cpu", worker)["granted"] == GB // 2


@linux
def test_a_plan_keeps_within_the_group(group: Path, image: Path, model: Path) -> None:
    plan, estimate = tilepipe.plan(image, model=model)
    assert plan.threads == 2
    assert estimate.memory <= estimate.memory_limit == int(2.4 * GB)
    assert not estimate.warnings


@linux
def test_a_plan_beyond_the_group_says_so(group: Path, image: Path, model: Path) -> None:
    (group / "memory.max").write_text(f"{GB}\n")
    _, estimate = tilepipe.plan(image, model=model, memory="8GB", threads=6)
    memory, threads = estimate.warnings
    assert "the control group (a container's, or a job's) has 1.00 GB" in memory
    assert "6 threads share 2 cores" in threads


@linux
def test_workers_that_the_group_has_no_room_for_are_refused_before_they_start(
    group: Path, image: Path, model: Path, tmp_path: Path
) -> None:
    said = "workers 1000000: each needs at least 0.45 GB, .* enough for 5;"
    with pytest.raises(InputError, match=said):
        tilepipe.plan(image, model=model, workers=1_000_000)
    with pytest.raises(InputError, match=said):
        tilepipe.run(image, model=model, workers=1_000_000, outputs=tmp_path / "mask.ome.zarr")


def test_a_million_threads_are_refused(image: Path, model: Path) -> None:
    with pytest.raises(InputError, match="threads must be at most 1,024"):
        tilepipe.plan(image, model=model, threads=1_000_000)
    with pytest.raises(InputError, match="threads must be at most 1,024"):
        tilepipe.train("nowhere", "model.safetensors", threads=1_000_000)


LIMIT = 1_500_000_000


class _RealGroup:
    """A memory group of this machine's, of version 1 or 2."""

    def __init__(self, folder: Path, limit: str, processes: str) -> None:
        self.folder, self.limit, self.processes = folder, limit, processes

    def __enter__(self) -> _RealGroup:
        self.folder.mkdir()
        (self.folder / self.limit).write_text(str(LIMIT))
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.rmdir()

    def run(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        enter = f'echo $$ > "{self.folder / self.processes}" && exec "$@"'
        return subprocess.run(
            ["sh", "-c", enter, "sh", *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def real_group() -> Iterator[_RealGroup]:
    name = f"tilepipe-test-{uuid.uuid4().hex[:8]}"
    root = Path("/sys/fs/cgroup")
    if (root / "memory").is_dir():
        made = _RealGroup(root / "memory" / name, "memory.limit_in_bytes", "cgroup.procs")
    else:
        made = _RealGroup(root / name, "memory.max", "cgroup.procs")
    try:
        with made:
            yield made
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")


@pytest.mark.slow
@linux
def test_a_run_in_a_group_of_one_and_a_half_gigabytes_ends_well(
    real_group: _RealGroup, tmp_path: Path
) -> None:
    image = write_tiff(tmp_path / "image.tif", make_image(2500, 4000))
    command = [sys.executable, "-m", "tilepipe"]
    planned = real_group.run([*command, "plan", str(image), "--json"])
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["memory_bytes"] < LIMIT

    output = str(tmp_path / "mask.ome.zarr")
    done = real_group.run([*command, "run", str(image), "-o", output, "--json"])
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    assert [w for w in record["warnings"] if "unlike" not in w] == []
    assert record["peak_memory_bytes"] < LIMIT
