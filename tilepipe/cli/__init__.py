"""The command line: options, printing, exit codes; no work of its own."""

from __future__ import annotations

import errno
import logging
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from tilepipe.cli.guard import guarded, occupy_closed_streams
from tilepipe.errors import InputError, TilepipeError
from tilepipe.text import one_line

COMMANDS = {
    "run": "Segment an image and write the mask.",
    "plan": "Show what `run` would do: window, blocks, memory, time.",
    "objects": "Find the objects of a mask: outlines, measurements, counts.",
    "verify": "Prove that a mask equals the whole-image answer.",
    "validate": "Check that a result follows its format, and who can open it.",
    "train": "Train a network on images and masks.",
    "quantise": "Put an int8 network into a model file, for faster runs on CPUs.",
    "evaluate": "Score masks against ground truth: Dice, IoU, objects.",
    "models": "List the models that come with tilepipe.",
    "info": "Describe a model or an image.",
    "convert": "Turn an image into an OME-Zarr pyramid, or a mask into another format.",
    "doctor": "Find what would make runs fail or slow here.",
}
"""Name and short help of each command; its module is imported when it is called."""

INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that imports a command when it is called, so that ``--help`` imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, from its module."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"tilepipe.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"tilepipe {version('tilepipe')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Show the version and exit.",
)  # fmt: skip
def app() -> None:
    """U-Net inference over images too large for memory: exact, bounded, resumable.

    \b
    tilepipe run slide.svs                     segment a slide with the shipped model
    tilepipe run scene.tif -m roads.safetensors -o roads.tif
    tilepipe verify slide_mask.ome.zarr        prove that the mask is exact
    """  # noqa: D301


def main() -> None:
    """Run the command line and exit with the code that `tilepipe.errors` gives each ending."""
    occupy_closed_streams()
    signal.signal(signal.SIGTERM, _terminated)
    _show_remarks()
    try:
        code = call(None)
    except Exception:  # a bug, which is printed in full
        with guarded():
            traceback.print_exc()
        code = 1
    # The work is done: a signal that arrives now must not make it look interrupted.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def call(arguments: list[str] | None) -> int:
    """Run the command line given (or the process's own) and return its exit code."""
    with guarded():
        return _call(arguments)


def _call(arguments: list[str] | None) -> int:
    try:
        _require_current_folder()
        result: Any = app.main(arguments, prog_name="tilepipe", standalone_mode=False)
    except TilepipeError as error:
        _say(f"tilepipe: {error}")
        return error.exit_code
    except click.ClickException as error:
        _say(f"tilepipe: {one_line(error.format_message())}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say("\ntilepipe: interrupted")
        return INTERRUPTED
    except OSError as error:
        if error.errno not in _REFUSALS or error.filename is None:
            raise
        _say(f"tilepipe: {error.filename}: {error.strerror}; give another path")
        return InputError.exit_code
    return result if isinstance(result, int) else 0


def _require_current_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError("the current folder has been removed; change to another one") from None


_REFUSALS = (
    errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM,
    errno.EROFS,
)  # fmt: skip
"""Errors of the system for a path that cannot be used, wherever it is first used."""


def _show_remarks() -> None:
    """Print what libraries log, except what `tilepipe.images.library_warnings` handles."""
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("tilepipe: warning: %(name)s: %(message)s"))
    # What GDAL logs as an error it also raises.
    shown.addFilter(lambda record: record.name == "tifffile" or record.levelno < logging.ERROR)
    for library in ("tifffile", "rasterio"):
        logging.getLogger(library).addHandler(shown)


def _say(line: str) -> None:
    from tilepipe.cli.lines import say
    from tilepipe.storage.address import without_secrets

    say(without_secrets(line), err=True)


def _terminated(number: int, frame: Any) -> None:
    # A scheduler that reclaims the node (SLURM, a spot instance) signals first: stop as for Ctrl-C.
    raise KeyboardInterrupt
