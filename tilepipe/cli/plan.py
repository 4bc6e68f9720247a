"""`tilepipe plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tilepipe.cli.options import collect, run_options


@click.command("plan")
@click.argument("image", required=False)
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(config: Path | None, as_json: bool, **given: Any) -> None:
    """Say what `run` would do with IMAGE: window, blocks, memory, time. Writes nothing."""
    options = collect(config, given)

    from tilepipe.cli.show import show_plan
    from tilepipe.engine.planning.planning import make_plan

    plan, estimate = make_plan(options)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "plan": json.loads(plan.to_json()),
                    "memory_bytes": estimate.memory,
                    "seconds": estimate.seconds,
                    "warnings": list(estimate.warnings),
                },
                indent=1,
            )
        )
    else:
        click.echo(show_plan(plan, estimate))
