"""`tilepipe train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tilepipe.cli import INTERRUPTED
from tilepipe.cli.lines import say
from tilepipe.cli.options import collect, config_option, options_of, quiet_option
from tilepipe.errors import InputError
from tilepipe.training.options import TrainOptions

AFTER = {
    "output": config_option,
    "labels": click.option(
        "--instances", "labels", flag_value="instances",
        help="The masks number their objects, which become one class.",
    ),
    "hed": click.option(
        "--no-augmentation", is_flag=True, help="Turn off all of the above, unless given."
    ),
}  # fmt: skip
"""Options of the command line alone, each after the field that it belongs to."""

PLAIN: dict[str, Any] = {
    "flips": False, "rotate": False, "scale": 1.0, "elastic": 0.0,
    "brightness": 0.0, "contrast": 0.0, "hed": 0.0,
}  # fmt: skip
"""No augmentation."""


@click.command("train")
@click.argument("data", nargs=-1)
@options_of(TrainOptions, without=("data", "about"), after=AFTER)
@quiet_option
def command(config: Path | None, quiet: bool, no_augmentation: bool, **given: Any) -> int:
    """Train a network on DATA and write a model file for `run`.

    DATA are folders with images/ and masks/ (or labels/) paired by name, or CSV files with the
    columns image and mask (and split and group), or large images with --mask for each. If stopped,
    the same command resumes.
    """
    options = collect_train(config, given, plain=no_augmentation)

    from tilepipe import api
    from tilepipe.cli.train_screen import TrainScreen, show_trained
    from tilepipe.training.train import TrainCallbacks

    watch: TrainCallbacks = TrainCallbacks() if quiet else TrainScreen()
    try:
        summary = api.train(watch=watch, **options)
    except KeyboardInterrupt:
        click.echo(
            "\ntilepipe: interrupted; the same command resumes"
            + (" without --overwrite" if options.get("overwrite") else ""),
            err=True,
        )
        return INTERRUPTED
    finally:
        if isinstance(watch, TrainScreen):
            watch.close()
    if not quiet:
        say(show_trained(summary))
    return 0


def collect_train(
    config: Path | None, given: dict[str, Any], *, plain: bool = False
) -> dict[str, Any]:
    """The options of a YAML file, with those given as flags winning.

    Raises
    ------
    InputError
        Naming the key at fault.
    """
    values = collect(TrainOptions, config, {})
    values |= (PLAIN if plain else {}) | collect(TrainOptions, None, given)
    if "data" not in values:
        raise InputError("which images? Give a folder with images/ and masks/, or a CSV file")
    if "output" not in values:
        raise InputError("which model file to write? Give -o MODEL.safetensors")
    return values
