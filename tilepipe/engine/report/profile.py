"""`--profile`: the times of every block, as a table and as a plot, from the ledger.

The ledger is read twice, record by record; what is kept in memory is a number for each block and
the little that is drawn.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.events import BlockReport
from tilepipe.engine.report.bottleneck import Bottleneck, Part
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.engine.state.outputs import profile_paths
from tilepipe.storage import StoragePath, complete_or_absent, staged_locally
from tilepipe.text import drawable, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tilepipe.engine.plan.plan import Plan

PHASES = ("read", "wait", "compute", "write")
COLOURS = {"read": "#4477aa", "wait": "#d0d0d0", "compute": "#228833", "write": "#ee6677"}
IDLE: dict[Part, str] = {
    "computing": "compute", "reading": "read", "writing": "write", "waiting": "wait",
}  # fmt: skip
"""The parts of a bottleneck, by the phase of a block whose colour they share."""
COLUMNS = (
    "number", "y", "x", "height", "width", "worker", "begin", *PHASES, "pixels", "run",
)  # fmt: skip
LABELS = {"read": "read", "wait": "wait for the device's turn", "compute": "compute",
          "write": "write"}  # fmt: skip
MOST_BARS = 2000
"""Blocks up to which each is drawn; beyond, how many are in which phase."""
MOST_LANES = 48
BINS = 240
"""Steps of the time axis where blocks are drawn together."""


@dataclass
class _Times:
    """What is drawn of the blocks of this run."""

    first: float = np.inf
    last: float = -np.inf
    blocks: int = 0
    workers: dict[str, int] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    bars: list[tuple[int, float, tuple[float, ...]]] = field(default_factory=list)
    """Worker, begin, seconds of each phase; empty where there are too many blocks."""
    in_phase: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(PHASES), BINS)))
    """Seconds of each phase within each step of time."""
    busy: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, BINS)))
    """Seconds that each worker computed within each step of time."""
    pixels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    def meet(self, receipt: BlockReport) -> None:
        """Take note of a block, for the axes."""
        self.blocks += 1
        self.first = min(self.first, receipt.begin)
        self.last = max(self.last, receipt.begin + _seconds(receipt))
        self.workers.setdefault(receipt.worker, len(self.workers))

    def add(self, receipt: BlockReport) -> None:
        """Add a block to what is drawn; all of them have been met before."""
        if len(self.busy) < len(self.workers):
            self.busy = np.zeros((len(self.workers), BINS))
        worker, begin = self.workers[receipt.worker], receipt.begin
        lengths = tuple(float(getattr(receipt, phase)) for phase in PHASES)
        if self.blocks <= MOST_BARS:
            self.bars.append((worker, begin - self.first, lengths))
        at = begin
        for i, (phase, length) in enumerate(zip(PHASES, lengths, strict=True)):
            self.totals[phase] += length
            self._spread(self.in_phase[i], at, length, length)
            if phase == "compute":
                self._spread(self.busy[worker], at, length, length)
                self._spread(self.pixels, at, length, receipt.answered)
            at += length

    @property
    def step(self) -> float:
        """Seconds of one step of time."""
        return max(self.last - self.first, 1e-6) / BINS

    def _spread(self, row: NDArray[np.float64], at: float, length: float, amount: float) -> None:
        """Share ``amount`` out evenly among the steps between ``at`` and ``at + length``."""
        low = (at - self.first) / self.step
        high = max(low + 1e-9, low + length / self.step)
        one, other = max(0, int(low)), min(BINS, int(np.ceil(high)))
        edges = np.clip(np.arange(one, other + 1, dtype=np.float64), low, high)
        row[one:other] += np.diff(edges) * (amount / (high - low))


def write_profile(
    ledger: StoragePath, since: int, plan: Plan, record: StoragePath, bottleneck: Bottleneck | None
) -> tuple[StoragePath, ...]:
    """Write ``NAME.profile.csv`` and ``NAME.profile.png``; returns those there are.

    Parameters
    ----------
    ledger
        Of the output.
    since
        Where in the ledger this run begins (`Ledger.since`). What earlier runs did is in the table,
        marked, and not in the plot.
    plan
        Of the run.
    record
        The run record, beside which they lie.
    bottleneck
        What the run's summary says of it.
    """
    table, plot = profile_paths(record)
    times = _Times()
    latest = np.full(plan.blocks, -1, np.int64)
    for place, fresh, receipt in _receipts(ledger, since):
        latest[receipt.number] = place
        if fresh:
            times.meet(receipt)
    if times.blocks == 0 and table.exists():
        return tuple(path for path in (table, plot) if path.exists())  # of the run that did it
    with staged_locally(table) as local:
        _write_table(local, ledger, since, plan, times, latest)
    if times.blocks == 0:
        plot.unlink(missing_ok=True)
        return (table,)
    with staged_locally(plot) as local:
        _draw(times, plan, bottleneck, local)
    return table, plot


def _write_table(
    table: Path,
    ledger: StoragePath,
    since: int,
    plan: Plan,
    times: _Times,
    latest: NDArray[np.int64],
) -> None:
    with complete_or_absent(table) as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for place, fresh, receipt in _receipts(ledger, since):
            if latest[receipt.number] != place:
                continue  # done again since
            rows.writerow(_row(receipt, plan, "this" if fresh else "earlier"))
            if fresh:
                times.add(receipt)


def _receipts(ledger: StoragePath, since: int) -> Iterator[tuple[int, bool, BlockReport]]:
    """Reports in the order of the ledger: place in it, whether it is of this run, report."""
    place = 0
    for fresh, begin, end in ((False, 0, since), (True, since, None)):
        for record in read_ledger(ledger, begin, end):
            if record["kind"] == "block":
                yield place, fresh, BlockReport.from_record(record)
                place += 1


def _row(receipt: BlockReport, plan: Plan, run: str) -> list[Any]:
    window = plan.tiling.block_window(receipt.number)
    return [
        receipt.number, window.y, window.x, window.height, window.width,
        one_line(receipt.worker),
        f"{receipt.begin:.6f}", *(f"{getattr(receipt, phase):.6f}" for phase in PHASES),
        receipt.answered, run,
    ]  # fmt: skip


def _seconds(receipt: BlockReport) -> float:
    return float(sum(getattr(receipt, phase) for phase in PHASES))


def _draw(times: _Times, plan: Plan, bottleneck: Bottleneck | None, path: Path) -> None:
    """The plot: who did what when, pixels a second, and what the time went into."""
    import textwrap

    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lanes = _lanes(times) if times.bars else []
    each = 0 < len(lanes) <= MOST_LANES
    tall = min(11.0, 1.0 + 0.22 * len(lanes)) if each else 3.0
    several = not each and len(times.workers) > 1
    heights = [tall, *([min(4.0, 1.2 + 0.1 * len(times.workers))] if several else []), 1.7, 1.0]
    figure = Figure(figsize=(12, sum(heights) + 1.5), layout="constrained")
    parts = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if each:
        _draw_lanes(parts[0], lanes, times)
    else:
        _draw_phases(parts[0], times)
    if several:
        _draw_workers(parts[1], times)
    _draw_speed(parts[-2], times)
    for axes in parts[:-1]:
        axes.set_xlim(0, times.last - times.first)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    for axes in parts[:-2]:
        axes.tick_params(labelbottom=False)
    _draw_totals(parts[-1], times, bottleneck)
    height, width = plan.tiling.input
    workers = f"{len(times.workers)} worker" + ("s" if len(times.workers) > 1 else "")
    title = [
        f"{Path(plan.image.path).name}, {plan.image.height} x {plan.image.width}: {times.blocks} "
        f"blocks of {plan.tiling.block[0]} x {plan.tiling.block[1]} in "
        f"{times.last - times.first:.1f} s",
        f"windows {height} x {width}, {plan.environment.get('device', plan.device)}, "
        f"{plan.precision}, {plan.threads} threads, {workers}",
    ]
    if bottleneck is not None:
        title += textwrap.wrap(f"bottleneck: {bottleneck}", 150)
    figure.suptitle("\n".join(map(drawable, title)), fontsize=10, x=0.01, ha="left")
    figure.legend(
        handles=[Patch(color=COLOURS[phase], label=label) for phase, label in LABELS.items()],
        loc="outside lower center", ncols=len(LABELS), fontsize=8, frameon=False,
    )  # fmt: skip
    with complete_or_absent(path) as part:
        figure.savefig(part, dpi=110, format="png")


def _lanes(times: _Times) -> list[tuple[int, list[tuple[float, tuple[float, ...]]]]]:
    """Bars side by side: for each worker as many lanes as it had blocks in hand at once."""
    lanes: list[tuple[int, list[tuple[float, tuple[float, ...]]]]] = []
    ends: dict[int, list[tuple[float, int]]] = {}
    for worker, begin, lengths in sorted(times.bars):
        mine = ends.setdefault(worker, [])
        # Of the lanes that are free by then, the one that became free last.
        free = [(end, i) for i, (end, _) in enumerate(mine) if end <= begin + 1e-3]
        if free:
            _, slot = max(free)
        else:
            slot = len(mine)
            mine.append((0.0, len(lanes)))
            lanes.append((worker, []))
        lane = mine[slot][1]
        lanes[lane][1].append((begin, lengths))
        mine[slot] = (begin + sum(lengths), lane)
    return sorted(lanes, key=lambda lane: lane[0])


def _draw_lanes(
    axes: Axes, lanes: list[tuple[int, list[tuple[float, tuple[float, ...]]]]], times: _Times
) -> None:
    names = list(times.workers)
    for row, (_, bars) in enumerate(lanes):
        for i, phase in enumerate(PHASES):
            spans = [(begin + sum(lengths[:i]), lengths[i]) for begin, lengths in bars]
            axes.broken_barh(spans, (row - 0.42, 0.84), color=COLOURS[phase], linewidth=0)
    first = [row for row in range(len(lanes)) if row == 0 or lanes[row][0] != lanes[row - 1][0]]
    axes.set_yticks(first, [f"worker {_short(names[lanes[row][0]])}" for row in first])
    for row in first[1:]:
        axes.axhline(row - 0.5, color="0.6", linewidth=0.6)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_title(
        "each block: one lane for each that a worker had in hand", fontsize=9, loc="left"
    )


def _draw_phases(axes: Axes, times: _Times) -> None:
    x = (np.arange(BINS) + 0.5) * times.step
    axes.stackplot(x, times.in_phase / times.step, colors=[COLOURS[phase] for phase in PHASES],
                   linewidth=0)  # fmt: skip
    axes.set_ylim(0, None)
    axes.set_title("blocks in hand of all workers, by what was done with them", fontsize=9,
                   loc="left")  # fmt: skip


def _draw_workers(axes: Axes, times: _Times) -> None:
    count = len(times.workers)
    axes.imshow(
        times.busy / times.step, aspect="auto", vmin=0, vmax=1, cmap="Greens",
        extent=(0, times.last - times.first, count - 0.5, -0.5), interpolation="nearest",
    )  # fmt: skip
    axes.set_title("each worker's device: white idle, green busy", fontsize=9, loc="left")
    names = list(times.workers)
    axes.set_yticks([0, count - 1], [_short(names[0]), _short(names[-1])])


def _draw_speed(axes: Axes, times: _Times) -> None:
    # Some five blocks a step, so that the speed shows and not where blocks end.
    wide = max(1, min(BINS // 8, round(5 * BINS / times.blocks)))
    speeds = [
        chunk.sum() / 1e6 / (len(chunk) * times.step)
        for chunk in (times.pixels[i : i + wide] for i in range(0, BINS, wide))
    ]
    edges = np.append(np.arange(0, BINS, wide), BINS) * times.step
    axes.stairs(speeds, edges, color="0.3", fill=True, alpha=0.25)
    axes.stairs(speeds, edges, color="0.3")
    mean = times.pixels.sum() / 1e6 / (times.last - times.first)
    axes.axhline(mean, color="0.3", linestyle=":", linewidth=1)
    axes.set_ylim(0, None)
    axes.set_title(f"megapixels a second; dotted their mean, {mean:.2f}", fontsize=9, loc="left")
    axes.set_xlabel("seconds since the first block began", fontsize=8)


def _draw_totals(axes: Axes, times: _Times, bottleneck: Bottleneck | None) -> None:
    whole = sum(times.totals.values()) or 1.0
    rows = [
        ("blocks", [(phase, COLOURS[phase], times.totals[phase] / whole) for phase in PHASES]),
    ]
    if bottleneck is not None:
        rows.append(
            ("devices", [(p, COLOURS[IDLE[p]], share) for p, share in bottleneck.shares.items()])
        )
    for y, (_, parts) in enumerate(rows):
        left = 0.0
        for name, colour, share in parts:
            axes.barh(y, share, left=left, color=colour, height=0.84)
            if share > 0.07:
                axes.text(
                    left + share / 2, y, f"{name} {share:.0%}", ha="center", va="center",
                    fontsize=8, color="black" if colour == COLOURS["wait"] else "white",
                )  # fmt: skip
            left += share
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    sums = ", ".join(f"{phase} {times.totals[phase]:,.1f}" for phase in PHASES)
    axes.set_title(
        f"seconds summed over the blocks: {sums}; and what the time of the devices went into, or "
        "was lost for",
        fontsize=9, loc="left",
    )  # fmt: skip


def _short(name: str) -> str:
    """The end of a worker's name, which may be an address."""
    return drawable(name if len(name) <= 24 else "..." + name[-21:])
