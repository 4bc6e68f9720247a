"""`tilepipe plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tilepipe.cli.lines import say
from tilepipe.cli.options import config_option, options_of
from tilepipe.cli.run import collect_run
from tilepipe.engine.options import RunOptions

ONLY_RUN = ("image", "overwrite", "verify", "profile")
"""Options of a run that do not change its plan, and the image, which is an argument."""


@click.command("plan")
@click.argument("image", required=False)
@options_of(RunOptions, without=ONLY_RUN, after={"outputs": config_option})
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(config: Path | None, image: str | None, as_json: bool, **given: Any) -> None:
    """Show what `run` would do with IMAGE: window, blocks, memory, time. Writes nothing."""
    options, images = collect_run(config, (image,) if image else (), given)

    from tilepipe import api
    from tilepipe.cli.show import show_plan

    plan, estimate = api.plan(images[0], **options)
    if as_json:
        document = {
            "plan": json.loads(plan.to_json()),
            "memory_bytes": estimate.memory,
            "seconds": estimate.seconds,
            "warnings": list(estimate.warnings),
        }
        click.echo(json.dumps(document, indent=1))
    else:
        say(show_plan(plan, estimate))
