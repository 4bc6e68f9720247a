"""What this machine's processor has, and what it grants this process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path


def bf16_in_hardware(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether the processor multiplies bf16 by itself; None where the system does not say."""
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
    """What the control groups of Linux grant this process, where they grant less than all."""

    memory: int | None = None
    """Bytes."""
    memory_used: int = 0
    cpus: float | None = None
    """Cores' worth of time."""


def granted(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Grant:
    """The narrowest limits of this process's control groups, version 1 or 2, and of their parents.

    Containers and batch systems set them; the machine's memory and cores show as if they were not
    there, and a process that goes beyond the memory is killed.
    """
    if not sys.platform.startswith("linux"):
        return Grant()
    memory: list[tuple[int, int]] = []
    cpus: list[float] = []
    for folder, controllers in _folders(root, own):
        if "memory" in controllers:
            limit = _number(folder, "memory.max", "memory.limit_in_bytes")
            if limit is not None and limit < 1 << 60:
                used = _number(folder, "memory.current", "memory.usage_in_bytes") or 0
                memory.append((limit, max(0, used - _reclaimable(folder))))
        if "cpu" in controllers:
            quota = _quota(folder)
            if quota is not None:
                cpus.append(quota)
    # The group that has least left is the one that ends the process.
    limit, used = min(memory, key=lambda pair: pair[0] - pair[1], default=(None, 0))
    return Grant(limit, used, min(cpus, default=None))


def _folders(root: Path, own: Path) -> list[tuple[Path, set[str]]]:
    """Folders of this process's groups, each with all its parents, and what they control."""
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
                # Inside a container, the path may be the host's, and only the top be there.
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
    """Bytes of file cache in a group's usage, which the kernel takes back before it kills."""
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
