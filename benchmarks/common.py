"""What every benchmark needs: its command line, the machine in words, and a CSV of figures."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import tilepipe.engine.work.device  # noqa: F401 - before torch: it makes torch's settings

HERE = Path(__file__).parent
WORK = Path(os.environ.get("TILEPIPE_BENCHMARKS", HERE / "work"))
"""Where images, models, masks and the environments of peers are kept."""
COLUMNS = ["date", "benchmark", "case", "figure", "value", "unit", "goal", "commit", "machine"]


def command_line(doc: str) -> argparse.ArgumentParser:
    """A parser that is described by the first line of a script's docstring."""
    return argparse.ArgumentParser(description=doc.splitlines()[0])


def parse(parser: argparse.ArgumentParser, **quick: Any) -> argparse.Namespace:
    """Read the command line of a benchmark, which takes ``--quick`` besides its own options.

    Parameters
    ----------
    parser
        With the benchmark's own options.
    quick
        Their defaults under ``--quick``: the smallest form, which only shows that the script
        works. Its figures mean nothing, and go to ``quick.csv`` in `WORK`.
    """
    parser.add_argument("--quick", action="store_true", help="the smallest form: does it work?")
    if "--quick" in sys.argv[1:]:
        parser.set_defaults(**quick)
        os.environ.setdefault("TILEPIPE_FIGURES", str(WORK / "quick.csv"))
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    return options


def figures() -> Path:
    """Where figures go; ``TILEPIPE_FIGURES`` names another place, for trials."""
    return Path(os.environ.get("TILEPIPE_FIGURES", HERE / "figures.csv"))


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


def record(benchmark: str, case: str, found: list[tuple[str, float, str, str]]) -> None:
    """Append figures (name, value, unit, goal) to the CSV, and print them."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True,
        check=False,
    ).stdout.strip()  # fmt: skip
    path = figures()
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        rows = csv.writer(file)
        if fresh:
            rows.writerow(COLUMNS)
        for name, value, unit, goal in found:
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


def plain_slide(side: int) -> Path:
    """The same slide in tiles that are not compressed."""
    path = WORK / f"slide_{side}_plain.tif"
    if not path.exists():
        import tifffile

        pixels = tifffile.imread(sample_slide(side), level=0)
        tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    return path


def sample_scene(side: int) -> Path:
    """The same pixels as a GeoTIFF: half a metre, deflated in tiles of 512, with overviews."""
    path = WORK / f"scene_{side}.tif"
    if not path.exists():
        import rasterio
        import tifffile

        path.parent.mkdir(parents=True, exist_ok=True)
        place = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
        with rasterio.open(
            path, "w", driver="COG", width=side, height=side, count=3, dtype="uint8",
            crs="EPSG:32633", transform=place, compress="deflate",
        ) as file:  # fmt: skip
            file.write(tifffile.imread(sample_slide(side), level=0).transpose(2, 0, 1))
    return path


def random_model(name: str, pixel_size: float | None = 0.25, **arguments: Any) -> Path:
    """A model of random weights, always the same ones, whose answer varies over an image.

    ``pixel_size`` is in micrometres.
    """
    path = WORK / f"{name}.safetensors"
    if not path.exists():
        sys.path.insert(0, str(HERE.parent))
        from tests.making import save_tiny
        from tilepipe.models.unet import UNetArguments

        save_tiny(path, UNetArguments(**arguments), pixel_size_um=pixel_size)
    return path


def fresh(*paths: Path) -> None:
    """Remove what an earlier run left."""
    import shutil

    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Measured:
    """One command, measured from outside."""

    seconds: float
    """Wall time of the whole process."""
    peak: int
    """Bytes: the largest sum, over the process tree, of each one's proportional set size."""
    output: str
    """What it printed."""


SAMPLE_SECONDS = 0.05
SAMPLE_SHARE = 0.02
"""At most this share of the time goes into sampling: walking a page table takes the longer the
more memory a process has, and keeps it from getting more meanwhile."""


def measure(words: list[Any], env: dict[str, str] | None = None) -> Measured:
    """Run a command; its time and the peak memory of its process tree.

    Ends the benchmark where the command fails, with what it said.
    """
    import tempfile

    import psutil

    with tempfile.TemporaryFile("w+") as said:
        begin, peak = time.perf_counter(), 0
        with subprocess.Popen(
            [str(word) for word in words], env=env, stdout=said, stderr=subprocess.STDOUT
        ) as process:
            root = psutil.Process(process.pid)
            while process.poll() is None:
                sampling = time.perf_counter()
                peak = max(peak, _memory_of(root))
                pause = (time.perf_counter() - sampling) / SAMPLE_SHARE
                try:
                    process.wait(max(SAMPLE_SECONDS, pause))
                except subprocess.TimeoutExpired:
                    continue
            seconds = time.perf_counter() - begin
        said.seek(0)
        output = said.read()
    if process.returncode:
        raise SystemExit(f"{output}\n{words} ended with {process.returncode}")
    return Measured(seconds, peak, output)


def _memory_of(root: Any) -> int:
    """Bytes that a process and its children have now."""
    import psutil

    total = 0
    try:
        family = (root, *root.children(recursive=True))
    except psutil.Error:
        return 0
    for each in family:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def command(*words: Any) -> list[str]:
    """The command line of tilepipe in this environment."""
    return [sys.executable, "-m", "tilepipe", *(str(word) for word in words)]


def whole_run(
    image: Path, model: Any, outputs: list[Path], *words: Any
) -> tuple[Measured, dict[str, Any]]:
    """A whole `tilepipe run` that starts over: measured from outside, and its run record."""
    name = outputs[0].name.removesuffix(outputs[0].suffix).removesuffix(".ome")
    told = outputs[0].with_name(f"{name}.run.json")
    fresh(*outputs, told)
    targets = [word for output in outputs for word in ("-o", output)]
    measured = measure(command("run", image, "-m", model, *targets, "--quiet", *words))
    return measured, json.loads(told.read_text())
