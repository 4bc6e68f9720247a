"""What the settings that tilepipe makes for torch do for one forward pass.

    python benchmarks/allocator.py [--side 1148] [--repeats 9]

Each setting in a process of its own, in turns; the median pass of the shipped model.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from common import command_line, parse, record

PASS = """
import sys, time, statistics, resource, torch, tilepipe
side, last, repeats = int(sys.argv[1]), sys.argv[2] == "last", int(sys.argv[3])
network = tilepipe.load_model("nuclei-he").network
x = torch.rand(1, 3, side, side)
if last:
    network = network.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
seconds = []
with torch.inference_mode():
    network(x)
    for _ in range(repeats):
        begin = time.perf_counter()
        network(x)
        seconds.append(time.perf_counter() - begin)
print(statistics.median(seconds))
"""

CASES = {
    "as torch comes": ({}, "first"),
    "channels last": ({}, "last"),
    "channels last, huge pages": ({"THP_MEM_ALLOC_ENABLE": "1"}, "last"),
    "channels last, huge pages, sleeping threads (as tilepipe runs)": (
        {"THP_MEM_ALLOC_ENABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"}, "last",
    ),
}  # fmt: skip


def main() -> None:
    """Measure each case a few times, in turns, and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=1148)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=3)
    options = parse(parser, side=188, rounds=1, repeats=1)
    found: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(options.rounds):
        for name, (settings, layout) in CASES.items():
            child = subprocess.run(
                [sys.executable, "-c", PASS, str(options.side), layout, str(options.repeats)],
                env=os.environ | settings, capture_output=True, text=True, check=True,
            )  # fmt: skip
            found[name].append(float(child.stdout))
    megapixels = options.side**2 / 1e6
    for name, seconds in found.items():
        median = statistics.median(seconds)
        case = f"{options.side} x {options.side} in, nuclei-he, fp32: {name}"
        record("allocator", case, [("input", megapixels / median, "Mpx/s", "")])


if __name__ == "__main__":
    main()
