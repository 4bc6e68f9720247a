"""Whole runs on a GPU against the bare forward passes of the same windows there.

    python benchmarks/gpu.py [--side 16384] [--repeats 3] [--networks 16 64]
        [--precisions fp16 fp32] [--slides JPEG uncompressed] [--workers 0 2 4] [--graphs 1 0]
        [--device cuda]

Networks are U-Nets of so many channels with random weights, or models by name. Whole process: the
command, from its start to its end, pyramid included, one OME-Zarr. Steady state: from the first
block submitted to the last block written. Bare: the network alone, captured as a CUDA graph, on one
window that lies on the GPU already, replayed as often as the run has windows. In turns, medians.
``--workers`` are processes that share the GPU, or 0: the run's own alone. ``--graphs 0`` is the
steady state with ``TILEPIPE_CUDA_GRAPHS=0``. ``--device cpu`` only tries the script.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import (
    WORK,
    command,
    command_line,
    fresh,
    parse,
    plain_slide,
    random_model,
    record,
    sample_slide,
)

from tilepipe.engine.plan.plan import Plan

BARE = """
import sys, time, torch, tilepipe
from tilepipe.engine.work.gpu import make_deterministic
from tilepipe.models.float32 import keep_float32
from tilepipe.models.precision import Precision

model, device, precision, height, width, passes = *sys.argv[1:4], *map(int, sys.argv[4:])
kind, device = Precision(precision), torch.device(device)
if device.type == "cuda":
    make_deterministic(device)
    keep_float32(str(device))
ready = tilepipe.load_model(model).predictor.open(str(device), kind, 1, "torch")
x = torch.rand((1, 3, height, width), device=device, dtype=kind.dtype)
x = x.to(memory_format=torch.channels_last)
with torch.inference_mode():
    if device.type == "cuda":
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                ready(x)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            ready(x)
        graph.replay()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(passes):
            graph.replay()
        torch.cuda.synchronize()
    else:
        ready(x)
        begin = time.perf_counter()
        for _ in range(passes):
            ready(x)
    print(time.perf_counter() - begin)
"""

SLIDES = {"JPEG": sample_slide, "uncompressed": plain_slide}


def run(words: list[str], **settings: str) -> tuple[float, str]:
    """Seconds of a whole process, and what it printed."""
    begin = time.perf_counter()
    child = subprocess.run(
        words, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    if child.returncode:
        raise SystemExit(child.stderr)
    return time.perf_counter() - begin, child.stdout


def whole_run(
    image: Path, model: Any, device: str, precision: str, graphs: str, workers: int
) -> dict[str, Any]:
    """What a run that starts over tells of itself, and ``whole``: the seconds of its process."""
    store = WORK / "gpu.ome.zarr"
    fresh(store, WORK / "gpu.run.json")
    words = command(
        "run", image, "-m", model, "-o", store, "--device", device, "--precision", precision,
        "--runtime", "torch", "--level", "0", "--json",
        *(["--workers", str(workers)] if workers else []),
    )  # fmt: skip
    seconds, printed = run(words, TILEPIPE_CUDA_GRAPHS=graphs)
    summary: dict[str, Any] = json.loads(printed)
    return summary | {"whole": seconds}


def main() -> None:
    """Measure in turns, and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=["16", "64"])
    parser.add_argument("--precisions", nargs="+", default=["fp16", "fp32"])
    parser.add_argument("--slides", nargs="+", choices=list(SLIDES), default=list(SLIDES))
    parser.add_argument("--workers", nargs="+", type=int, default=[0])
    parser.add_argument("--graphs", nargs="+", choices=["0", "1"], default=["1"])
    parser.add_argument("--device", default="cuda")
    options = parse(
        parser, side=512, repeats=1, device="cpu", precisions=["fp32"], networks=["2"],
        slides=["uncompressed"],
    )  # fmt: skip
    megapixels = options.side**2 / 1e6
    images = {name: SLIDES[name](options.side) for name in options.slides}
    for network in options.networks:
        width = int(network) if network.isdigit() else None
        model = random_model(f"width-{width}", width=width) if width else network
        called = f"width {width}" if width else network
        for precision in options.precisions:
            found, bare = defaultdict(list), []
            tiling = None
            for _ in range(options.repeats):
                for name, image in images.items():
                    for graphs, workers in itertools.product(options.graphs, options.workers):
                        told = whole_run(image, model, options.device, precision, graphs, workers)
                        found[name, graphs, workers].append(told)
                        tiling = Plan.from_json(json.dumps(told["plan"])).tiling
                assert tiling is not None
                sides = [str(side) for side in tiling.input]
                _, printed = run(
                    [sys.executable, "-c", BARE, str(model), options.device, precision, *sides,
                     str(tiling.forward_passes)]
                )  # fmt: skip
                bare.append(float(printed))
            case = f"{called}, {precision}, windows of {' x '.join(sides)}, {options.device}"
            passes = statistics.median(bare)
            record("gpu", case, [
                ("bare passes", passes, "s", ""),
                ("bare passes", megapixels / passes, "Mpx/s", ""),
            ])  # fmt: skip
            for (name, graphs, workers), runs in found.items():
                steady = statistics.median(told["seconds"]["blocks"] for told in runs)
                whole = statistics.median(told["whole"] for told in runs)
                start = statistics.median(told["seconds"]["start"] for told in runs)
                busy = statistics.median(told["bottleneck"]["shares"]["computing"] for told in runs)
                words = "" if graphs == "1" else ", without graphs"
                words += f", {workers} worker processes" if workers else ""
                place = f"{options.side} x {options.side} {name} tiles, {case}{words}"
                record("gpu", place, [
                    ("whole process", whole, "s", ""),
                    ("before the first block", start, "s", ""),
                    ("steady state", steady, "s", ""),
                    ("steady state", megapixels / steady, "Mpx/s", ""),
                    ("bare passes over steady state", passes / steady, "", ">= 0.85"),
                    ("GPU busy", busy, "", ">= 0.85"),
                ])  # fmt: skip


if __name__ == "__main__":
    main()
