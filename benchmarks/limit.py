"""The whole process against the limit: the bare passes of the fastest runtime in its best window.

    python benchmarks/limit.py [--sides 4096 8192] [--precisions fp32 bf16 int8] [--repeats 3]

Whole process: `tilepipe run` from the command to its end, start-up, reading, writing and pyramid
included. Bare: the network alone, as the runtime holds it, on as many windows of one shape as cover
the same pixels, normalised tensors already in memory, in a process of its own with tilepipe's
settings; its start-up is not counted, and of many passes of a shape only some are timed. Each
runtime is tried in several windows, the one that tilepipe chose among them; the best is the one
whose passes took least. All in turns, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from common import WORK, command_line, parse, record, sample_slide, whole_run
from compare import has_bf16

BARE = """
import sys, time
from tilepipe._torch import torch
import tilepipe
from tilepipe.models.precision import Precision
from tilepipe.models.predictors.quantised import with_network

model, precision, runtime, height, width, passes, threads = *sys.argv[1:4], *map(int, sys.argv[4:])
torch.set_num_threads(threads)
model = tilepipe.load_model(model)
if precision == "int8":
    model = with_network(model, model.int8.content)
network = model.predictor.open("cpu", Precision(precision), threads, runtime)
x = torch.rand(1, model.input.bands, height, width)
if model.predictor.takes_arrays(runtime):
    x = x.numpy()
else:
    x = x.to(dtype=network.dtype, memory_format=torch.channels_last)
with torch.inference_mode():
    network(x)
    begin = time.perf_counter()
    for _ in range(passes):
        network(x)
print((time.perf_counter() - begin) / passes)
"""


Way = tuple[str, int]
"""A runtime, and the side of a window."""


def bare_seconds(way: Way, passes: int, precision: str, options: argparse.Namespace) -> float:
    """Seconds of so many passes alone; some of them are timed."""
    runtime, side = way
    timed = min(passes, max(2, int(options.pixels * 1e6 / side**2)))
    words = options.model, precision, runtime, side, side, timed, options.threads
    child = subprocess.run(
        [sys.executable, "-c", BARE, *map(str, words)], capture_output=True, text=True, check=True
    )
    return float(child.stdout) * passes


def ways(side: int, precision: str, options: argparse.Namespace) -> dict[Way, int]:
    """Runtimes and windows to try, and how many passes of each cover the image."""
    import tilepipe
    from tilepipe.models.runtimes import RUNTIMES, installed

    geometry = tilepipe.load_model(options.model).geometry
    names = [name for name in options.runtimes if installed(name)]
    if precision == "int8":
        names = ["openvino"]
    names = [name for name in names if precision in (*RUNTIMES[name].precisions, "int8")]
    sides = [keep for keep in options.keeps if keep < 2 * side]
    return {
        (name, geometry.input_for(keep)): (-(-side // keep)) ** 2
        for name in names
        for keep in sides
    }


def whole_seconds(
    side: int, precision: str, options: argparse.Namespace
) -> tuple[float, dict[str, Any]]:
    """Seconds of the whole command, and its run record."""
    measured, told = whole_run(
        sample_slide(side), options.model, [WORK / "limit.ome.zarr"],
        "--precision", precision, "--threads", options.threads,
    )  # fmt: skip
    return measured.seconds, told


def limit(side: int, precision: str, options: argparse.Namespace) -> None:
    """Measure in turns, and write the medians."""
    whole: list[float] = []
    parts: list[dict[str, float]] = []
    candidates, bare = ways(side, precision, options), {}
    sample_slide(side).read_bytes()  # into the disk's cache
    for turn in range(options.repeats):
        seconds, said = whole_seconds(side, precision, options)
        whole.append(seconds)
        parts.append(said["seconds"])
        tiling = own_tiling(said)
        own = str(said["plan"]["runtime"]), tiling.input[0]
        candidates[own] = tiling.forward_passes
        for way, passes in candidates.items():
            bare.setdefault(way, []).append(bare_seconds(way, passes, precision, options))
            print(f"  {way} x {passes}: {bare[way][-1]:.2f} s of {seconds:.2f} s", flush=True)
        if turn == 0:  # those that are far from the best are known well enough
            near = 1.15 * min(bare[way][0] for way in bare)
            candidates = {w: n for w, n in candidates.items() if w == own or bare[w][0] <= near}
    medians = {way: statistics.median(seconds) for way, seconds in bare.items()}
    best = min(candidates, key=medians.__getitem__)
    ratios = [a / b for a, b in zip(whole, bare[best], strict=True)]
    goal = "<= 1.05" if side >= 16384 else ""
    blocks = [p["blocks"] + p["pyramid"] + p["exports"] for p in parts]
    around = statistics.median(a - b for a, b in zip(whole, blocks, strict=True))
    record(
        "limit", f"{side} x {side}, {options.model}, {precision}",
        [
            ("whole process over bare passes of the best window, median",
             statistics.median(ratios), "", goal),
            ("whole process over bare passes of the best window, least", min(ratios), "", ""),
            ("whole process over bare passes of the best window, most", max(ratios), "", ""),
            ("whole process", statistics.median(whole), "s", ""),
            ("of it starting and ending", around, "s", ""),
            ("of it pyramid", statistics.median(p["pyramid"] for p in parts), "s", ""),
            ("bare passes of the best window", medians[best], "s", ""),
            ("side of the best window", best[1], "px", ""),
            ("bare passes of the window that tilepipe chose", medians[own], "s", ""),
            ("side of the window that tilepipe chose", own[1], "px", ""),
        ],
    )  # fmt: skip
    for (runtime, entry), seconds in medians.items():
        case = f"{side} x {side}, {options.model}, {precision}: {runtime}, {entry} in"
        record(
            "limit", f"bare passes, {case}",
            [("speed over pixels of the image", side**2 / 1e6 / seconds, "Mpx/s", "")],
        )  # fmt: skip


def own_tiling(said: dict[str, Any]) -> Any:
    """The tiling of a run record."""
    from tilepipe.engine.plan.plan import Plan

    return Plan.from_json(json.dumps(said["plan"])).tiling


def main() -> None:
    """Every size and precision."""
    parser = command_line(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16", "int8"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="nuclei-he")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--runtimes", nargs="+", default=["openvino", "torch"])
    parser.add_argument(
        "--pixels", type=float, default=100, help="of bare passes that are timed, in millions"
    )
    parser.add_argument(
        "--keeps", type=int, nargs="+", default=[1024, 1536, 2048, 2736, 4096],
        help="outputs kept of the windows to try, multiples of 16",
    )  # fmt: skip
    options = parse(parser, sides=[512], precisions=["fp32"], repeats=1, keeps=[256])
    for precision in options.precisions or ["fp32", *(["bf16"] if has_bf16() else []), "int8"]:
        for side in options.sides:
            print(f"{side} x {side}, {precision}", flush=True)
            limit(side, precision, options)


if __name__ == "__main__":
    main()
