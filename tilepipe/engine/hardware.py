"""The cores, memory and instructions that this process may use."""

from __future__ import annotations

import os
import resource
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from tilepipe.models.onednn import limit_leaves_bf16

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")

MEMORY_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
"""Files of limits: where the kernel kills and slows processes (version 2), and for version 1."""
NO_LIMIT = 1 << 60
"""Limits of version 1 that mean "unlimited", in bytes and above."""

MACHINE_SHARE = 0.5
"""The share of the machine's free memory that a run takes by default; others use it too."""
GROUP_SHARE = 0.8
"""The share of a control group's free memory that a run takes by default."""


def bf16_in_hardware(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether passes have bf16 instructions; None if the system does not list the processor's."""
    if not limit_leaves_bf16():
        return False
    try:
        text = cpuinfo.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):  # x86, ARM
            return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags.split())
    return None


@dataclass(frozen=True, slots=True)
class Grant:
    """The limits of this process's control groups on Linux."""

    memory: int | None = None
    """The memory limit in bytes; None: unlimited."""
    memory_used: int = 0
    """The memory in use in bytes."""
    cpus: float | None = None
    """The CPU time limit, in cores; None: unlimited."""

    @property
    def left(self) -> int | None:
        """Bytes that the group may still take; None if it has no limit."""
        return None if self.memory is None else max(0, self.memory - self.memory_used)


def cores(grant: Grant | None = None) -> int:
    """The number of CPU cores that this process may use, by its affinity and control groups."""
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    grant = granted() if grant is None else grant
    return usable if grant.cpus is None else min(usable, max(1, round(grant.cpus)))


def free_memory(grant: Grant | None = None) -> int:
    """Bytes that this process may still take from the machine and its control groups."""
    grant = granted() if grant is None else grant
    free = int(psutil.virtual_memory().available)
    return free if grant.left is None else min(free, grant.left)


def most_memory(grant: Grant | None = None) -> int:
    """Bytes that this process could take if nothing else were running."""
    grant = granted() if grant is None else grant
    total = int(psutil.virtual_memory().total)
    return total if grant.memory is None else min(total, grant.memory)


def default_memory(grant: Grant | None = None) -> int:
    """The default memory limit of a run in bytes; memory that this process holds is included."""
    grant = granted() if grant is None else grant
    held = int(psutil.Process().memory_info().rss)
    usual = int(MACHINE_SHARE * (psutil.virtual_memory().available + held))
    return usual if grant.left is None else min(usual, int(GROUP_SHARE * (grant.left + held)))


def memory_group() -> str:
    """The name of the machine and its control groups; processes of one name share their memory."""
    try:
        return f"{socket.gethostname()} {OWN_CGROUPS.read_text()}"
    except OSError:
        return socket.gethostname()


def granted(root: Path | None = None, own: Path | None = None) -> Grant:
    """The tightest limits of this process's control groups (version 1 or 2) and their parents.

    Containers and batch systems set them. The system still reports the whole machine's memory, but
    kills a process that exceeds the limit, or slows it to a crawl.
    """
    root, own = root or CGROUPS, own or OWN_CGROUPS
    if not sys.platform.startswith("linux"):
        return Grant()
    memory: list[tuple[int, int]] = []
    cpus: list[float] = []
    for folder, controllers in _folders(root, own):
        if "memory" in controllers:
            found = [_number(folder, name) for name in MEMORY_LIMITS]
            limits = [limit for limit in found if limit is not None and limit < NO_LIMIT]
            if limits:
                used = _number(folder, "memory.current", "memory.usage_in_bytes") or 0
                memory.append((min(limits), max(0, used - _reclaimable(folder))))
        if "cpu" in controllers:
            quota = _quota(folder)
            if quota is not None:
                cpus.append(quota)
    # The group with the least left is the one that limits the process.
    limit, used = min(memory, key=lambda pair: pair[0] - pair[1], default=(None, 0))
    return Grant(limit, used, min(cpus, default=None))


def _folders(root: Path, own: Path) -> list[tuple[Path, set[str]]]:
    """The folders of this process's groups and all their parents, with what they control."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and names == "":
            tops, controllers = [root, root / "unified"], {"memory", "cpu"}
        else:
            controllers = set(names.split(","))
            tops = [root / names, *(root / name for name in controllers)]
        parts = [part for part in path.split("/") if part and part != ".."]
        for top in tops:
            if top.is_dir():
                # In a container, the path may be the host's, and only the top may exist.
                found += [
                    (top.joinpath(*parts[:n]), controllers)
                    for n in range(len(parts) + 1)
                    if top.joinpath(*parts[:n]).is_dir()
                ]
                break
    return found


def _number(folder: Path, *names: str) -> int | None:
    for name in names:
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):  # ValueError: "max"
            continue
    return None


def _reclaimable(folder: Path) -> int:
    """Bytes of file cache in a group's usage, which the kernel frees before it kills."""
    try:
        text = (folder / "memory.stat").read_text()
    except OSError:
        return 0
    values = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
    found = values.get("total_inactive_file", values.get("inactive_file", "0"))
    return int(found) if found.isdigit() else 0


def _quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    quota_us = _number(folder, "cpu.cfs_quota_us")
    period_us = _number(folder, "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def peak_memory() -> int:
    """The peak memory of this process in bytes."""
    try:
        # The value of getrusage includes the peak of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        pass  # not Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
