"""`tilepipe verify`."""

from __future__ import annotations

import json

import click


@click.command("verify")
@click.argument("mask")
@click.option("--windows", type=int, default=16, show_default=True, help="How many to compare.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which ones.")
@click.option("--image", help="Where the image is now, if it moved.")
@click.option("-m", "--model", help="Where the model is now, if it moved.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--scrub", is_flag=True, help="Read every chunk and export, and compare hashes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    mask: str,
    windows: int,
    seed: int,
    image: str | None,
    model: str | None,
    device: str,
    scrub: bool,
    as_json: bool,
) -> int:
    """Prove that MASK is the whole-image answer: other windows must give the same labels.

    First checks that plan, metadata and chunks are as the run wrote them. Then picks windows across
    the seams of the run's tiles and blocks, runs the network on each, and compares. Exit code 5 if
    any label differs that is no tie, or anything is damaged; after --scrub, the command that made
    the mask computes what is damaged again.
    """
    from tilepipe.engine.run.verify import verify

    result = verify(
        mask, windows=windows, seed=seed, image=image, model=model, device=device, scrub=scrub
    )
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    else:
        click.echo(("exact: " if result.exact else "NOT EXACT: ") + str(result))
        click.echo("".join(f"  {sentence}\n" for sentence in result.covered), nl=False)
    return 0 if result.exact else 5
