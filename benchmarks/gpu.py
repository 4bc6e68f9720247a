"""A whole run on a GPU against the bare forward passes of the same windows there.

    python benchmarks/gpu.py [--side 16384] [--repeats 3] [--model nuclei-he] [--precision fp16]
        [--window auto] [--device cuda]

Whole process: the command, from its start to its end, pyramid included, one OME-Zarr. Bare: the
network alone, captured as a CUDA graph, on one window that lies on the GPU already, replayed as
often as the run has windows. In turns, medians. Steady state (first block submitted to last block
written) beside it, also with ``TILEPIPE_CUDA_GRAPHS=0``. ``--device cpu`` only tries the script.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import WORK, command, command_line, fresh, parse, record, sample_slide

from tilepipe.engine.plan.plan import Plan

BARE = """
import sys, time, torch, tilepipe
from tilepipe.engine.work.gpu import make_deterministic
from tilepipe.models.precision import Precision

model, device, precision, height, width, passes = *sys.argv[1:4], *map(int, sys.argv[4:])
device = torch.device(device)
network = tilepipe.load_model(model).network.to(device, Precision(precision).dtype)
network = network.to(memory_format=torch.channels_last)
x = torch.rand((1, 3, height, width), device=device, dtype=Precision(precision).dtype)
x = x.to(memory_format=torch.channels_last)
with torch.inference_mode():
    if device.type == "cuda":
        make_deterministic(device)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                network(x)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            network(x)
        graph.replay()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(passes):
            graph.replay()
        torch.cuda.synchronize()
    else:
        network(x)
        begin = time.perf_counter()
        for _ in range(passes):
            network(x)
    print(time.perf_counter() - begin)
"""


def run(words: list[str], **settings: str) -> tuple[float, str]:
    """Seconds of a whole process, and what it printed."""
    begin = time.perf_counter()
    child = subprocess.run(
        words, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    if child.returncode:
        raise SystemExit(child.stderr)
    return time.perf_counter() - begin, child.stdout


def main() -> None:
    """Measure in turns, and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="nuclei-he")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--window", default="auto")
    parser.add_argument("--device", default="cuda")
    options = parse(parser, side=512, repeats=1, device="cpu", precision="fp32")
    image = sample_slide(options.side)
    store = WORK / "gpu.ome.zarr"
    words = command(
        "run", image, "-m", options.model, "-o", store, "--device", options.device,
        "--precision", options.precision, "--window", options.window, "--runtime", "torch",
        "--json",
    )  # fmt: skip
    whole, steady, eager, bare = [], [], [], []
    for _ in range(options.repeats):
        for graphs, found in (("1", steady), ("0", eager)):
            fresh(store, Path(str(store).replace(".ome.zarr", ".run.json")))
            seconds, printed = run(words, TILEPIPE_CUDA_GRAPHS=graphs)
            summary = json.loads(printed)
            found.append(summary["seconds"]["blocks"])
            if graphs == "1":
                whole.append(seconds)
        tiling = Plan.from_json(json.dumps(summary["plan"])).tiling
        sides, passes = [str(side) for side in tiling.input], tiling.forward_passes
        _, printed = run(
            [sys.executable, "-c", BARE, options.model, options.device, options.precision, *sides,
             str(passes)]
        )  # fmt: skip
        bare.append(float(printed))
    megapixels = options.side**2 / 1e6
    case = (
        f"{options.side} x {options.side} JPEG tiles, {options.model}, {options.device}, "
        f"{options.precision}, window {options.window} ({' x '.join(sides)})"
    )
    over = [a / b for a, b in zip(whole, bare, strict=True)]
    record(
        "gpu", case,
        [
            ("whole process over bare passes", statistics.median(over), "", "<= 1.15"),
            ("whole process", statistics.median(whole), "s", ""),
            ("bare passes", statistics.median(bare), "s", ""),
            ("steady state", statistics.median(steady), "s", ""),
            ("steady state without graphs", statistics.median(eager), "s", ""),
            ("steady state", megapixels / statistics.median(steady), "Mpx/s", ""),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
