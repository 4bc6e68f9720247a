"""`tilepipe quantise`."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli.lines import say
from tilepipe.cli.options import READING, collect, options_of, quiet_option
from tilepipe.engine.options import RunOptions


@click.command("quantise")
@click.argument("model")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o", "--output", required=True, metavar="PATH", help="Model file to write: NAME.safetensors."
)
@options_of(RunOptions, ("level", "pixel_size", *READING))
@click.option("--overwrite", is_flag=True, help="Replace PATH if it exists; it may be MODEL.")
@quiet_option
def command(
    model: str, images: tuple[str, ...], output: str, overwrite: bool, quiet: bool, **given: Any
) -> None:
    """Write MODEL with an int8 network in it, calibrated on tiles of the IMAGEs.

    `tilepipe run --precision int8` with this file quantises nothing, so it starts faster, and
    computes every image with the same network. Labels are compared with those of fp32 on other
    tiles of the IMAGEs. Give images of every kind that the model is for.
    """
    from tilepipe import api
    from tilepipe.cli.show import near
    from tilepipe.text import count

    options = collect(RunOptions, None, given)

    def tell(step: str) -> None:
        if not quiet:
            say(f"tilepipe: {step}", err=True)

    made = api.quantise(model, images, output, overwrite=overwrite, progress=tell, **options)
    for warning in made.warnings:
        say(f"tilepipe: warning: {warning}", err=True)
    if not quiet:
        say(f"{made.change.figures}, on {count(made.change.tiles, 'tile')}")
        click.echo(near(str(made.path)))
