"""The screen of a training: recipe, progress and result, as text."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tilepipe.cli.lines import say
from tilepipe.cli.show import LINE_EVERY
from tilepipe.cli.terminal import Terminal
from tilepipe.images.base import show_pixel_size
from tilepipe.text import aligned
from tilepipe.training.recipe import Recipe
from tilepipe.training.train import TrainCallbacks, TrainSummary


class TrainScreen(TrainCallbacks):
    """The progress of a training on standard error: a bar, and a line for each validation."""

    def __init__(self) -> None:
        self._console = Terminal(stderr=True, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._total, self._said = 0, time.monotonic()
        self._metric = ""

    def begin(self, recipe: Recipe) -> None:
        """Print the recipe, and start the bar."""
        say(show_recipe(recipe), err=True)
        self._total, self._metric = recipe.options.steps, recipe.metric
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("train"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps  loss {task.fields[loss]:.3f}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(
                "train", total=self._total, completed=recipe.resumed, loss=float("nan")
            )
            self._bar.start()

    def step(self, step: int, loss: float) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=loss)
        elif time.monotonic() - self._said > LINE_EVERY:
            self._said = time.monotonic()
            click.echo(f"step {step} of {self._total}, loss {loss:.3f}", err=True)

    def validated(self, row: dict[str, Any], best: bool) -> None:
        """Print a line for each validation."""
        parts = [f"step {row['step']}", f"loss {row['loss']:.3f}"]
        if self._metric in row or "validation_loss" in row:
            name = "validation_loss" if self._metric == "loss" else self._metric
            parts.append(f"{name.replace('_', ' ')} {row[name]:.4f}" + (" (best)" if best else ""))
        self._console.print("  ".join(parts))

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def show_recipe(recipe: Recipe) -> str:
    """The recipe of a training, as aligned lines."""
    options, found, net = recipe.options, recipe.survey, recipe.arguments
    judged = f", {len(recipe.validation)} to validate on" if recipe.validation else ""
    size = "no pixel size" if recipe.input.pixel_size is None else show_pixel_size(
        recipe.input.pixel_size
    )  # fmt: skip
    lines = [
        ("images", f"{len(recipe.training)} to train on{judged}: {found.bands} bands of "
         f"{found.dtype}, {size}"),
        ("masks", _masks(recipe)),
        ("network", f"width {net.width}, depth {net.depth}, {net.padding} convolutions, "
         f"{net.normalisation} normalisation, {net.upsampling} up-sampling"
         + (f", from {recipe.start.name}" if recipe.start else "")),
        ("tiles", f"{options.batch} of {recipe.side} a step, {options.steps} steps"),
        ("loss", recipe.loss + (
            f", weight map with w0 {options.border_weight:g} and sigma {options.border_sigma:g}"
            if options.border_weight else "")),
        ("device", f"{recipe.device}, {recipe.threads} threads"),
    ]  # fmt: skip
    if recipe.resumed:
        lines.append(("resume", f"from step {recipe.resumed}"))
    return aligned(lines)


def _masks(recipe: Recipe) -> str:
    found, classes = recipe.survey, recipe.output.classes
    if not found.counts:
        return f"values: {', '.join(c.name for c in classes)}"
    total = sum(found.counts)
    shares = [f"{c.name} {n / total:.1%}" for c, n in zip(classes, found.counts, strict=True)]
    return f"{found.scheme.kind}: {', '.join(shares)}"


def show_trained(summary: TrainSummary) -> str:
    """The result of a training, as aligned lines."""
    lines = [("model", str(summary.model))]
    figures = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in summary.scores.items()
        if name != "validation_loss"
    ]
    if figures:
        lines.append(("scores", ", ".join(figures) + f" (step {summary.best_step})"))
    early = ", stopped early, without improvement" if summary.stopped_early else ""
    lines.append(("time", f"{summary.seconds / 60:.1f} min, {summary.steps} steps{early}"))
    lines.append(("pictures", f"{summary.folder}: curves.png, validation.png, log.csv"))
    lines.append(("next", f"tilepipe run IMAGE -m {summary.model}"))
    return aligned(lines)
