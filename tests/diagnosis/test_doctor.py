"""The doctor on good and on broken set-ups."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

import tilepipe
from tests.making import make_image, write_tiff
from tilepipe.cli import app
from tilepipe.diagnosis import (
    Diagnosis,
    Finding,
    disks,
    examine,
    findings,
    image,
    machine,
    software,
)
from tilepipe.engine.hardware import Grant, bf16_in_hardware, granted


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def patient(topic: str, check: Any, seconds: float, late: Any = "slow") -> list[Finding]:
        return findings.ask(topic, check, 20 * seconds, late)  # however busy the machine is

    monkeypatch.setattr(examine, "ask", patient)
    monkeypatch.setattr(disks, "MOST_BYTES", 4 << 20)
    monkeypatch.setattr(disks, "FILES", 5)
    monkeypatch.setattr(image, "READING_SECONDS", 0.1)


def worst(found: list[Finding] | tuple[Finding, ...], topic: str) -> Finding:
    mine = [finding for finding in found if finding.topic == topic]
    return min(mine, key=lambda finding: findings.WORST_FIRST.index(finding.level))


@pytest.mark.slow
def test_a_sound_machine(tmp_path: Path, model: Path) -> None:
    slide = write_tiff(tmp_path / "slide.tif", make_image(700, 800))
    told: list[Finding] = []
    diagnosis = tilepipe.doctor(slide, output=tmp_path, model=model, watch=told.append)
    assert told == list(diagnosis.findings)
    assert [f for f in diagnosis.findings if f.level == "fails"] == []
    assert diagnosis.exit_code == 0
    topics = {finding.topic for finding in diagnosis.findings}
    assert topics >= {"versions", "codecs", "GDAL", "torch", "cores", "memory", "limits", "GPU",
                      "disk", "room", "model", "image", "reading"}  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["slide.tif"], "something was left behind"


def test_json_and_exit_code(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["doctor", "-m", str(model), "-o", "missing", "--json"]
    result = CliRunner().invoke(app, words, standalone_mode=False)
    document = json.loads(result.output)
    assert result.return_value == 5
    assert document["fails"] == 1
    [fault] = [f for f in document["findings"] if f["level"] == "fails"]
    assert fault["topic"] == "output"
    assert "no such folder" in fault["what"]
    assert fault["do"]


def test_lines_for_a_person(tmp_path: Path, model: Path) -> None:
    words = ["doctor", "nothing.tif", "-m", str(model), "-o", str(tmp_path / "mask.ome.zarr")]
    result = CliRunner().invoke(app, words, standalone_mode=False)
    assert result.return_value == 5
    lines = result.output.splitlines()
    assert any(line.startswith("ok    codecs    JPEG") for line in lines)
    assert any(line.startswith("FAILS image") and "nothing.tif" in line for line in lines)
    help_begins = lines.index("runs would fail here; what would help:")
    assert lines[help_begins + 1].startswith("FAILS")
    assert "Traceback" not in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert disks.check_folder(tmp_path)[0].level == "fails"


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a folder" in disks.check_folder(tmp_path / "file")[0].what
    assert "no such folder" in disks.check_folder(tmp_path / "none")[0].what
    assert disks.check_folder(tmp_path) == []
    if Path("/proc/self").exists():
        assert "cannot be written to" in disks.check_folder(Path("/proc"))[0].what


@pytest.mark.parametrize(
    ("needed", "free", "level"),
    [
        (10**8, 10**9, "ok"), (3 * 10**9, 10**9, "slow"), (10**11, 10**9, "fails"),
        (None, 1000, "fails"),
    ],
)  # fmt: skip
def test_room(tmp_path: Path, needed: int | None, free: int, level: str) -> None:
    assert disks.check_room(tmp_path, needed, free)[0].level == level


@pytest.mark.parametrize(("kind", "level"), [
    ("ext4", "ok"), ("nfs4", "ok"), ("tmpfs", "slow"), ("overlay", "slow"),
])  # fmt: skip
def test_kinds_of_disks(tmp_path: Path, kind: str, level: str) -> None:
    scratch = disks.Scratch()
    [finding] = disks.check_disk(tmp_path, scratch, kind, disks.Speeds(1e9, 1e9, 1000))
    assert finding.level == level
    assert ("network" in finding.what) == (kind == "nfs4")
    scratch.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("speeds", [(1e6, 1e9, 1000), (1e9, 1e6, 1000), (1e9, None, 3)])
def test_slow_disks(tmp_path: Path, speeds: tuple[Any, ...]) -> None:
    scratch = disks.Scratch()
    [finding] = disks.check_disk(tmp_path, scratch, "ext4", disks.Speeds(*speeds))
    assert finding.level == "slow"
    scratch.clear()


def test_locks_that_do_not_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    monkeypatch.setattr(filelock.FileLock, "_acquire", lambda self: setattr(
        self._context, "lock_file_fd", os.open(os.devnull, os.O_RDONLY)))  # fmt: skip
    monkeypatch.setattr(filelock.FileLock, "_release", lambda self: setattr(
        self._context, "lock_file_fd", None))  # fmt: skip
    [finding] = disks._check_locks(tmp_path, "strange")
    assert (finding.level, finding.topic) == ("fails", "locks")


def test_the_file_system_of_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def mounted(where: str, kind: str) -> object:
        return type("part", (), {"mountpoint": where, "fstype": kind})()

    mounts = [mounted("/", "ext4"), mounted(str(tmp_path), "autofs"), mounted(str(tmp_path), "nfs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)  # noqa: A006
    assert disks.file_system(tmp_path / "a" / "b") == "nfs"
    assert disks.file_system(tmp_path.parent) == "ext4"


class Codecs:
    """Those of imagecodecs, but one."""

    def __init__(self, missing: str) -> None:
        self._missing = missing

    def __getattr__(self, name: str) -> Any:
        import imagecodecs

        if name == self._missing:
            raise ImportError("no library")
        return getattr(imagecodecs, name)


@pytest.mark.parametrize(
    ("name", "level", "said"), [("jpeg8_decode", "fails", "JPEG"), ("webp_decode", "slow", "WebP")]
)
def test_a_codec_that_is_missing(name: str, level: str, said: str) -> None:
    assert [f.level for f in software.check_codecs()] == ["ok"]
    [finding] = software.check_codecs(Codecs(name))
    assert finding.level == level
    assert said in finding.what
    assert "ImportError" in finding.what


def test_a_driver_that_is_missing() -> None:
    assert [f.level for f in software.check_gdal()] == ["ok"]
    [finding] = software.check_gdal({"GTiff", "VRT", "PNG", "COG"})
    assert finding.level == "slow"
    assert "JP2OpenJPEG" in finding.what


def test_versions_that_will_not_do() -> None:
    assert [f.level for f in software.check_packages()] == ["ok"]
    lines = ["numpy>=99", "none-such-package>=1", "pytest>=99; extra == 'test'", "click>=1"]
    one, other = software.check_packages(lines)
    assert "numpy is" in one.what
    assert one.do == "pip install 'numpy>=99'"
    assert other.what == "none-such-package is missing"


def test_little_memory_for_the_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = type("used", (), {"rss": 300 * 10**6})  # by this process; by now it may be far more
    process = type("process", (), {"memory_info": lambda _: used})
    monkeypatch.setattr(psutil, "Process", process)
    levels = [
        finding.level
        for free in (10**8, 12 * 10**8, 10**10)
        for finding in image.check_model(str(model), free)
    ]
    assert levels == ["fails", "slow", "ok"]
    [finding] = image.check_model(str(model), 10**8)
    assert "0.10 GB are free" in finding.what


def test_a_control_group_bounds_what_a_run_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    free = type("memory", (), {"available": 64 * 10**9, "total": 64 * 10**9})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(machine, "default_memory", lambda grant: 4 * 10**9)
    [finding] = machine.check_memory(Grant())
    assert finding.level == "ok"
    assert "control group" not in finding.what
    [finding] = machine.check_memory(Grant(8 * 10**9, 3 * 10**9))
    assert finding.level == "ok"
    assert "5.00 GB of the 8.00 GB that the control group grants" in finding.what
    assert "a run takes up to 4.00 GB" in finding.what


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has control groups")
def test_control_groups_version_2(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "cgroup"
    own.write_text("0::/user/job\n")
    job = root / "user" / "job"
    job.mkdir(parents=True)
    (job / "memory.max").write_text("max\n")
    (job / "cpu.max").write_text("150000 100000\n")
    (root / "user" / "memory.max").write_text("4000000000\n")
    (root / "user" / "memory.current").write_text("1500000000\n")
    (root / "user" / "memory.stat").write_text("anon 1\ninactive_file 500000000\n")
    (root / "user" / "cpu.max").write_text("max 100000\n")
    assert granted(root, own) == Grant(4 * 10**9, 10**9, 1.5)
    assert granted(root, tmp_path / "none") == Grant()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has control groups")
def test_control_groups_version_1_from_within_a_container(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "cgroup"
    own.write_text("4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n")
    (root / "memory").mkdir(parents=True)
    (root / "memory" / "memory.limit_in_bytes").write_text("2000000000\n")
    (root / "memory" / "memory.usage_in_bytes").write_text("5000000\n")
    (root / "cpu,cpuacct").mkdir()
    (root / "cpu,cpuacct" / "cpu.cfs_quota_us").write_text("50000\n")
    (root / "cpu,cpuacct" / "cpu.cfs_period_us").write_text("100000\n")
    assert granted(root, own) == Grant(2 * 10**9, 5 * 10**6, 0.5)
    (root / "memory" / "memory.limit_in_bytes").write_text(f"{(1 << 63) - 4096}\n")
    (root / "cpu,cpuacct" / "cpu.cfs_quota_us").write_text("-1\n")
    assert granted(root, own) == Grant()


def test_bf16(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: X\nflags\t\t: fpu avx512_bf16 amx_tile\n")
    assert bf16_in_hardware(info) is True
    info.write_text("flags : fpu avx2\n")
    assert bf16_in_hardware(info) is False
    assert bf16_in_hardware(tmp_path / "none") is None


def test_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_THREAD_LIMIT", "OMP_PROC_BIND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert machine.check_cores(Grant(), 0.0)[0].level == "ok"
    [quota] = machine.check_cores(Grant(cpus=2.0), 0.0)
    assert quota.level == "ok"
    assert quota.what.startswith("2 ")
    assert "grants the time of 2" in quota.what
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    limit, load = machine.check_cores(Grant(cpus=2.0), 9.0)
    assert "OMP_THREAD_LIMIT" in limit.do
    assert "9.0" in load.what


def test_a_variable_that_makes_runs_fail_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_DEFAULT_FPMATH_MODE", raising=False)
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "BF16")
    first, second = machine.check_torch()
    assert first.level == "ok"
    assert (second.level, second.do) == ("fails", "unset DNNL_DEFAULT_FPMATH_MODE")
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "STRICT")
    assert machine.check_torch() == [first]
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "BF16")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert machine.check_torch()[1].level == "slow", "a GPU computes"


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = tmp_path / "enabled"
    pages.write_text("always madvise [never]\n")
    files, huge = machine.check_limits(pages, 256)
    assert "ulimit -n" in files.do
    assert "switched off" in huge.what
    pages.write_text("always [madvise] never\n")
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    [fine] = machine.check_limits(pages, 4096)
    assert (fine.level, fine.what) == ("ok", "4096 open files; huge pages: madvise")


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    seen = ["X100 (driver 550.1)"]
    [finding] = machine.check_gpu(seen)
    assert finding.level == "slow"
    assert "CPU build" in finding.what
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "hidden" in machine.check_gpu(seen)[0].what
    assert machine.check_gpu([])[0].level == "ok"


def test_an_image_that_is_read_slower_than_computed(tmp_path: Path, model: Path) -> None:
    slide = write_tiff(tmp_path / "slide.tif", make_image(600, 600))

    def reading(speed: float, large_piece: int = image.LARGE_PIECE) -> Finding:
        found = image.check_image(str(slide), str(model), tmp_path, lambda *_: speed, large_piece)
        return worst(found, "reading")

    assert reading(1000.0).level == "slow"
    assert "tilepipe convert" in reading(1000.0).do
    assert reading(1e12).level == "ok"
    assert reading(1e12, large_piece=100).level == "slow"


def test_an_image_that_a_run_would_refuse(tmp_path: Path, model: Path) -> None:
    grey = write_tiff(tmp_path / "grey.tif", make_image(300, 300, bands=1)[..., 0])
    diagnosis = tilepipe.doctor(grey, output=tmp_path, model=model)
    finding = worst(diagnosis.findings, "image")
    assert finding.level == "fails"
    assert "takes 3" in finding.what


def test_what_hangs_or_breaks_is_a_finding() -> None:
    let_go = threading.Event()
    [late] = findings.ask("disk", lambda: let_go.wait() and [], 0.2, "fails")  # type: ignore[arg-type, return-value]
    let_go.set()
    assert (late.level, late.what) == ("fails", "did not answer within 0 s")
    [broken] = findings.ask("disk", lambda: [1 / 0], 5)  # type: ignore[list-item]
    assert "ZeroDivisionError" in broken.what


def test_the_worst_comes_first() -> None:
    some = (
        Finding("a", "ok", ""),
        Finding("b", "slow", "", "do b"),
        Finding("c", "fails", "", "x"),
    )
    diagnosis = Diagnosis(some, 1.0)
    assert [f.topic for f in diagnosis.helps] == ["c", "b"]
    assert diagnosis.exit_code == 5
    assert Diagnosis(some[:2], 1.0).exit_code == 0


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    code = (
        # What a script starts in the background ignores it otherwise, tests as well.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tilepipe.diagnosis import disks\n"
        "from tilepipe.cli import call\n"
        "import time\n"
        "def measure(folder):\n"
        "    (folder / 'big').write_bytes(b'x'); print('measuring', flush=True); time.sleep(60)\n"
        "disks.measure = measure\n"
        f"raise SystemExit(call(['doctor', '-o', {str(tmp_path)!r}, '--json']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "measuring\n"
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".tilepipe-doctor-")]
    time.sleep(0.5)  # until the main thread waits for the other, which has begun
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
