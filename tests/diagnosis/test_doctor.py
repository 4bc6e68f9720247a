"""The doctor on good and on broken set-ups."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
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
    monkeypatch.setattr(machine, "granted", lambda: Grant())  # whatever this machine grants
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.0, 0.0, 0.0))


def worst(found: list[Finding] | tuple[Finding, ...], topic: str) -> Finding:
    mine = [finding for finding in found if finding.topic == topic]
    return min(mine, key=lambda finding: findings.WORST_FIRST.index(finding.level))


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
    assert "is no folder" in disks.check_folder(tmp_path / "file")[0].what
    assert "no such folder" in disks.check_folder(tmp_path / "none")[0].what
    assert disks.check_folder(tmp_path) == []
    if Path("/proc/self").exists():
        assert "cannot be written to" in disks.check_folder(Path("/proc"))[0].what


def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 10**9, "total": 10**12})
    monkeypatch.setattr(disks.shutil, "disk_usage", lambda _: usage)
    assert disks.check_room(tmp_path, 10**8)[0].level == "ok"
    assert disks.check_room(tmp_path, 3 * 10**9)[0].level == "slow"
    assert disks.check_room(tmp_path, 10**11)[0].level == "fails"
    usage.free = 1000
    assert disks.check_room(tmp_path)[0].level == "fails"


@pytest.mark.parametrize(("kind", "level"), [
    ("ext4", "ok"), ("nfs4", "ok"), ("tmpfs", "slow"), ("overlay", "slow"),
])  # fmt: skip
def test_kinds_of_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, level: str
) -> None:
    monkeypatch.setattr(disks, "file_system", lambda _: kind)
    monkeypatch.setattr(disks, "measure", lambda _: disks.Speeds(1e9, 1e9, 1000))
    scratch = disks.Scratch()
    [finding] = disks.check_disk(tmp_path, scratch)
    assert finding.level == level
    assert ("network" in finding.what) == (kind == "nfs4")
    scratch.clear()
    assert list(tmp_path.iterdir()) == []


def test_slow_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "file_system", lambda _: "ext4")
    for speeds in (disks.Speeds(1e6, 1e9, 1000), disks.Speeds(1e9, 1e6, 1000),
                   disks.Speeds(1e9, None, 3)):  # fmt: skip
        monkeypatch.setattr(disks, "measure", lambda _, s=speeds: s)
        scratch = disks.Scratch()
        assert disks.check_disk(tmp_path, scratch)[0].level == "slow"
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


def test_a_codec_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import imagecodecs

    assert [f.level for f in software.check_codecs()] == ["ok"]

    def missing(*_: object) -> None:
        raise ImportError("no libjpeg")

    monkeypatch.setattr(imagecodecs, "jpeg8_decode", missing)
    assert software.check_codecs()[0].level == "fails"
    monkeypatch.undo()
    monkeypatch.setattr(imagecodecs, "webp_decode", missing)
    [finding] = software.check_codecs()
    assert finding.level == "slow"
    assert "WebP" in finding.what
    assert "ImportError" in finding.what


def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from rasterio.env import Env

    assert [f.level for f in software.check_gdal()] == ["ok"]
    monkeypatch.setattr(Env, "drivers", lambda _: {"GTiff": "", "VRT": "", "PNG": "", "COG": ""})
    [finding] = software.check_gdal()
    assert finding.level == "slow"
    assert "JP2OpenJPEG" in finding.what


def test_versions_that_will_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.level for f in software.check_packages()] == ["ok"]
    lines = ["numpy>=99", "none-such-package>=1", "pytest>=99; extra == 'test'", "click>=1"]
    monkeypatch.setattr(software, "requires", lambda _: lines)
    one, other = software.check_packages()
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
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(machine, "granted", lambda: Grant())
    assert machine.check_cores()[0].level == "ok"
    monkeypatch.setattr(machine, "granted", lambda: Grant(cpus=2.0))
    [quota] = machine.check_cores()
    assert quota.level == "ok"
    assert quota.what.startswith("2 ")
    assert "grants the time of 2" in quota.what
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (9.0, 0.0, 0.0))
    limit, load = machine.check_cores()
    assert "OMP_THREAD_LIMIT" in limit.do
    assert "9.0" in load.what


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = tmp_path / "enabled"
    pages.write_text("always madvise [never]\n")
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (256, 4096))
    files, huge = machine.check_limits(pages)
    assert "ulimit -n" in files.do
    assert "switched off" in huge.what
    pages.write_text("always [madvise] never\n")
    monkeypatch.undo()
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (4096, 4096))
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    [fine] = machine.check_limits(pages)
    assert (fine.level, fine.what) == ("ok", "4096 open files; huge pages: madvise")


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(machine, "_nvidia_smi", lambda: ["X100 (driver 550.1)"])
    [finding] = machine.check_gpu()
    assert finding.level == "slow"
    assert "CPU build" in finding.what
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "hidden" in machine.check_gpu()[0].what
    monkeypatch.setattr(machine, "_nvidia_smi", list)
    assert machine.check_gpu()[0].level == "ok"


def test_an_image_that_is_read_slower_than_computed(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = write_tiff(tmp_path / "slide.tif", make_image(600, 600))
    monkeypatch.setattr(image, "reading_speed", lambda *_: 1000.0)
    finding = worst(image.check_image(str(slide), str(model), tmp_path), "reading")
    assert finding.level == "slow"
    assert "tilepipe convert" in finding.do
    monkeypatch.setattr(image, "reading_speed", lambda *_: 1e12)
    assert worst(image.check_image(str(slide), str(model), tmp_path), "reading").level == "ok"
    monkeypatch.setattr(image, "LARGE_PIECE", 100)
    assert worst(image.check_image(str(slide), str(model), tmp_path), "reading").level == "slow"


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
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
