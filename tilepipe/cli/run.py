"""`tilepipe run`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from tilepipe.cli import INTERRUPTED
from tilepipe.cli.options import collect_several, run_options
from tilepipe.engine.options import RunOptions
from tilepipe.errors import EnvironmentFailure


@click.command("run")
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@run_options
@click.option("--overwrite", is_flag=True, default=None, help="Start anew where output exists.")
@click.option("--verify", type=int, metavar="N", help="Verify N windows when the mask is written.")
@click.option(
    "--profile", is_flag=True, default=None, help="Keep the times of every block: CSV and a plot."
)
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print the run record as JSON.")
def command(
    config: Path | None, images: tuple[str, ...], quiet: bool, as_json: bool, **given: Any
) -> int:
    """Segment IMAGE and write the mask; the same command goes on where it was stopped.

    Several images are segmented one after another; one that fails stops no other, and those that
    are done are skipped.
    """
    many = collect_several(config, images, given)
    work = _run_one if len(many) == 1 else _run_several
    return work(many, quiet, as_json)


def _run_one(many: list[RunOptions], quiet: bool, as_json: bool) -> int:
    from tilepipe.cli.show import QuietScreen, Screen, show_summary
    from tilepipe.engine.events import RunCallbacks
    from tilepipe.engine.run.run import run

    (options,) = many
    watch: RunCallbacks = QuietScreen() if quiet or as_json else Screen()
    try:
        summary = run(options, watch)
    except (KeyboardInterrupt, EnvironmentFailure) as error:
        return _stopped(error, options, begun=watch.begun)
    finally:
        if isinstance(watch, Screen):
            watch.close()
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=1))
    elif not quiet:
        click.echo(show_summary(summary))
    for number, reason in summary.incomplete if quiet or as_json else ():
        click.echo(f"tilepipe: block {number} has no answer in part: {reason}", err=True)
    return summary.exit_code


def _run_several(many: list[RunOptions], quiet: bool, as_json: bool) -> int:
    from tilepipe.cli.batch_screen import BatchScreen, QuietBatchScreen, show_batch
    from tilepipe.engine.run.batch import run_batch

    watch = QuietBatchScreen() if quiet or as_json else BatchScreen(len(many))
    try:
        summary = run_batch(many, watch)
    except (KeyboardInterrupt, EnvironmentFailure) as error:
        # Masks that were to be overwritten, and were not reached, are there still: not begun.
        return _stopped(error, many[0], begun=False)
    finally:
        if isinstance(watch, BatchScreen):
            watch.close()
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=1))
    elif not quiet:
        click.echo(show_batch(summary))
    for outcome in summary.outcomes if quiet or as_json else ():
        if outcome.reason:
            click.echo(f"tilepipe: {outcome.image}: {outcome.reason}", err=True)
    return summary.exit_code


def _stopped(error: BaseException, options: RunOptions, *, begun: bool) -> int:
    """Say why, and how to go on; returns the exit code."""
    interrupted = isinstance(error, KeyboardInterrupt)
    _say_how_to_resume("interrupted" if interrupted else str(error), options, begun=begun)
    return error.exit_code if isinstance(error, EnvironmentFailure) else INTERRUPTED


def _say_how_to_resume(reason: str, options: RunOptions, *, begun: bool) -> None:
    arguments = sys.argv[1:]
    if begun and options.overwrite:
        # The older mask is gone by now; before, the command without it would give that one back.
        arguments = [a for a in arguments if a != "--overwrite"]
    click.echo(f"\ntilepipe: {reason}", err=True)
    if begun and options.overwrite and "--overwrite" not in sys.argv:
        click.echo("take `overwrite` out of the configuration, so as not to start anew", err=True)
    click.echo(f"to go on where it stopped: tilepipe {shlex.join(arguments)}", err=True)
