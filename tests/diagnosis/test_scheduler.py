"""What the doctor says of schedulers and their workers."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.making import make_image, save_tiny, write_tiff
from tilepipe.diagnosis import scheduler
from tilepipe.diagnosis.disks import Scratch
from tilepipe.diagnosis.findings import Finding
from tilepipe.diagnosis.scheduler import check_scheduler, compare_reports
from tilepipe.models.unet import UNetArguments

FREE = 10**10


def report(**changes: Any) -> dict[str, Any]:
    return {
        "host": "one", "tilepipe": "1", "environment": {"device": "cpu", "torch": "2"},
        "model": "m", "image": "i", "sees": True, "writes": True, "granted": 0, "free": FREE,
        **changes,
    }  # fmt: skip


def compared(*reports: Any) -> list[Finding]:
    named = {f"tcp://{i}": r for i, r in enumerate(reports)}
    return compare_reports(named, report(), Path("/out"), "/out/marker")


def test_workers_that_are_alike() -> None:
    [finding] = compared(report(), report(host="other"))
    assert finding.level == "ok"
    assert "2 workers on 2 hosts (cpu)" in finding.what
    assert "10.0 GB" in finding.what


@pytest.mark.parametrize(("bad", "says"), [
    (ModuleNotFoundError("No module named 'tilepipe'"), "cannot run this version"),
    (report(tilepipe="2"), "tilepipe there is 2"),
    (report(sees=False, writes=False), "see no /out"),
    (report(writes=False, reason="Permission denied"), "may not write in /out (Permission denied)"),
    (report(model="other"), "see another model"),
    (report(image_error="x.tif: there is no such file"), "cannot open the image"),
    (report(environment={"device": "cpu", "torch": "3"}), "differ in torch"),
])  # fmt: skip
def test_workers_that_would_fail(bad: Any, says: str) -> None:
    found = compared(report(), bad)
    [finding] = [f for f in found if f.level != "ok"]
    assert finding.level == "fails"
    assert says in finding.what
    assert finding.do


def test_workers_that_dask_would_end() -> None:
    slow = [f for f in compared(report(granted=10**9)) if f.level == "slow"]
    assert "1.00 GB" in slow[0].what
    assert "--memory-limit 0" in slow[0].do


def test_versions_that_differ() -> None:
    def place(**packages: str) -> dict[str, Any]:
        return {"packages": {"python": "3.12.1.final.0", "dask": "1", **packages}}

    same = {"client": place(), "scheduler": place(), "workers": {"a": place()}}
    assert scheduler._versions(same) == []
    same["workers"]["a"] = place(dask="2", numpy="9")
    [finding] = scheduler._versions(same)
    assert "dask 1 and 2" in finding.what
    assert "numpy" not in finding.what


def test_threads_of_workers() -> None:
    def level(*threads: int) -> list[str]:
        facts = {str(i): {"nthreads": n} for i, n in enumerate(threads)}
        return [f.level for f in scheduler._threads(facts)]

    assert level(3, 2) == []
    assert level(1, 3) == ["slow"]
    assert level(32) == ["slow"]


def test_a_running_scheduler(tmp_path: Path) -> None:
    from distributed import LocalCluster

    model = tmp_path / "tiny.safetensors"
    save_tiny(model, UNetArguments(width=2))
    slide = write_tiff(tmp_path / "slide.tif", make_image(64, 64))
    scratch = Scratch()
    with LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, protocol="tcp", memory_limit=0,
        dashboard_address=None,
    ) as cluster:  # fmt: skip
        address = cluster.scheduler_address
        found = check_scheduler(address, tmp_path, str(model), str(slide), scratch)
        assert [(f.topic, f.level) for f in found] == [("scheduler", "ok"), ("workers", "ok")]
        assert "see output and model" in found[1].what
        cluster.scale(0)
        cluster.sync(cluster._correct_state)
        found = check_scheduler(address, tmp_path, str(model), None, scratch)
        assert "has no workers" in found[0].what
    scratch.clear()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slide.tif", "tiny.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:{port}", "http://[", "tcp://x:y"])
def test_schedulers_that_are_none(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "CONNECT_SECONDS", 1)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = address.format(port=taken.getsockname()[1])
        [finding] = check_scheduler(address, tmp_path, "nuclei-he", None, Scratch())
    assert finding.level == "fails"
    assert address in finding.what
    assert "cannot be reached" in finding.what
