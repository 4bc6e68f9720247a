"""`tilepipe validate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from tilepipe.cli.lines import say

if TYPE_CHECKING:
    from tilepipe.validation.result import Validation

_VERDICTS = {
    "opens": "opens", "manual": "opens with a step", "cannot": "cannot", "unknown": "not known",
}  # fmt: skip


@click.command("validate")
@click.argument("result")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(result: str, as_json: bool) -> int:
    """Check that RESULT follows the specification of its format, and say who can open it.

    RESULT is a mask, a file of objects or another output: OME-Zarr, OME-TIFF, GeoTIFF, GeoJSON,
    GeoPackage, FlatGeobuf or GeoParquet. Exit code 5 if it breaks its specification.
    """
    from tilepipe import validate

    found = validate(result)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        _show(found)
    return found.exit_code


def _show(found: Validation) -> None:
    from tilepipe.validation.readers import SEEN_WITH

    verdict = "follows its specification" if found.valid else "BREAKS its specification"
    say(f"{found.path}: {found.format}, {verdict}")
    for problem in found.problems:
        say(f"  {problem}", indent=2)
    say(f"checked by {', '.join(found.checked_by)}")
    say("")
    width = max(len(one.reader) for one in found.openings)
    column = max(map(len, _VERDICTS.values()))
    for one in found.openings:
        head = f"{one.reader:{width}}  {_VERDICTS[one.verdict]:{column}}  "
        say((head + one.what).rstrip(), indent=len(head))
    say("")
    say(f"as seen with {SEEN_WITH}")
