"""Steady state of a run against the bare forward passes of the same windows.

    python benchmarks/overhead.py [--side 4096] [--repeats 3]

Steady state: first block submitted to last block written. Bare: the network alone, on the same
number of windows of the same shape, in one process, normalised float tensors already in memory.
Start-up and finishing (pyramid, exports) stand beside it.
"""

from __future__ import annotations

import statistics
import time

from common import WORK, command_line, fresh, parse, record, sample_slide

import tilepipe
from tilepipe.engine.events import RunCallbacks


class Stopwatch(RunCallbacks):
    """When the first block was submitted, and when the last was written."""

    first = last = 0.0

    def submitted(self) -> None:
        self.first = time.perf_counter()

    def block(self, receipt: object) -> None:
        self.last = time.perf_counter()


def bare(model: str, shape: tuple[int, int], passes: int, threads: int) -> float:
    """Seconds of the forward passes alone."""
    import torch

    torch.set_num_threads(threads)
    network = tilepipe.load_model(model).network.to(memory_format=torch.channels_last)
    x = torch.rand(1, 3, *shape).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(x)
        begin = time.perf_counter()
        for _ in range(passes):
            network(x)
        return time.perf_counter() - begin


def main() -> None:
    """Measure in turns, and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--model", default="nuclei-he")
    parser.add_argument("--window", default="auto")
    options = parse(parser, side=512, repeats=1)
    image = sample_slide(options.side)
    outputs = [WORK / "overhead.ome.zarr", WORK / "overhead.ome.tif"]
    window = options.window if options.window == "auto" else int(options.window)

    ratios, steady, passes, parts, own = [], [], [], [], []
    for _ in range(options.repeats):
        fresh(*outputs, WORK / "overhead.run.json")
        watch = Stopwatch()
        summary = tilepipe.run(
            image, model=options.model, outputs=outputs, window=window, watch=watch
        )
        plan = summary.plan
        alone = bare(options.model, plan.tiling.input, plan.tiling.forward_passes, plan.threads)
        steady.append(watch.last - watch.first)
        passes.append(alone)
        ratios.append(steady[-1] / alone)
        parts.append(summary.seconds)
        own.append(steady[-1] / summary.seconds["compute"])
    megapixels = options.side**2 / 1e6
    case = f"{options.side} x {options.side} JPEG tiles, {options.model}, fp32, window " + (
        f"{window} ({plan.tiling.input[0]})"
    )
    record(
        "overhead", case,
        [
            ("steady state over bare passes, median", statistics.median(ratios), "", "<= 1.10"),
            ("steady state over bare passes, least", min(ratios), "", ""),
            ("steady state over bare passes, most", max(ratios), "", ""),
            ("steady state over its own time on the device", statistics.median(own), "", ""),
            ("steady state", statistics.median(steady), "s", ""),
            ("bare passes", statistics.median(passes), "s", ""),
            ("steady state", megapixels / statistics.median(steady), "Mpx/s", ""),
            ("start (within the process)", statistics.median(p["start"] for p in parts), "s", ""),
            ("pyramid", statistics.median(p["pyramid"] for p in parts), "s", ""),
            ("exports (OME-TIFF)", statistics.median(p["exports"] for p in parts), "s", ""),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
