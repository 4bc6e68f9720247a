"""`tilepipe evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tilepipe.cli.options import collect, options_of, quiet_option
from tilepipe.evaluation.options import EvaluateOptions
from tilepipe.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from tilepipe.evaluation.results import Evaluation

MOST_CLASSES = 8
"""Classes up to which the confusion matrix is shown."""


def _written(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where to write results."""
    csv = click.option(
        "--csv", "csv_path", metavar="PATH", help="Write the scores of each image as a table."
    )
    as_json = click.option(
        "--json", "json_path", metavar="PATH", help="Write all results as JSON; - prints it."
    )
    return as_json(csv(command))


@click.command("evaluate")
@click.argument("mask")
@click.argument("truth", required=False)
@options_of(EvaluateOptions, without=("mask", "truth"), after={"seed": _written})
@quiet_option
def command(
    mask: str,
    truth: str | None,
    json_path: str | None,
    csv_path: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Compare MASK with TRUTH: two files, two folders, or a CSV file of pairs.

    Reports Dice, IoU, precision and recall of each class, over all pixels and as a mean over images
    with a 95 % bootstrap interval; of objects, with --instances.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from tilepipe import evaluate
    from tilepipe.cli.terminal import Terminal

    chosen = collect(EvaluateOptions, None, options)
    for path in (csv_path, json_path):
        if path not in (None, "-"):
            _require_folder(path)
    console = Terminal(stderr=True)
    hidden = quiet or not console.is_terminal
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
    )  # fmt: skip
    with Progress(*columns, disable=hidden, console=console, transient=True) as bar:
        task = bar.add_task("evaluate", total=None)

        def tell(name: str, done: int, total: int) -> None:
            bar.update(task, description=one_line(name), completed=done, total=total)

        result = evaluate(mask, truth, progress=tell, **chosen)
    if csv_path is not None:
        result.write_csv(csv_path)
    if json_path == "-":
        click.echo(result.to_json())
        return
    if json_path is not None:
        _write(json_path, result.to_json())
    if not quiet:
        _show(result)


def _require_folder(path: str) -> None:
    """Refuse a path that could not be written, before the work and not after it."""
    from tilepipe.errors import InputError
    from tilepipe.storage import written_here

    target = written_here(path)
    if target.is_dir() or not target.parent.is_dir():
        reason = "is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise InputError(f"{target} cannot be written: {reason}; choose another")


def _write(path: str, text: str) -> None:
    from tilepipe.errors import InputError
    from tilepipe.storage import written_here

    try:
        written_here(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another") from error


def _show(result: Evaluation) -> None:
    from tilepipe.cli.terminal import Terminal

    console = Terminal()
    if not console.is_terminal:
        # A file has no width to keep to.
        console.width = 120
    if result.kind == "values":
        console.print(_values_table(result))
        return
    console.print(_classes_table(result))
    pooled = result.pooled
    counts = pooled.to_dict()
    console.print(f"accuracy  {pooled.scores()['accuracy']:.4f} of {counts['compared']:,} pixels")
    if pooled.no_answer:
        console.print(
            f"answered  {pooled.answered:.2%}; {pooled.no_answer:,} pixels have no answer"
        )
    if counts["ignored"]:
        console.print(f"ignored   {counts['ignored']:,} pixels have no truth")
    if pooled.objects is not None:
        console.print(_objects_table(result))
    if len(pooled.confusions) == 1 and 2 < len(result.classes) <= MOST_CLASSES:
        console.print(_confusion_table(result))


def _classes_table(result: Evaluation) -> Table:
    pooled, averages = result.pooled.scores(), result.over_images()
    many = len(result.images) > 1
    table = _table("class", "Dice", "IoU", "precision", "recall", "pixels")
    if many:
        table.title = f"pixels of {len(result.images)} images; on the right, the mean over images"
        table.add_column("Dice [95 %]", justify="right", no_wrap=True)
    pixels = result.pooled.of_classes("true")
    rows = [
        (name, pooled["classes"][name], f"{pixels[i]:,}", averages["classes"][name])
        for i, name in enumerate(result.classes)
    ]
    rows.append(("mean", pooled["mean"], "", averages["mean"]))
    if "foreground" in pooled and len(result.classes) > 2:
        rows.append(
            (f"without {result.classes[0]}", pooled["foreground"], "", averages["foreground"])
        )
    for name, scores, count, average in rows:
        cells = [name, *(_score(scores[m]) for m in ("dice", "iou", "precision", "recall")), count]
        table.add_row(*cells, *([_interval(average["dice"])] if many else []))
    return table


def _objects_table(result: Evaluation) -> Table:
    pooled = result.pooled.objects
    assert pooled is not None
    averages = result.over_images()["objects"]
    many = len(result.images) > 1
    table = _table("objects", "F1", "AJI", "precision", "recall", "matched", "false", "missed")
    table.add_row(
        str(result.object_class),
        *(_score(getattr(pooled, metric)) for metric in ("f1", "aji", "precision", "recall")),
        f"{pooled.true_positives:,}",
        f"{pooled.false_positives:,}",
        f"{pooled.false_negatives:,}",
    )
    if many:
        for label, end in (("mean over images", "mean"), ("95 % from", "low"), ("to", "high")):
            table.add_row(
                label,
                *(_score(averages[metric][end]) for metric in ("f1", "aji", "precision", "recall")),
            )
    return table


def _values_table(result: Evaluation) -> Table:
    scores, averages = result.pooled.scores()["values"], result.over_images()["values"]
    many = len(result.images) > 1
    table = _table("values", "MAE", "RMSE", "bias", "compared", "left out")
    if many:
        table.add_column("MAE over images [95 %]", justify="right", no_wrap=True)
    for name, errors in zip(result.classes, result.pooled.errors, strict=True):
        table.add_row(
            name,
            *(f"{scores[name][metric]:.5g}" for metric in ("mae", "rmse", "bias")),
            f"{errors.count:,}",
            f"{errors.left_out:,}",
            *([_interval(averages[name]["mae"])] if many else []),
        )
    return table


def _confusion_table(result: Evaluation) -> Table:
    table = _table("true \\ predicted", *result.classes)
    table.title = "pixels, as a share of the true class"
    matrix = result.pooled.confusions[0].matrix
    for name, row in zip(result.classes, matrix, strict=True):
        total = int(row.sum())
        table.add_row(name, *(f"{count / total:.2%}" if total else "–" for count in row))
    return table


def _table(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title_justify="left", title_style="dim")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _score(value: float) -> str:
    return "–" if value != value else f"{value:.4f}"


def _interval(average: dict[str, float]) -> str:
    if average["low"] != average["low"]:
        return _score(average["mean"])
    return f"{average['mean']:.3f} [{average['low']:.3f}, {average['high']:.3f}]"
