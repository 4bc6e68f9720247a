"""`--profile`: the times of every block, as a table and as a plot, read from the ledger.

The ledger is read twice, record by record. Memory holds one number for each block, and the plot.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.engine.events import BlockReport
from tilepipe.engine.report.bottleneck import Bottleneck
from tilepipe.engine.state.ledger import read_ledger
from tilepipe.engine.state.run_record import profile_paths
from tilepipe.storage import StoragePath, complete_or_absent, staged_locally
from tilepipe.text import count, drawable, duration, one_line

if TYPE_CHECKING:
    from tilepipe.engine.plan.plan import Plan

PHASES = ("read", "wait", "compute", "write")
COLOURS = ("#4477aa", "#d0d0d0", "#228833", "#ee6677")
COLUMNS = (
    "number", "y", "x", "height", "width", "worker", "begin", *PHASES, "pixels", "run",
)  # fmt: skip
STEPS = 240
"""Steps of the plot's time axis."""


@dataclass
class _Times:
    """When the blocks of this run were in which phase."""

    first: float = np.inf
    last: float = -np.inf
    blocks: int = 0
    workers: set[str] = field(default_factory=set)
    in_phase: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(PHASES), STEPS)))
    """Seconds of blocks in each phase, within each step of time."""
    pixels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(STEPS))
    """Pixels computed within each step of time."""

    def extend(self, report: BlockReport) -> None:
        """Extend the time axis to a block; all blocks come here before the first is added."""
        self.blocks += 1
        self.first = min(self.first, report.begin)
        self.last = max(self.last, report.begin + sum(getattr(report, p) for p in PHASES))
        self.workers.add(report.worker)

    def add(self, report: BlockReport) -> None:
        """Add the times of a block."""
        at = report.begin
        for row, phase in zip(self.in_phase, PHASES, strict=True):
            length = float(getattr(report, phase))
            self.spread(row, at, length, length)
            if phase == "compute":
                self.spread(self.pixels, at, length, report.answered)
            at += length

    @property
    def seconds(self) -> float:
        """Seconds from the beginning of the first block to the end of the last."""
        return max(self.last - self.first, 1e-6)

    @property
    def step(self) -> float:
        """Seconds of a step of time."""
        return self.seconds / STEPS

    def spread(self, row: NDArray[np.float64], at: float, length: float, amount: float) -> None:
        """Divide ``amount`` evenly over the steps between ``at`` and ``at + length``."""
        low = (at - self.first) / self.step
        high = max(low + 1e-9, low + length / self.step)
        one, other = max(0, int(low)), min(STEPS, int(np.ceil(high)))
        edges = np.clip(np.arange(one, other + 1, dtype=np.float64), low, high)
        row[one:other] += np.diff(edges) * (amount / (high - low))


def write_profile(
    ledger: StoragePath, since: int, plan: Plan, record: StoragePath, bottleneck: Bottleneck | None
) -> tuple[StoragePath, ...]:
    """Write ``NAME.profile.csv`` and ``NAME.profile.png``, and return those that exist.

    Parameters
    ----------
    ledger
        The ledger of the output.
    since
        Where in the ledger this run begins (`Ledger.since`). Blocks of earlier runs are marked in
        the table, and left out of the plot.
    plan
        The plan of the run.
    record
        The run record; table and plot are written beside it.
    bottleneck
        The bottleneck that the run's summary names.
    """
    table, plot = profile_paths(record)
    times = _Times()
    latest = np.full(plan.blocks, -1, np.int64)
    for index, fresh, report in _reports(ledger, since):
        latest[report.number] = index
        if fresh:
            times.extend(report)
    if times.blocks == 0 and table.exists():
        return tuple(path for path in (table, plot) if path.exists())  # of the run that computed
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
        for index, fresh, report in _reports(ledger, since):
            if latest[report.number] != index:
                continue  # the block was computed again later
            rows.writerow(_row(report, plan, "this" if fresh else "earlier"))
            if fresh:
                times.add(report)


def _reports(ledger: StoragePath, since: int) -> Iterator[tuple[int, bool, BlockReport]]:
    """The reports in the ledger: index, whether the block is of this run, report."""
    index = 0
    for fresh, begin, end in ((False, 0, since), (True, since, None)):
        for record in read_ledger(ledger, begin, end):
            if record["kind"] == "block":
                yield index, fresh, BlockReport.from_record(record)
                index += 1


def _row(report: BlockReport, plan: Plan, run: str) -> list[Any]:
    window = plan.tiling.block_window(report.number)
    return [
        report.number, window.y, window.x, window.height, window.width,
        one_line(report.worker),
        f"{report.begin:.6f}", *(f"{getattr(report, phase):.6f}" for phase in PHASES),
        report.answered, run,
    ]  # fmt: skip


def _draw(times: _Times, plan: Plan, bottleneck: Bottleneck | None, path: Path) -> None:
    """Plot how many blocks were in which phase, and megapixels per second, over time."""
    from matplotlib.figure import Figure

    from tilepipe.drawing import plain_style

    figure = Figure(figsize=(12, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 2), sharex=True)
    labels = [
        f"{phase}, {duration(total)}"
        for phase, total in zip(PHASES, times.in_phase.sum(1), strict=True)
    ]
    middles = (np.arange(STEPS) + 0.5) * times.step
    upper.stackplot(
        middles, times.in_phase / times.step, labels=labels, colors=COLOURS, linewidth=0
    )
    title = {"loc": "left", "fontsize": 9}
    upper.set_title("blocks in each phase, of all workers; the legend has their sums", **title)
    # About five blocks in each, so that the plot shows the speed and not where blocks end.
    wide = max(1, min(STEPS // 8, round(5 * STEPS / times.blocks)))
    starts = np.arange(0, STEPS, wide)
    edges = np.append(starts, STEPS)
    speeds = np.add.reduceat(times.pixels, starts) / 1e6 / (np.diff(edges) * times.step)
    mean = times.pixels.sum() / 1e6 / times.seconds
    lower.stairs(speeds, edges * times.step, color="0.3", fill=True, alpha=0.4)
    lower.axhline(mean, color="0.3", linestyle=":", linewidth=1)
    lower.set_title(f"megapixels per second; the dotted line is the mean, {mean:.2f}", **title)
    lower.set(xlabel="seconds since the first block began", xlim=(0, times.seconds))
    for axes in (upper, lower):
        axes.set_ylim(0, None)
    plain_style(upper, lower)
    figure.legend(loc="outside lower center", ncols=len(PHASES), fontsize=8, frameon=False)
    figure.suptitle(_title(times, plan, bottleneck), fontsize=10, x=0.01, ha="left")
    with complete_or_absent(path) as part:
        figure.savefig(part, dpi=110, format="png")


def _title(times: _Times, plan: Plan, bottleneck: Bottleneck | None) -> str:
    (rows, columns), (height, width) = plan.tiling.block, plan.tiling.input
    lines = [
        f"{Path(plan.image.path).name}, {plan.image.width} x {plan.image.height} pixels: "
        f"{count(times.blocks, 'block')} of {columns} x {rows} in {duration(times.seconds)}",
        f"windows {width} x {height}, {plan.environment.get('device', plan.device)}, "
        f"{plan.precision}, {count(plan.threads, 'thread')}, {count(len(times.workers), 'worker')}",
    ]
    if bottleneck is not None:
        lines += textwrap.wrap(f"bottleneck: {bottleneck}", 150)
    return "\n".join(map(drawable, lines))
