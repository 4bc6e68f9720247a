"""What a pixel costs by the size of its window: passes of the shipped network, alone.

    python benchmarks/windows.py [--keeps 384 1024 2048] [--ways openvino:fp32 torch:fp32]

Each runtime and precision in a process of its own, windows from small to large. A pass is what the
device does with pixels in memory: normalisation, network, labels. The fastest of some counts, as
what disturbs only slows; and how much longer the first one took, for fresh memory and kernels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from common import command_line, parse, record

PASSES = """
import json, sys, time
import numpy as np
import tilepipe
from tilepipe.engine.work.device import Device
from tilepipe.models.predictors.quantised import with_network

name, runtime, precision, threads, passes = *sys.argv[1:4], *map(int, sys.argv[4:6])
model = tilepipe.load_model(name)
if precision == "int8":
    model = with_network(model, model.int8.content)
device = Device(model, "cpu", precision, threads, runtime)
found = []
for keep in map(int, sys.argv[6:]):
    side = model.geometry.input_for(keep)
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    seconds = []
    for _ in range(passes + 1):
        begin = time.perf_counter()
        device.answer(pixels, None, (keep, keep)).result()
        seconds.append(time.perf_counter() - begin)
    found.append((side, keep, min(seconds[1:]), seconds[0]))
device.close()
print(json.dumps(found))
"""


def main() -> None:
    """Measure each way and write what it found."""
    parser = command_line(__doc__)
    parser.add_argument("--model", default="nuclei-he")
    parser.add_argument(
        "--keeps", type=int, nargs="+", default=[144, 384, 576, 768, 1024, 1408, 2048, 3072],
        help="outputs kept of the windows, multiples of 16, from small to large",
    )  # fmt: skip
    parser.add_argument(
        "--ways", nargs="+", metavar="RUNTIME:PRECISION",
        default=["openvino:fp32", "openvino:bf16", "openvino:int8", "torch:fp32"],
    )  # fmt: skip
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parse(parser, keeps=[16, 64], ways=["torch:fp32"], passes=1)
    for way in options.ways:
        runtime, precision = way.split(":")
        words = options.model, runtime, precision, options.threads, options.passes, *options.keeps
        child = subprocess.run(
            [sys.executable, "-c", PASSES, *map(str, words)], capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        for side, keep, seconds, first in json.loads(child.stdout.splitlines()[-1]):
            record(
                "windows", f"{options.model}, {runtime}, {precision}, {side} in",
                [
                    ("speed over the pixels that are kept", keep**2 / seconds / 1e6, "Mpx/s", ""),
                    ("first pass longer by", max(0.0, first - seconds), "s", ""),
                ],
            )  # fmt: skip


if __name__ == "__main__":
    main()
