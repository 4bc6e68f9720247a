"""The screen of a run: plan, progress and summary, as text."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tilepipe.cli.lines import broken, say
from tilepipe.cli.terminal import Terminal
from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.plan.describe import (
    show_ground,
    show_region,
    show_rescaling,
    show_scale,
    show_selection,
)
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.report.record import Summary
from tilepipe.engine.resources import Estimate
from tilepipe.images.bands import show_bands
from tilepipe.images.base import Image, show_pixel_size, show_series
from tilepipe.images.ground import crs_name, ground_of
from tilepipe.images.observed import notes_of
from tilepipe.images.scaling import show_scaling
from tilepipe.storage import StoragePath, is_url
from tilepipe.text import aligned, count, duration, gigabytes, one_line

LINE_EVERY = 30
"""Seconds between lines of progress where the output is not a terminal."""


class Screen(RunCallbacks):
    """The progress of a run on standard error: a bar, or a line now and then in a log."""

    def __init__(self) -> None:
        self._console = Terminal(stderr=True, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._total = self._done = self._pixels = 0
        self._begin = self._said = time.monotonic()
        self.warned: set[str] = set()
        """Warnings that have been shown."""

    def planned(self, plan: Plan, estimate: Estimate, done: int) -> None:
        """Print the plan, and start the bar."""
        say(show_plan(plan, estimate), err=True)
        self.warned.update(estimate.warnings)
        if done:
            click.echo(f"resume    {done} of {plan.blocks} blocks are done already", err=True)
        self._total, self._done = plan.blocks, done
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("blocks"),
                _Speed(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("segment", total=plan.blocks, completed=done, mpx=0.0)

    def submitted(self) -> None:
        """Show the bar."""
        self._begin = self._said = time.monotonic()
        if self._bar is not None:
            self._bar.start()

    def block(self, receipt: Any) -> None:
        """Advance the bar."""
        self._done += 1
        self._pixels += receipt.answered
        speed = self._pixels / 1e6 / max(1e-9, time.monotonic() - self._begin)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, mpx=speed)
        elif time.monotonic() - self._said > LINE_EVERY:
            self._said = time.monotonic()
            click.echo(f"{self._done} of {self._total} blocks, {speed:.1f} Mpx/s", err=True)

    def on_warning(self, message: str) -> None:
        """Print it above the bar."""
        if message not in self.warned:
            self.warned.add(message)
            self._console.print(_as_shown(f"warning: {message}", self._console), style="yellow")

    def stage(self, name: str) -> None:
        """End the bar, and print a line for the stage."""
        self.close()
        self._console.print(name, style="dim")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class QuietScreen(RunCallbacks):
    """Shows only the warnings of a run: what may make a mask wrong is never hidden."""

    def __init__(self, image: str = "") -> None:
        self._prefix = f"{image}: " if image else ""

    def planned(self, plan: Plan, estimate: Estimate, done: int) -> None:
        """Print the plan's warnings."""
        for warning in estimate.warnings:
            click.echo(f"tilepipe: warning: {self._prefix}{warning}", err=True)


def _as_shown(line: str, console: Terminal) -> str:
    return broken(line, len("warning: ")) if console.is_terminal else line


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['mpx']:.1f} Mpx/s")


def show_plan(plan: Plan, estimate: Estimate) -> str:
    """The plan for a person, as aligned lines."""
    image, tiling, coverage = plan.image, plan.tiling, plan.coverage
    keep, framed = tiling.keep, "at most " if coverage.framed else ""
    lines = [
        ("image", image.path),
        ("", f"{image.kind}, level {image.level}: {_size(image.height, image.width)}, "
             f"{count(image.bands, 'band')} of {image.dtype}, {show_pixel_size(image.pixel_size)}"),
        ("bands", show_selection(plan)),
        ("values", show_rescaling(plan)),
        ("scale", show_scale(plan)),
        ("ground", show_ground(plan)),
        ("region", None if plan.region is None else show_region(plan)),
        ("model", f"{plan.model}: {', '.join(c.name for c in plan.mask.classes)}"),
        ("objects", None if plan.objects is None else one_line(str(plan.objects))),
        ("window", f"{framed}{tiling.input[1]} x {tiling.input[0]} in, {keep[1]} x {keep[0]} kept; "
                   f"margin {tiling.geometry.margin}, on a grid of "
                   f"{tiling.geometry.stride_factor}"),
        ("blocks", f"{plan.blocks} of {tiling.block[1]} x {tiling.block[0]} pixels, "
                   f"{coverage.passes:,} forward passes, "
                   f"{coverage.work / coverage.pixels:.2f} pixels convolved for each"),
        ("device", f"{plan.environment.get('device', plan.device)}, {plan.precision}, "
                   f"{count(plan.threads, 'thread')}{_runtime(plan, estimate)}"),
        ("labels", None if plan.change is None else str(plan.change)),
        ("hint", estimate.offer and "".join(estimate.offer)),
        ("memory", f"at most {gigabytes(estimate.memory)} of "
                   f"{gigabytes(estimate.memory_limit)} allowed"),
        ("time", "not measured" if estimate.seconds is None
                 else f"about {duration(estimate.seconds)}"),
        *(("warning", warning) for warning in estimate.warnings),
    ]  # fmt: skip
    return aligned([(label, text) for label, text in lines if text])


def _size(height: int, width: int) -> str:
    return f"{width} x {height} pixels (width x height)"


def _runtime(plan: Plan, estimate: Estimate) -> str:
    """The runtime, if it is not torch or others were measured as well."""
    speeds = ", ".join(f"{name} {speed / 1e6:.2g}" for name, speed in estimate.speeds)
    if speeds:
        return f", {plan.runtime} (measured: {speeds} Mpx/s)"
    return "" if plan.runtime == "torch" else f", {plan.runtime}"


def show_summary(summary: Summary, known: Collection[str] = ()) -> str:
    """The closing summary for a person.

    Parameters
    ----------
    summary
        Of the run.
    known
        Warnings that have been shown already.
    """
    rows = [("blocks", _blocks(summary)), ("seconds", _seconds(summary.seconds))]
    if ground := show_ground(summary.plan):
        rows.append(("ground", ground))
    if summary.bottleneck:
        rows.append(("bottleneck", str(summary.bottleneck)))
    rows.append(("memory", f"{gigabytes(summary.peak_memory)} at most"))
    if summary.verification is not None:
        word = "exact" if summary.verification.exact else "NOT EXACT"
        rows.append(("verify", f"{word}: {summary.verification}"))
    rows += [("warning", warning) for warning in summary.warnings if warning not in known]
    if summary.incomplete:
        numbers = ", ".join(str(number) for number, _ in summary.incomplete[:20])
        text = f"{summary.unreadable:,} pixels could not be read and have no answer (255)"
        rows.append(("warning", f"{text}, in blocks {numbers}"))
    files = [("mask" if i == 0 else "", near(p)) for i, p in enumerate(summary.outputs)]
    files.append(("record", near(summary.record)))
    files += [("profile" if i == 0 else "", near(p)) for i, p in enumerate(summary.profile)]
    found = _objects(summary)
    parts = ("\n".join(_classes(summary)), *found, aligned(rows, 10), aligned(files, 10))
    return "\n\n".join(parts)


def _objects(summary: Summary) -> list[str]:
    from tilepipe.objects.summary import show_objects

    return [] if summary.objects is None else [show_objects(summary.objects)]


def _classes(summary: Summary) -> Iterator[str]:
    """Each class with its share and area, and what has no answer."""
    unit = {"mm2": "mm²", "km2": "km²", None: ""}[summary.area_unit]
    for c in summary.classes:
        if not summary.plan.mask.product.has_classes:
            yield f"{one_line(c.name):24} values"
            continue
        area = "" if c.area is None else f"  {c.area:,.4g} {unit}"
        yield f"{one_line(c.name):24} {c.share:8.2%}{area}"
    total = summary.answered + summary.no_answer
    outside = total - summary.plan.coverage.pixels
    if outside:
        yield f"{'(outside the region)':24} {outside / total:8.2%}"
    if summary.no_answer > outside:
        yield f"{'(no answer)':24} {(summary.no_answer - outside) / total:8.2%}"


def _blocks(summary: Summary) -> str:
    if summary.resumed:
        return f"{summary.blocks}, {summary.resumed} of them done before"
    speed = summary.plan.coverage.pixels / 1e6 / max(summary.seconds.get("blocks", 0), 1e-9)
    return f"{summary.blocks}; {speed:.1f} Mpx/s"


def _seconds(seconds: dict[str, float]) -> str:
    def listed(*names: str) -> str:
        return ", ".join(f"{name} {seconds[name]:.1f}" for name in names if name in seconds)

    inside = listed("read", "wait", "compute", "write")
    return f"{inside} in the blocks; " + listed(
        "start", "blocks", "pyramid", "exports", "objects", "verify", "total"
    )


def show_image(image: Image) -> str:
    """Describe an image, as aligned lines."""
    lines = [
        ("image", image.path),
        ("kind", image.kind),
        (
            "bands",
            f"{image.bands} of {np.dtype(image.dtype).name}"
            + (f": {show_bands(image.file_bands)}" if any(image.file_bands) else ""),
        ),
        ("pixel", show_pixel_size(image.pixel_size)),
        *([("", f"in doubt: {image.pixel_size_doubt}")] if image.pixel_size_doubt else []),
    ]
    ground = ground_of(image)
    if ground is not None:
        lines.append(("ground", f"{show_pixel_size(ground.pixel_size)} on the ground, at the "
                                "image's centre"))  # fmt: skip
    for i, level in enumerate(image.levels):
        rows, columns = image.chunks[i]
        text = f"{_size(level.height, level.width)}, 1/{level.scale_x:.4g}"
        lines.append((f"level {i}", f"{text}, decoded in pieces of {columns} x {rows}"))
    if len(image.series) > 1:
        for series in image.series:
            taken = ", this one" if series.number == image.series_number else ""
            lines.append(("series", f"{show_series(series)}{taken}"))
    if image.crs is not None:
        lines.append(("crs", crs_name(image.crs)))
        lines.append(("transform", ", ".join(f"{v:g}" for v in image.transform or ())))
    if image.control is not None:
        of = f", in {crs_name(image.control.crs)}" if image.control.crs else ""
        lines.append(("control", f"{image.control}{of}"))
    if image.nodata is not None:
        lines.append(("nodata", f"{image.nodata:g}"))
    if image.scaling:
        lines.append(("scale", f"{show_scaling(image.scaling)} (scale and offset)"))
    lines += [("note", note) for note in notes_of(image)]
    lines.append(("fingerprint", image.fingerprint()))
    return aligned(lines, 11)


def near(path: str | StoragePath) -> str:
    """A path relative to the current folder, in one line."""
    text = str(path)
    if not is_url(path):
        with suppress(ValueError, OSError):  # it is elsewhere, or the current folder is gone
            text = str(Path(text).relative_to(Path.cwd()))
    return one_line(text)
