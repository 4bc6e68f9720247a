"""tilepipe against its peers: same network, weights, slide and precision, in turns, in one run.

    python benchmarks/peers/install.py
    python benchmarks/compare.py [--sides 4096 8192 16384] [--precisions fp32 bf16 int8]
        [--tools ...]

Whole processes, from the command to a label mask on the disk; `common.measure` takes time and
peak memory from outside. Each peer runs with the batch (and readers, and threads) with which it
was fastest on a slide of ``--tune-side`` pixels just before. Every mask is compared with
tilepipe's, which `tilepipe verify` has proved to be the whole-image answer.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    HERE,
    WORK,
    Measured,
    command,
    command_line,
    fresh,
    measure,
    parse,
    random_model,
    record,
    sample_scene,
    sample_slide,
    whole_run,
)

ENVS = WORK / "envs"
REPEATS = {4096: 5, 8192: 3, 16384: 2}
"""By side; small ones are short, and the noise is larger than what they differ by."""
EDGE = 1024
"""Width of the border that is left out of one of the two comparisons: how tools continue an image
beyond its edge is their affair, and must not hide or excuse what they do within."""

MODELS = {
    "valid": lambda: HERE.parent / "tilepipe" / "models" / "weights" / "nuclei-he.safetensors",
    "padded": lambda: random_model("padded16", width=16, padding="same"),
    "scene": lambda: random_model("padded16_scene", pixel_size=None, width=16, padding="same"),
}
"""The shipped model; and for tools that want outputs as large as inputs, a padded U-Net of the same
width and depth with random weights, for slides and for scenes of any pixel size."""


@dataclass(frozen=True)
class Tool:
    """One way to segment a slide."""

    title: str
    network: str
    """Which of `MODELS`."""
    environment: str = ""
    """Of `ENVS`; empty for tilepipe, which runs in this one."""
    tuning: tuple[tuple[Any, ...], ...] = ((),)
    """Settings to choose the fastest of."""
    fixed: tuple[Any, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    """Environment variables."""
    suffix: str = ".tif"


BATCHES = tuple(("--batch", n) for n in (1, 2, 4, 8))
TOOLS = {
    "tilepipe": Tool("tilepipe", "valid", suffix=".ome.zarr"),
    "tilepipe-torch": Tool(
        "tilepipe, torch alone", "valid", fixed=("--runtime", "torch"), suffix=".ome.zarr"
    ),
    "tiatoolbox": Tool(
        "TIAToolbox SemanticSegmentor", "valid", "tiatoolbox",
        (*BATCHES, ("--batch", 4, "--loaders", 1), ("--batch", 4, "--loaders", 2)), suffix=".zarr",
    ),
    "loop": Tool("plain PyTorch loop", "valid", "loop", BATCHES),
    "loop-settings": Tool(
        "plain PyTorch loop, tilepipe's settings for torch", "valid", "loop", BATCHES,
        settings={"THP_MEM_ALLOC_ENABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    ),
    "dask": Tool(
        "dask.array.map_overlap", "valid", "dask",
        (("--threads-per-pass", 1), ("--threads-per-pass", 2)), suffix=".zarr",
    ),
    "dask-large": Tool(
        "dask.array.map_overlap, chunks of 2052", "valid", "dask",
        (("--threads-per-pass", 1), ("--threads-per-pass", 2)), ("--chunk", 2052), suffix=".zarr",
    ),
    "tilepipe-padded": Tool("tilepipe", "padded", suffix=".ome.zarr"),
    "monai": Tool("MONAI sliding_window_inference", "padded", "monai", BATCHES),
    "tilepipe-scene": Tool("tilepipe", "scene"),
    "geoai": Tool(
        "geoai predict_geotiff", "scene", "geoai",
        tuple((*batch, "--tile", side) for batch in BATCHES for side in (256, 512)),
    ),
}  # fmt: skip
REFERENCE = {"valid": "tilepipe", "padded": "tilepipe-padded", "scene": "tilepipe-scene"}
GOALS = {
    ("tiatoolbox", "fp32"): (8192, 2.5), ("tiatoolbox", "int8"): (8192, 6.0),
    ("loop", "fp32"): (4096, 1.0),
}  # fmt: skip
"""Speeds over the peer's, from a side of the slide on. In int8, peers compute in fp32."""
DISTRIBUTIONS = {
    "tiatoolbox": "tiatoolbox", "monai": "monai", "dask": "dask", "geoai": "geoai-py",
}  # fmt: skip


def has_bf16() -> bool:
    """Whether this CPU multiplies bf16 by itself."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def python_of(tool: Tool) -> Path:
    """The peer's interpreter."""
    return ENVS / tool.environment / "bin" / "python"


def installed(name: str) -> bool:
    """Whether a tool's interpreter is there; tilepipe's always is."""
    return not TOOLS[name].environment or python_of(TOOLS[name]).exists()


def title_of(tool: Tool) -> str:
    """The tool, with the version of the peer that it is."""
    if tool.environment not in DISTRIBUTIONS:
        return tool.title
    name = DISTRIBUTIONS[tool.environment]
    code = f"from importlib.metadata import version; print(version('{name}'))"
    said = subprocess.run([python_of(tool), "-c", code], capture_output=True, text=True, check=True)
    return f"{tool.title} ({name} {said.stdout.strip()})"


def output_of(name: str, side: int, precision: str) -> Path:
    """Where a tool's mask goes."""
    return WORK / f"compare_{name}_{side}_{precision}{TOOLS[name].suffix}"


def image_of(tool: Tool, side: int) -> Path:
    """What a tool segments: the slide, or the same pixels as a GeoTIFF."""
    return sample_scene(side) if tool.network == "scene" else sample_slide(side)


def run(name: str, side: int, precision: str, settings: tuple[Any, ...], threads: int) -> Measured:
    """One whole run of a tool."""
    tool, output = TOOLS[name], output_of(name, side, precision)
    model, image = MODELS[tool.network](), image_of(tool, side)
    quantises = not tool.environment and not tool.fixed
    words = ("--precision", precision if quantises or precision != "int8" else "fp32")
    words = (*words, "--threads", threads, *tool.fixed)
    if not tool.environment:
        return whole_run(image, model, [output], *words)[0]
    fresh(output)
    environment = os.environ | tool.settings | {"HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)  # tilepipe's packages are not theirs
    script = HERE / "peers" / f"{tool.environment}_peer.py"
    peer = [python_of(tool), script, model, image, output, *words, *settings]
    return measure(peer, environment)


@functools.cache
def tuned(name: str, side: int, precision: str, threads: int) -> tuple[Any, ...]:
    """The settings with which a peer is fastest, of those that it is tried with; best of two.

    The first of them where there is nothing to try, or no ``side`` to try it on.
    """
    tool = TOOLS[name]
    if len(tool.tuning) == 1 or not side:
        return tool.tuning[0]
    seconds = {
        settings: min(run(name, side, precision, settings, threads).seconds for _ in range(2))
        for settings in tool.tuning
    }
    best = min(seconds, key=seconds.__getitem__)
    for settings, value in sorted(seconds.items(), key=lambda item: item[1]):
        print(f"  {name} {precision} {' '.join(map(str, settings))}: {value:.2f} s", flush=True)
    return best


def rows_of(path: Path) -> Any:
    """A mask, to be read by rows: what a tool wrote."""
    if path.name.endswith(".ome.zarr"):
        import tilepipe

        return tilepipe.open_mask(path).as_dask()
    if path.suffix == ".zarr":
        import zarr

        opened = zarr.open(path, mode="r")
        return opened["predictions"] if isinstance(opened, zarr.Group) else opened
    import tifffile

    return tifffile.imread(path)


def different(path: Path, reference: Path) -> tuple[float, float, float]:
    """Shares of labels unlike the reference's: of all, away from the edge, and of its foreground.

    The last one is in relation to the reference's pixels that are not background.
    """
    one, other = rows_of(path), rows_of(reference)
    height, width = other.shape
    if tuple(one.shape) != (height, width):
        raise SystemExit(f"{path}: is {one.shape}, and not {other.shape}")
    edge = min(EDGE, height // 4)
    total = inner = foreground = 0
    for top in range(0, height, 2048):
        rows = slice(top, min(height, top + 2048))
        theirs, ours = np.asarray(one[rows]), np.asarray(other[rows])
        unlike = theirs != ours
        total += int(unlike.sum())
        foreground += int((ours > 0).sum())
        within = slice(max(edge - top, 0), max(0, min(height - edge - top, 2048)))
        inner += int(unlike[within, edge : width - edge].sum())
    inside = (height - 2 * edge) * (width - 2 * edge)
    return total / (height * width), inner / inside, total / max(1, foreground)


def compare(side: int, precision: str, names: list[str], options: argparse.Namespace) -> int:
    """All tools in turns on one slide, and their rows; tilepipe's peak memory in bytes."""
    repeats = options.repeats or REPEATS.get(side, 3)
    settings = {
        name: tuned(name, min(side, options.tune_side), precision, options.threads)
        for name in names
    }
    for name in names:
        image_of(TOOLS[name], side).read_bytes()  # into the disk's cache, for the first one too
    measured: dict[str, list[Measured]] = {name: [] for name in names}
    for repeat in range(repeats):
        # Another one begins each time, so that none always follows the same neighbour.
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            measured[name].append(run(name, side, precision, settings[name], options.threads))
            print(f"  {name}: {measured[name][-1].seconds:.1f} s", flush=True)

    for name in names:
        tool = TOOLS[name]
        seconds = statistics.median(one.seconds for one in measured[name])
        figures = [
            ("speed of the whole command", side**2 / 1e6 / seconds, "Mpx/s", ""),
            ("time of the whole command", seconds, "s", ""),
            ("peak of all processes", max(one.peak for one in measured[name]) / 1e9, "GB", ""),
        ]
        reference = REFERENCE[tool.network]
        if name == reference:
            proved = subprocess.run(
                command("verify", output_of(name, side, precision), "--windows", "8"),
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            figures.append(("`tilepipe verify` ends with", proved.returncode, "", "0"))
            exact = output_of(name, side, "fp32")
            if precision != "fp32" and exact.exists():
                unlike = different(output_of(name, side, precision), exact)[0]
                figures.append(("labels unlike its own in fp32", 100 * unlike, "%", "<= 0.5"))
        elif reference in measured:
            ours = [one.seconds for one in measured[reference]]
            theirs = [one.seconds for one in measured[name]]
            ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
            least, goal = GOALS.get((name, precision), (0, None))
            goal = goal if side >= least else None
            figures += [
                (
                    "tilepipe's speed over it, median", statistics.median(ratios), "",
                    f">= {goal}" if goal else "",
                ),
                ("tilepipe's speed over it, least", min(ratios), "", ""),
                ("tilepipe's speed over it, most", max(ratios), "", ""),
            ]  # fmt: skip
            unlike, inner, foreground = different(
                output_of(name, side, precision), output_of(reference, side, precision)
            )
            figures += [
                ("labels unlike tilepipe's", 100 * unlike, "%", ""),
                ("labels unlike tilepipe's, away from the edge", 100 * inner, "%", ""),
                ("labels unlike tilepipe's, over its foreground", 100 * foreground, "%", ""),
            ]
        chosen = zip(settings[name][::2], settings[name][1::2], strict=True)
        figures += [(f"ran with {word.strip('-')} of", value, "", "") for word, value in chosen]
        case = f"{side} x {side}, {precision}, {tool.network} U-Net: {title_of(tool)}"
        record("peers", case, figures)
    return max((one.peak for one in measured.get("tilepipe", ())), default=0)


def main() -> None:
    """Compare at every size and precision."""
    parser = command_line(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16", "int8"])
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tune-side", type=int, default=2048, help="0: no tuning")
    available = [name for name in TOOLS if installed(name)]
    options = parse(
        parser, sides=[512], precisions=["fp32"], tools=available, repeats=1, tune_side=0
    )
    missing = sorted({TOOLS[name].environment for name in options.tools if not installed(name)})
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; run benchmarks/peers/install.py")
    precisions = options.precisions or ["fp32", *(["bf16"] if has_bf16() else []), "int8"]
    for precision in precisions:
        peaks = []
        for side in options.sides:
            print(f"{side} x {side}, {precision}", flush=True)
            peaks.append(compare(side, precision, options.tools, options))
        if len(peaks) > 1 and all(peaks):
            record(
                "flat", f"{min(options.sides)} to {max(options.sides)} a side, {precision}",
                [("tilepipe's largest peak over its smallest", max(peaks) / min(peaks), "", "")],
            )  # fmt: skip


if __name__ == "__main__":
    main()
