"""What every benchmark needs: a description of the machine, and a CSV of figures."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import tilepipe.engine.device  # noqa: F401 - before torch: it makes torch's settings

HERE = Path(__file__).parent
WORK = HERE / "work"
FIGURES = HERE / "figures.csv"
COLUMNS = ["date", "benchmark", "case", "figure", "value", "unit", "goal", "commit", "machine"]


def machine() -> str:
    """Processor, cores, memory, and the versions that count."""
    import psutil
    import torch

    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":")[1].strip()
            break
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{name} ({torch.backends.cpu.get_cpu_capability()}), "
        f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB{gpu}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def record(benchmark: str, case: str, figures: list[tuple[str, float, str, str]]) -> None:
    """Append figures (name, value, unit, goal) to the CSV, and print them."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True,
        check=False,
    ).stdout.strip()  # fmt: skip
    fresh = not FIGURES.exists()
    with FIGURES.open("a", newline="") as file:
        rows = csv.writer(file)
        if fresh:
            rows.writerow(COLUMNS)
        for name, value, unit, goal in figures:
            rows.writerow(
                [date.today(), benchmark, case, name, f"{value:.4g}", unit, goal, commit, machine()]
            )
            print(f"{benchmark}  {case}  {name}: {value:.4g} {unit}  {goal}")


def sample_slide(side: int) -> Path:
    """The tissue sample as a JPEG-tiled slide of ``side`` x ``side``, made once."""
    path = WORK / f"slide_{side}.tif"
    if not path.exists():
        script = HERE.parent / "workflows" / "make_sample.py"
        subprocess.run([sys.executable, script, path, "--side", str(side)], check=True)
    return path


def fresh(*paths: Path) -> None:
    """Remove what an earlier run left."""
    import shutil

    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def command(*words: Any) -> list[str]:
    """The command line of tilepipe in this environment."""
    return [sys.executable, "-m", "tilepipe", *(str(word) for word in words)]
