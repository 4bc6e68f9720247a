"""One forward pass by each runtime: how fast, and how much memory over what the plan foretells.

    python benchmarks/runtimes.py [--windows 572 1148 2236] [--widths 16 64] [--repeats 5]
        [--rounds 3] [--threads 2] [--runtimes torch openvino ...]

Each case in a process of its own, all cases in turns, medians. A pass is what the device does:
normalisation, network, labels. Runtimes that are not installed are left out. Memory is the peak of
the process from before the runtime was loaded, over what a plan counts for a pass.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys

from common import HERE, command_line, parse, record

PASS = """
import json, statistics, sys, time
from pathlib import Path
import numpy as np
from tilepipe.engine.work.device import Device
from tilepipe.models import ClassSpec, InputSpec, OutputSpec, Precision, UNet, UNetArguments
from tilepipe.models.file import build_model

name, precision, width, side, repeats, threads = sys.argv[1:3] + [int(n) for n in sys.argv[3:]]

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

model = build_model(
    UNet(UNetArguments(width=width)).eval(), InputSpec(3, "uint8", 1.0, (127.0,) * 3, (40.0,) * 3),
    OutputSpec("softmax", (ClassSpec("a"), ClassSpec("b")), background=0),
)
bound = model.predictor.memory(model.geometry, Precision(precision), name)(side, side)

pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
keep = (model.geometry.kept(side),) * 2
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
begin = time.perf_counter()
device = Device(model, "cpu", precision, threads, name)
device.answer(pixels, None, keep).result()
first = time.perf_counter() - begin
seconds = []
for _ in range(repeats):
    begin = time.perf_counter()
    device.answer(pixels, None, keep).result()
    seconds.append(time.perf_counter() - begin)
peak = status("VmHWM") - before
print(json.dumps([statistics.median(seconds), first, peak / bound, peak]))
"""

KINDS = [
    ("torch", "fp32"), ("compile", "fp32"), ("onnxruntime", "fp32"), ("openvino", "fp32"),
    ("torch", "bf16"), ("compile", "bf16"), ("openvino", "bf16"),
]  # fmt: skip


def measure(case: tuple[object, ...]) -> list[float]:
    """Seconds of a pass, of opening and the first pass; peak over the bound, and in bytes."""
    child = subprocess.run(
        [sys.executable, "-c", PASS, *map(str, case)], env=os.environ, cwd=HERE.parent,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if child.returncode:
        raise SystemExit(f"{case}: {child.stderr}")
    found: list[float] = json.loads(child.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure each case a few times, in turns, and write the medians."""
    from tilepipe.models.runtimes import RUNTIMES, installed

    parser = command_line(__doc__)
    parser.add_argument("--windows", type=int, nargs="+", default=[572, 1148, 2236])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES))
    options = parse(
        parser, windows=[188], widths=[2], repeats=1, rounds=1, runtimes=["torch", "onnxruntime"]
    )
    kinds = [kind for kind in KINDS if kind[0] in options.runtimes and installed(kind[0])]
    for width, side in itertools.product(options.widths, options.windows):
        found: dict[tuple[str, str], list[list[float]]] = {kind: [] for kind in kinds}
        for _ in range(options.rounds):
            for kind in kinds:
                found[kind].append(measure((*kind, width, side, options.repeats, options.threads)))
        for (name, precision), rows in found.items():
            seconds, first, share, peak = (
                statistics.median(column) for column in zip(*rows, strict=True)
            )
            record(
                "runtimes", f"width {width}, {side} x {side} in: {name}, {precision}",
                [
                    ("input", side**2 / 1e6 / seconds, "Mpx/s", ""),
                    ("opening and first pass", first, "s", ""),
                    ("peak", peak / 1e6, "MB", ""),
                    ("peak over what the plan counts", share, "", "<= 1"),
                ],
            )  # fmt: skip


if __name__ == "__main__":
    main()
