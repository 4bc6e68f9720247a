"""Cost per pixel and memory from 4k to 100k pixels a side.

    python benchmarks/constant.py [--sides 4096 ... 100352] [--width 1 --depth 2] [--memory 2GB]

Whole runs, none of them cut short. The slides are synthetic (see `memory.repeated_slide`): a file
of a few megabytes decodes to as many pixels as wanted, each tile by itself. The network is tiny, so
that the largest one ends; nothing that is not the network is hidden behind it. Cost is that of
blocks, pyramid and exports, as the run record tells; start-up, which is the same for any image,
stands beside it with the time of the whole command.
"""

from __future__ import annotations

import argparse
import statistics

from common import (
    WORK,
    Measured,
    command_line,
    fresh,
    parse,
    random_model,
    record,
    whole_run,
)
from memory import repeated_slide

REPEATS = {4096: 7, 8192: 5, 16384: 3}
"""By side, so that the short ones are known as well as the long ones."""


def one_run(side: int, options: argparse.Namespace) -> tuple[Measured, dict[str, float]]:
    """A whole run: as measured from outside, and the seconds of its record."""
    output = WORK / "constant.ome.zarr"
    name = f"width{options.width}_depth{options.depth}"
    model = random_model(name, width=options.width, depth=options.depth)
    measured, told = whole_run(repeated_slide(side), model, [output], "--memory", options.memory)
    fresh(output)
    return measured, told["seconds"]


def main() -> None:
    """Measure each side, and how far they are apart."""
    parser = command_line(__doc__)
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[4096, 8192, 16384, 32768, 65536, 100352],
        help="multiples of 512",
    )  # fmt: skip
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--repeats", type=int, help="of every size; else fewer the larger")
    options = parse(parser, sides=[512, 1024], repeats=1)
    network = f"width {options.width}, depth {options.depth}, --memory {options.memory}"
    costs, peaks = {}, {}
    for side in options.sides:
        runs = [one_run(side, options) for _ in range(options.repeats or REPEATS.get(side, 1))]
        steady = [s["blocks"] + s["pyramid"] + s["exports"] for _, s in runs]
        costs[side] = statistics.median(steady) * 1e9 / side**2
        peaks[side] = max(measured.peak for measured, _ in runs)
        whole = statistics.median(measured.seconds for measured, _ in runs)
        record(
            "constant", f"{side} x {side}, {network}",
            [
                ("cost of blocks, pyramid and exports", costs[side], "ns/px", ""),
                ("cost of the whole command", whole * 1e9 / side**2, "ns/px", ""),
                ("time of the whole command", whole, "s", ""),
                ("peak of all processes", peaks[side] / 1e9, "GB", f"<= {options.memory}"),
            ],
        )  # fmt: skip
    if len(options.sides) > 1:
        record(
            "constant", f"{min(options.sides)} to {max(options.sides)} a side, {network}",
            [
                ("largest cost per pixel over smallest",
                 max(costs.values()) / min(costs.values()), "", "<= 1.05"),
                ("cost per pixel of the largest image over that of the smallest",
                 costs[max(costs)] / costs[min(costs)], "", "<= 1.05"),
                ("largest peak over smallest", max(peaks.values()) / min(peaks.values()), "",
                 "<= 1.10"),
            ],
        )  # fmt: skip


if __name__ == "__main__":
    main()
