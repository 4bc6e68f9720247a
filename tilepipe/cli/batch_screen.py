"""The screen of a batch: a line for each finished image, a bar, and a table at the end."""

from __future__ import annotations

from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tilepipe.cli.show import QuietScreen, near
from tilepipe.cli.terminal import Terminal
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.report.record import Summary
from tilepipe.engine.resources import Estimate
from tilepipe.engine.run.batch import BatchCallbacks, BatchSummary, Outcome
from tilepipe.text import duration

SHOWN_CLASSES = 3
"""Classes of each image in the table; its run record has all of them."""


class QuietBatchScreen(BatchCallbacks):
    """Shows only the warnings of a batch."""

    def image(self, number: int, image: str) -> RunCallbacks:
        """Callbacks whose warnings name the image."""
        return QuietScreen(near(image))


class BatchScreen(BatchCallbacks):
    """The progress of a batch on standard error."""

    def __init__(self, total: int) -> None:
        self._console = Terminal(stderr=True, soft_wrap=True)
        self._total, self._ended = total, 0
        self._open: dict[str, _ImageWatch] = {}
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._images = self._bar.add_task("batch", total=total, unit="images")

    def image(self, number: int, image: str) -> RunCallbacks:
        """Callbacks that show a bar for the image's blocks."""
        if self._bar is not None:
            self._bar.start()
        self._open[image] = watch = _ImageWatch(image, self._console, self._bar)
        return watch

    def workers(self) -> RunCallbacks:
        """Callbacks for what concerns no single image."""
        return _WorkersWatch(self._console)

    def finished(self, outcome: Outcome) -> None:
        """Print a line for an image."""
        self._ended += 1
        if outcome.image in self._open:
            self._open.pop(outcome.image).close()
        text = f"{self._ended:{len(str(self._total))}} of {self._total}  {outcome.result:11}  "
        text += near(outcome.image)
        if outcome.result == "failed":
            text += f": {outcome.reason}"
        elif outcome.summary is not None and outcome.result != "done before":
            text += f"  {duration(outcome.summary.seconds['total'])}"
        style = {"done": "", "done before": "dim"}.get(outcome.result, "yellow")
        self._console.print(text, style=style)
        if self._bar is not None:
            self._bar.advance(self._images)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _ImageWatch(RunCallbacks):
    def __init__(self, image: str, console: Terminal, bar: Progress | None) -> None:
        self._image, self._console, self._bar = image, console, bar
        self._task: Any = None

    def planned(self, plan: Plan, estimate: Estimate, done: int) -> None:
        for warning in estimate.warnings:
            self.on_warning(warning)
        if self._bar is not None:
            name = near(self._image)
            self._task = self._bar.add_task(
                name, total=plan.blocks, completed=done, unit="blocks", visible=False
            )

    def submitted(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, visible=True)

    def block(self, receipt: Any) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)

    def on_warning(self, message: str) -> None:
        text = f"warning: {near(self._image)}: {message}"
        self._console.print(text, style="yellow")

    def close(self) -> None:
        """Remove the image's bar."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, visible=False)


class _WorkersWatch(RunCallbacks):
    def __init__(self, console: Terminal) -> None:
        self._console = console

    def on_warning(self, message: str) -> None:
        self._console.print(f"warning: {message}", style="yellow")

    def stage(self, name: str) -> None:
        self._console.print(name, style="dim")


def show_batch(summary: BatchSummary) -> str:
    """The table of outcomes, and how many there are of each."""
    rows = [("image", "result", "seconds", "classes")]
    for outcome in summary.outcomes:
        found, seconds = "", ""
        if outcome.summary is not None:
            found = "; ".join(filter(None, (_shares(outcome.summary), _objects(outcome.summary))))
            if outcome.result != "done before":
                seconds = f"{outcome.summary.seconds['total']:.1f}"
        rows.append((near(outcome.image), outcome.result, seconds, outcome.reason or found))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{image:{widths[0]}}  {result:{widths[1]}}  {seconds:>{widths[2]}}  {text}".rstrip()
        for image, result, seconds, text in rows
    ]
    counts: dict[str, int] = {}
    for outcome in summary.outcomes:
        counts[outcome.result] = counts.get(outcome.result, 0) + 1
    told = ", ".join(f"{number} {result}" for result, number in counts.items())
    return "\n".join([*lines, "", f"{len(rows) - 1} images: {told}; {duration(summary.seconds)}"])


def _objects(summary: Summary) -> str:
    """How many objects of each class there are, and how dense."""
    from tilepipe.objects.summary import show_counts

    return "" if summary.objects is None else show_counts(summary.objects, SHOWN_CLASSES)


def _shares(summary: Summary) -> str:
    if not summary.plan.mask.product.has_classes:
        return ""
    background = summary.plan.mask.background
    found = [c for i, c in enumerate(summary.classes) if i != background]
    text = ", ".join(f"{c.name} {c.share:.2%}" for c in found[:SHOWN_CLASSES])
    more = len(found) - SHOWN_CLASSES
    return text + (f", and {more} more" if more > 0 else "")
