"""`tilepipe run`."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tilepipe.cli import INTERRUPTED
from tilepipe.cli.lines import say
from tilepipe.cli.options import collect, config_option, options_of
from tilepipe.engine.options import RunOptions
from tilepipe.errors import EnvironmentFailure, InputError
from tilepipe.options import option


@dataclass(frozen=True, slots=True)
class _RunFile(RunOptions):
    """What a YAML file of options may hold: several images, too."""

    images: tuple[str, ...] = option((), "Images to segment one after another")


@click.command("run")
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@options_of(RunOptions, without=("image",), after={"outputs": config_option})
@click.option(
    "--table", metavar="FILE.csv",
    help="Write the classes of all images as a table: pixels, shares, areas.",
)  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print the run record as JSON.")
def command(
    config: Path | None,
    images: tuple[str, ...],
    table: str | None,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Segment IMAGE and write the mask; if stopped, the same command resumes.

    Several images are segmented one after another. One that fails does not stop the others, and
    finished ones are skipped.
    """
    options, named = collect_run(config, images, given)
    if table is not None:
        from tilepipe.engine.report.class_rows import table_path

        table_path(table)  # refused before the work, and not after it
    work = _run_one if len(named) == 1 else _run_several
    return work(named, options, table, quiet, as_json)


def collect_run(
    config: Path | None, images: tuple[str, ...], given: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The options of a run, and its images.

    Raises
    ------
    InputError
        Naming the key at fault.
    """
    options = collect(_RunFile, config, given)
    listed, one = options.pop("images", ()), options.pop("image", None)
    named = list(images or listed or ([one] if one else []))
    if not named:
        raise InputError("which image? Give its path: tilepipe run slide.svs")
    return options, named


def _run_one(
    images: list[str], options: dict[str, Any], table: str | None, quiet: bool, as_json: bool
) -> int:
    from tilepipe import api
    from tilepipe.cli.show import QuietScreen, Screen, show_summary
    from tilepipe.engine.events import RunCallbacks

    watch: RunCallbacks = QuietScreen() if quiet or as_json else Screen()
    try:
        summary = api.run(images[0], watch=watch, **options)
    except (KeyboardInterrupt, EnvironmentFailure) as error:
        return _stopped(error, options, begun=watch.begun)
    finally:
        if isinstance(watch, Screen):
            watch.close()
    if table is not None:
        from tilepipe.engine.run.batch import BatchSummary, Outcome

        BatchSummary(
            (Outcome.of(images[0], summary),), summary.seconds.get("total", 0.0)
        ).write_table(table)
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=1))
    elif not quiet:
        say(show_summary(summary, watch.warned if isinstance(watch, Screen) else ()), indent=11)
    for number, reason in summary.incomplete if quiet or as_json else ():
        click.echo(f"tilepipe: block {number} has no answer in part: {reason}", err=True)
    return summary.exit_code


def _run_several(
    images: list[str], options: dict[str, Any], table: str | None, quiet: bool, as_json: bool
) -> int:
    from tilepipe import api
    from tilepipe.cli.batch_screen import BatchScreen, QuietBatchScreen, show_batch

    watch = QuietBatchScreen() if quiet or as_json else BatchScreen(len(images))
    try:
        summary = api.run_batch(images, watch=watch, **options)
    except (KeyboardInterrupt, EnvironmentFailure) as error:
        # Masks that were to be overwritten, and were not reached, are there still: not begun.
        return _stopped(error, options, begun=False)
    finally:
        if isinstance(watch, BatchScreen):
            watch.close()
    if table is not None:
        summary.write_table(table)
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=1))
    elif not quiet:
        click.echo(show_batch(summary))
    for outcome in summary.outcomes if quiet or as_json else ():
        if outcome.reason:
            click.echo(f"tilepipe: {outcome.image}: {outcome.reason}", err=True)
    return summary.exit_code


def _stopped(error: BaseException, options: dict[str, Any], *, begun: bool) -> int:
    """Print why the run stopped and how to resume it; returns the exit code."""
    interrupted = isinstance(error, KeyboardInterrupt)
    overwrites = begun and options.get("overwrite", False)
    arguments = sys.argv[1:]
    if overwrites:
        # The older mask is gone by now; before, the command without it would give that one back.
        arguments = [a for a in arguments if a != "--overwrite"]
    say(f"\ntilepipe: {'interrupted' if interrupted else error}", err=True)
    if overwrites and "--overwrite" not in sys.argv:
        click.echo("remove `overwrite` from the configuration, or it starts over", err=True)
    click.echo(f"to resume: tilepipe {shlex.join(arguments)}", err=True)
    return error.exit_code if isinstance(error, EnvironmentFailure) else INTERRUPTED
