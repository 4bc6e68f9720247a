"""Pictures of the figures: speed and memory against the peers, and what does not grow.

    python benchmarks/plots.py [--machine TEXT] [--to benchmarks/plots]

From `figures.csv`, the latest of each figure, of the machine of the latest ones (or of the last one
whose description holds TEXT). A picture whose figures are not there is not made.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import HERE, WORK, command_line, figures, parse

COLOURS = {
    "tilepipe": "#0b6e4f",
    "TIAToolbox SemanticSegmentor": "#c1440e",
    "plain PyTorch loop": "#5b6c7d",
    "plain PyTorch loop, tilepipe's settings for torch": "#93a1ae",
    "dask.array.map_overlap": "#7a4fa3",
    "dask.array.map_overlap, chunks of 2052": "#b79ad1",
    "MONAI sliding_window_inference": "#c99700",
}
SHORT = {
    "TIAToolbox SemanticSegmentor": "TIAToolbox",
    "plain PyTorch loop": "plain loop",
    "plain PyTorch loop, tilepipe's settings for torch": "plain loop, tuned",
    "dask.array.map_overlap": "dask map_overlap",
    "dask.array.map_overlap, chunks of 2052": "dask, chunks of 2052",
    "MONAI sliding_window_inference": "MONAI",
}
INK, FAINT = "#222222", "#d9d9d9"
Latest = dict[tuple[str, str, str, str], float]


def latest(machine: str | None) -> tuple[Latest, str]:
    """The last value of each (benchmark, case, figure, unit) on one machine, and that machine."""
    with figures().open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if machine is None or machine in row["machine"]]
    if not rows:
        raise SystemExit(f"{figures()}: has no figures of that machine")
    name = rows[-1]["machine"]
    return {
        (row["benchmark"], row["case"], row["figure"], row["unit"]): float(row["value"])
        for row in rows
        if row["machine"] == name
    }, name


def peers(found: Latest, figure: str) -> dict[tuple[str, str], dict[str, dict[int, float]]]:
    """``{(precision, network): {tool: {side: value}}}`` of one figure of `compare.py`."""
    result: Any = defaultdict(lambda: defaultdict(dict))
    for (benchmark, case, name, _), value in found.items():
        match = re.match(r"(\d+) x \d+, (\w+), (\w+) U-Net: (.+?)(?: \(.*\))?$", case)
        if benchmark == "peers" and name == figure and match:
            result[match[2], match[3]][match[4]][int(match[1])] = value
    return result


def quiet(axes: Any, title: str, ylabel: str) -> None:
    """Axes without what does not say anything."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=10)
    axes.set_ylabel(ylabel, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(colors=INK, length=3)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)


def by_side(axes: Any, sides: list[int]) -> None:
    """Sides of images on a logarithmic axis, each with its number."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(sides, [f"{side:,}".replace(",", " ") for side in sides])
    axes.minorticks_off()
    axes.set_xlabel("pixels a side", color=INK)


def names_beside(axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """The name of each line at its right end, moved apart where they would overlap."""
    axes.figure.canvas.draw()
    height = 13  # points from one name to the next
    to_points = 72 / axes.figure.dpi
    placed: list[float] = []
    for x, y, text, colour in sorted(ends, key=lambda end: end[1]):
        at = axes.transData.transform((x, y))[1] * to_points
        target = max(at, placed[-1] + height) if placed else at
        placed.append(target)
        axes.annotate(
            text, (x, y), xytext=(8, target - at), textcoords="offset points", va="center",
            fontsize=9, color=colour, annotation_clip=False,
            fontweight="bold" if text == "tilepipe" else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def lines_of_tools(found: Latest, figure: str, ylabel: str, title: str, path: Path) -> None:
    """A panel for each precision and network, a line for each tool."""
    import matplotlib.pyplot as plt

    panels = peers(found, figure)
    if not panels:
        return
    precisions = [p for p in ("fp32", "bf16") if any(key[0] == p for key in panels)]
    networks = [n for n in ("valid", "padded") if any(key[1] == n for key in panels)]
    picture, grid = plt.subplots(
        len(precisions), len(networks), squeeze=False, sharey="row", layout="constrained",
        figsize=(5.6 * len(networks), 3.7 * len(precisions) + 0.4),
    )  # fmt: skip
    drawn = []
    for row, precision in enumerate(precisions):
        for column, network in enumerate(networks):
            axes, tools = grid[row, column], panels.get((precision, network), {})
            sides = sorted({side for values in tools.values() for side in values})
            if not sides:
                axes.set_axis_off()
                continue
            ends = []
            for tool in (name for name in COLOURS if name in tools):
                x = sorted(tools[tool])
                y = [tools[tool][side] for side in x]
                ours = tool == "tilepipe"
                axes.plot(
                    x, y, marker="o", color=COLOURS[tool], linewidth=2.6 if ours else 1.5,
                    markersize=6 if ours else 4, zorder=3 if ours else 2,
                )  # fmt: skip
                ends.append((x[-1], y[-1], SHORT.get(tool, tool), COLOURS[tool]))
            quiet(axes, f"{network} U-Net, {precision}", ylabel if column == 0 else "")
            by_side(axes, sides)
            axes.set_xlim(min(sides) / 1.25, max(sides) * (1.25 + 1.2 * (len(sides) > 1)))
            drawn.append((axes, ends))
        grid[row, 0].set_ylim(bottom=0)
    picture.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    for axes, ends in drawn:
        names_beside(axes, ends)
    picture.savefig(path, dpi=150)
    plt.close(picture)


def constants(found: Latest, path: Path) -> None:
    """Cost per pixel and memory by the side of the image, and the client by blocks."""
    import matplotlib.pyplot as plt

    cost: dict[int, float] = {}
    peak: dict[int, float] = {}
    client: dict[int, float] = {}
    for (benchmark, case, name, _), value in found.items():
        side = re.match(r"(\d+) x \d+, ", case)
        blocks = re.match(r"(\d+) blocks, in-process", case)
        if benchmark == "constant" and side and name.startswith("cost of blocks"):
            cost[int(side[1])] = value
        elif benchmark == "constant" and side and name.startswith("peak"):
            peak[int(side[1])] = value
        elif benchmark == "million" and blocks and name == "memory of the client":
            client[int(blocks[1])] = value
    if not cost:
        return
    picture, grid = plt.subplots(
        1, 2 + bool(client), figsize=(4.6 * (2 + bool(client)), 3.7), layout="constrained"
    )
    colour, sides = COLOURS["tilepipe"], sorted(cost)
    middle = (max(cost.values()) + min(cost.values())) / 2
    grid[0].axhspan(middle * 0.975, middle * 1.025, color=colour, alpha=0.12, linewidth=0)
    grid[0].annotate(
        "a band of 5 %", (max(sides), middle * 1.025), xytext=(0, 4), ha="right",
        textcoords="offset points", fontsize=9, color=colour,
    )  # fmt: skip
    grid[0].plot(sides, [cost[s] for s in sides], marker="o", color=colour, linewidth=2)
    quiet(grid[0], "cost of a pixel", "ns")
    by_side(grid[0], sides)
    grid[0].set_ylim(0, 1.4 * max(cost.values()))
    grid[1].plot(sides, [peak[s] for s in sides], marker="o", color=colour, linewidth=2)
    quiet(grid[1], "peak memory of all processes", "GB")
    by_side(grid[1], sides)
    grid[1].set_ylim(0, 1.4 * max(peak.values()))
    for axes in grid[:2]:
        axes.tick_params(axis="x", rotation=30)
    if client:
        counts = [n for n in sorted(client) if str(n).strip("0") == "1"]  # powers of ten
        grid[2].plot(counts, [client[n] for n in counts], marker="o", color=colour, linewidth=2)
        quiet(grid[2], "memory of the client", "MB")
        grid[2].set_xscale("log")
        grid[2].set_xlabel("blocks done (a network that costs nothing)", color=INK)
        grid[2].set_ylim(0, 1.4 * max(client.values()))
    picture.suptitle(
        "What does not grow with the image", x=0.01, ha="left", fontsize=13, fontweight="bold",
        color=INK,
    )  # fmt: skip
    picture.savefig(path, dpi=150)
    plt.close(picture)


def main() -> None:
    """Draw what there are figures for."""
    import matplotlib as mpl

    mpl.use("Agg")
    parser = command_line(__doc__)
    parser.add_argument("--machine")
    parser.add_argument("--to", type=Path, default=HERE / "plots")
    options = parse(parser, to=WORK / "plots")
    options.to.mkdir(parents=True, exist_ok=True)
    found, machine = latest(options.machine)
    mpl.rcParams["font.size"] = 10
    lines_of_tools(
        found, "speed of the whole command", "Mpx/s", "Speed of the whole command",
        options.to / "speed.png",
    )  # fmt: skip
    lines_of_tools(
        found, "peak of all processes", "GB", "Peak memory of all processes",
        options.to / "memory.png",
    )  # fmt: skip
    constants(found, options.to / "constant.png")
    print(
        f"{options.to}: {', '.join(sorted(p.name for p in options.to.glob('*.png')))} ({machine})"
    )


if __name__ == "__main__":
    main()
