"""The whole process against the limit: the bare forward passes with the best single window.

    python benchmarks/limit.py [--sides 4096 8192] [--precisions fp32 bf16] [--repeats 3]

Whole process: `tilepipe run` from the command to its end, start-up, reading, writing and pyramid
included. Bare: the network alone on as many windows of one shape as cover the same pixels,
normalised tensors already in memory, in a process of its own with tilepipe's settings for torch;
its start-up is not counted. Several windows are tried, the one that tilepipe chose among them; the
best is the one whose passes took least. All in turns, medians.
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
import tilepipe.engine.work.device  # before torch: it makes torch's settings
import torch, tilepipe
from tilepipe.models.precision import Precision

model, precision, height, width, passes, threads = *sys.argv[1:3], *map(int, sys.argv[3:])
torch.set_num_threads(threads)
kind = {"dtype": Precision(precision).dtype, "memory_format": torch.channels_last}
network = tilepipe.load_model(model).network.to(**kind)
x = torch.rand(1, 3, height, width).to(**kind)
with torch.inference_mode():
    network(x)
    begin = time.perf_counter()
    for _ in range(passes):
        network(x)
print(time.perf_counter() - begin)
"""


def bare_seconds(
    model: str, precision: str, window: tuple[int, int], passes: int, threads: int
) -> float:
    """Seconds of the forward passes alone."""
    child = subprocess.run(
        [sys.executable, "-c", BARE, model, precision, *map(str, (*window, passes, threads))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(child.stdout)


def windows(side: int, precision: str, options: argparse.Namespace) -> dict[tuple[int, int], int]:
    """Inputs to try, and how many passes of each cover the image; those that fit the memory."""
    import psutil

    import tilepipe
    from tilepipe.models.memory import forward_bytes
    from tilepipe.models.precision import Precision

    model = tilepipe.load_model(options.model)
    free, found = psutil.virtual_memory().available, {}
    for keep in options.keeps:
        entry = model.geometry.input_for(keep)
        need = forward_bytes(
            model.network, model.input.bands, entry, entry, Precision(precision).dtype
        )
        if need < free / 2:
            found[entry, entry] = (-(-side // keep)) ** 2
    return found


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
    candidates, bare = windows(side, precision, options), {}
    sample_slide(side).read_bytes()  # into the disk's cache
    for _ in range(options.repeats):
        seconds, said = whole_seconds(side, precision, options)
        whole.append(seconds)
        parts.append(said["seconds"])
        tiling = own_tiling(said)
        candidates[tiling.input] = tiling.forward_passes
        for window, passes in candidates.items():
            bare.setdefault(window, []).append(
                bare_seconds(options.model, precision, window, passes, options.threads)
            )
            print(f"  {window} x {passes}: {bare[window][-1]:.2f} s of {seconds:.2f} s", flush=True)
    medians = {window: statistics.median(seconds) for window, seconds in bare.items()}
    best = min(medians, key=medians.__getitem__)
    own = tiling.input
    ratios = [a / b for a, b in zip(whole, bare[best], strict=True)]
    goal = "<= 1.05" if side >= 8192 else ""
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
            ("side of the best window", best[0], "px", ""),
            ("bare passes of the window that tilepipe chose", medians[own], "s", ""),
            ("side of the window that tilepipe chose", own[0], "px", ""),
        ],
    )  # fmt: skip
    for window, seconds in medians.items():
        record(
            "limit", f"bare passes, {side} x {side}, {options.model}, {precision}: {window[0]} in",
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
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="nuclei-he")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--keeps", type=int, nargs="+", default=[1024, 1536, 2048, 2736, 4096],
        help="outputs kept of the windows to try, multiples of 16",
    )  # fmt: skip
    options = parse(parser, sides=[512], precisions=["fp32"], repeats=1, keeps=[256])
    for precision in options.precisions or (["fp32", "bf16"] if has_bf16() else ["fp32"]):
        for side in options.sides:
            print(f"{side} x {side}, {precision}", flush=True)
            limit(side, precision, options)


if __name__ == "__main__":
    main()
