"""Processor, memory, limits and GPU of this machine."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

from tilepipe.diagnosis.findings import Finding
from tilepipe.engine.hardware import (
    Grant,
    bf16_in_hardware,
    cores,
    default_memory,
    free_memory,
    granted,
)
from tilepipe.models.onednn import reduced_float32
from tilepipe.text import gigabytes

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ENOUGH_FILES = 1024
BUSY = 0.5
"""Share of the cores in use by others that slows a run noticeably."""


def check_torch() -> list[Finding]:
    """Check the build of torch, and which instructions its kernels use."""
    from tilepipe._torch import torch

    findings = []
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    capability = torch.backends.cpu.get_cpu_capability()
    bf16 = {True: "bf16 in hardware", False: "no bf16 in hardware", None: ""}[bf16_in_hardware()]
    what = ", ".join(filter(None, [f"{torch.__version__}, {build}", capability, bf16]))
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        findings.append(
            Finding("torch", "slow", f"{what}; without oneDNN, convolutions are slow",
                    "install torch as its own instructions say")
        )  # fmt: skip
    elif capability in ("DEFAULT", "NO AVX"):
        findings.append(
            Finding("torch", "slow", f"{what}: it uses no vector instructions of this processor",
                    "unset ATEN_CPU_CAPABILITY, or use a processor with AVX2")
        )  # fmt: skip
    else:
        findings.append(Finding("torch", "ok", what))
    if (variable := reduced_float32()) is not None:
        findings.append(
            Finding("torch", "slow" if torch.cuda.is_available() else "fails",
                    f"{variable} lets oneDNN compute float32 at reduced precision: training, "
                    "and runs on the CPU in fp32 and int8, are refused", f"unset {variable.name}")
        )  # fmt: skip
    return findings


def check_cores(grant: Grant | None = None, load: float | None = None) -> list[Finding]:
    """Check the cores of this process, and what keeps passes from using them.

    Parameters
    ----------
    grant
        Of the control group [as it is].
    load
        Average of the last minute [as it is].
    """
    grant = granted() if grant is None else grant
    load = os.getloadavg()[0] if load is None else load
    usable, there = cores(grant), os.cpu_count() or 1
    what = f"{usable} cores" if usable == there else f"{usable} of {there} cores"
    if grant.cpus is not None and usable < cores(Grant()):
        what += f" (the control group grants the time of {grant.cpus:.3g})"
    findings = []
    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    if limit.isdigit() and int(limit) < usable:
        findings.append(
            Finding("cores", "slow", f"OMP_THREAD_LIMIT={limit} keeps a pass from using {usable} "
                    "cores", "unset OMP_THREAD_LIMIT")
        )  # fmt: skip
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE":
        findings.append(
            Finding("cores", "slow", "OMP_WAIT_POLICY=ACTIVE: threads that wait spin, and take the "
                    "cores that reading needs", "unset OMP_WAIT_POLICY")
        )  # fmt: skip
    if os.environ.get("OMP_PROC_BIND", "").lower() not in ("", "false"):
        findings.append(
            Finding("cores", "slow", f"OMP_PROC_BIND={os.environ['OMP_PROC_BIND']} binds the "
                    "threads of all workers to the same cores", "unset OMP_PROC_BIND")
        )  # fmt: skip
    if load > BUSY * usable + 1:
        findings.append(
            Finding("cores", "slow", f"{what}, busy with other work: a load of {load:.1f} over the "
                    "last minute", "wait for it, or end it")
        )  # fmt: skip
    if not findings:
        told = os.environ.get("OMP_NUM_THREADS")
        note = f"; OMP_NUM_THREADS={told} has no effect, a pass uses --threads" if told else ""
        findings.append(Finding("cores", "ok", f"{what}, load {load:.1f}{note}"))
    return findings


def check_memory(grant: Grant | None = None) -> list[Finding]:
    """Check the memory that this process may use, and swap."""
    import psutil

    grant = granted() if grant is None else grant
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    what = f"{gigabytes(memory.available)} free of {gigabytes(memory.total)}"
    left = free_memory(grant)
    if left < memory.available and grant.memory is not None:
        what += f", and {gigabytes(left)} of the {gigabytes(grant.memory)} that the control group"
        what += " grants"
    what += f"; a run takes up to {gigabytes(default_memory(grant))} unless --memory is given"
    findings = []
    if swap.total and swap.used > max(1e9, 0.5 * swap.total):
        findings.append(
            Finding("memory", "slow", f"{gigabytes(swap.used)} are swapped out: memory is short",
                    "end what uses it")
        )  # fmt: skip
    return findings or [Finding("memory", "ok", what)]


def check_limits(huge_pages: Path = HUGE_PAGES, files: int | None = None) -> list[Finding]:
    """Check how many files may be open, and huge pages.

    Parameters
    ----------
    huge_pages
        File of the system's setting.
    files
        That may be open [the limit of this process].
    """
    findings = []
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if files is None else files
    if 0 <= files < ENOUGH_FILES:
        findings.append(
            Finding("limits", "slow", f"{files} open files at most: too few for many workers",
                    f"ulimit -n {4 * ENOUGH_FILES}")
        )  # fmt: skip
    try:
        setting = huge_pages.read_text()
    except OSError:
        setting = ""
    off = os.environ.get("THP_MEM_ALLOC_ENABLE", "1") == "0"
    if "[never]" in setting:
        findings.append(
            Finding("limits", "slow", "huge pages are switched off: passes on the CPU wait for "
                    "fresh memory", f"as root: echo madvise > {huge_pages}")
        )  # fmt: skip
    elif off and setting:
        findings.append(
            Finding("limits", "slow", "THP_MEM_ALLOC_ENABLE=0 keeps torch from huge pages: passes "
                    "on the CPU wait for fresh memory", "unset THP_MEM_ALLOC_ENABLE")
        )  # fmt: skip
    if not findings:
        pages = f"; huge pages: {setting[setting.find('[') + 1 : setting.find(']')]}"
        what = f"{files} open files" + (pages if "[" in setting else "")
        findings.append(Finding("limits", "ok", what))
    return findings


def check_gpu(seen: list[str] | None = None) -> list[Finding]:
    """Check the GPUs, and whether torch can use what the driver sees.

    Parameters
    ----------
    seen
        Name and driver of each GPU [as nvidia-smi reports them].
    """
    from tilepipe._torch import torch

    seen = _nvidia_smi() if seen is None else seen
    if torch.cuda.is_available():
        names = []
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            names.append(f"{torch.cuda.get_device_name(i)}, {gigabytes(free)} free of "
                         f"{gigabytes(total)}")  # fmt: skip
        return [Finding("GPU", "ok", "; ".join(names))]
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") and seen:
        return [Finding("GPU", "slow", f"{seen[0]} is hidden by CUDA_VISIBLE_DEVICES",
                        "unset CUDA_VISIBLE_DEVICES")]  # fmt: skip
    if seen and torch.version.cuda is None:
        return [Finding("GPU", "slow", f"{seen[0]} is present, but torch is a CPU build",
                        "install a CUDA build of torch, as its own instructions say")]  # fmt: skip
    if seen:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            reason = "torch sees no device"
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
        return [Finding("GPU", "slow", f"{seen[0]} is present, but torch, built for CUDA "
                        f"{torch.version.cuda}, cannot use it ({reason})",
                        "update the driver, or install the torch for it")]  # fmt: skip
    if torch.version.cuda is not None and Path("/dev/nvidiactl").exists():
        return [Finding("GPU", "slow", "a GPU is present, but its driver does not answer",
                        "see nvidia-smi")]  # fmt: skip
    return [Finding("GPU", "ok", "none; passes run on the CPU")]


def _nvidia_smi() -> list[str]:
    """Name and driver of each GPU that nvidia-smi lists."""
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=3, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.replace(", ", " (driver ") + ")" for line in result.stdout.splitlines() if line]
