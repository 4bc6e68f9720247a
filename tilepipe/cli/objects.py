"""`tilepipe objects`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tilepipe.cli.options import collect, config_option, options_of, quiet_option
from tilepipe.objects.options import ObjectsOptions


@click.command("objects")
@click.argument("mask")
@options_of(ObjectsOptions, without=("mask",), after={"outputs": config_option})
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(mask: str, config: Path | None, quiet: bool, as_json: bool, **given: Any) -> None:
    """Find the objects of MASK (nuclei, fields, lakes): outlines, measurements, counts.

    Any mask will do; one by another program may need --classes. Nothing is cut at the borders of
    blocks, and the result does not depend on memory or workers. If stopped, the same command
    resumes.
    """
    from tilepipe import api
    from tilepipe.cli.lines import say
    from tilepipe.cli.show import near
    from tilepipe.cli.terminal import Terminal
    from tilepipe.objects.summary import show_objects

    options = collect(ObjectsOptions, config, given)
    options.pop("mask", None)
    console = Terminal(stderr=True)
    shown = not (quiet or as_json)
    with console.status("objects") as status:

        def tell(step: str) -> None:
            if console.is_terminal:
                status.update(step)
            elif shown:
                say(step, err=True)

        found = api.find_objects(mask, watch=tell, **options)
    for warning in found.warnings:
        say(f"tilepipe: warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
    elif not quiet:
        say(show_objects(found.summary))
        if found.regions is not None:
            from tilepipe.objects.regions import show_regions

            say(show_regions(found.regions))
        for path in found.outputs:
            click.echo(near(path))
