"""`tilepipe verify`."""

from __future__ import annotations

import json

import click

from tilepipe.cli.lines import say
from tilepipe.cli.options import options_of
from tilepipe.engine.options import RunOptions


@click.command("verify")
@click.argument("mask")
@click.option(
    "--windows", type=int, default=16, show_default=True, help="Number of windows to compare."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed that picks the windows.")
@click.option("--image", help="Path of the image, if it moved.")
@click.option("-m", "--model", help="Path of the model, if it moved.")
@options_of(RunOptions, ("device",))
@click.option("--scrub", is_flag=True, help="Also read every chunk and export and check hashes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    mask: str,
    windows: int,
    seed: int,
    image: str | None,
    model: str | None,
    device: str | None,
    scrub: bool,
    as_json: bool,
) -> int:
    """Prove that MASK equals the whole-image answer: other windows must give the same labels.

    Checks that plan, metadata and chunks are as the run wrote them, then runs the network on
    windows across the seams of the run's tiles and blocks and compares. Exit code 5 if a label
    differs and is not a tie, or if anything is damaged. After --scrub, repeat the command that made
    the mask to recompute what is damaged.
    """
    from tilepipe import verify

    result = verify(
        mask, windows=windows, seed=seed, image=image, model=model, device=device or "auto",
        scrub=scrub,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    else:
        say(("exact: " if result.exact else "NOT EXACT: ") + str(result), indent=2)
        for sentence in result.covered:
            say(f"  {sentence}", indent=2)
    return 0 if result.exact else 5
