"""`tilepipe doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from tilepipe.cli.lines import say

if TYPE_CHECKING:
    from tilepipe.diagnosis import Diagnosis, Finding


@click.command("doctor")
@click.argument("image", required=False)
@click.option(
    "-o", "--output", default=".", metavar="FOLDER", help="Folder for masks [this folder]."
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="Address of a running Dask scheduler: tcp://HOST:8786."
)
@click.option(
    "-m", "--model", default="nuclei-he", help="Model file, or name of a shipped model [nuclei-he]."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(
    image: str | None, output: str, scheduler: str | None, model: str, as_json: bool
) -> int:
    """Find what would make runs fail or slow here: versions, codecs, GPU, memory, disk.

    With IMAGE, also checks that a run on it would start and that it reads fast enough. With
    --scheduler, checks its workers. Takes a few seconds and leaves nothing behind. Exit code 5 if
    something would make runs fail.
    """
    from tilepipe import doctor

    def show(finding: Finding) -> None:
        if not as_json:
            say(_line(finding), indent=16)

    diagnosis = doctor(image, output=output, scheduler=scheduler, model=model, watch=show)
    if as_json:
        click.echo(json.dumps(diagnosis.to_dict(), indent=1))
    else:
        say(_advice(diagnosis), indent=16)
    return diagnosis.exit_code


def _line(finding: Finding) -> str:
    mark = "FAILS" if finding.level == "fails" else finding.level
    return f"{mark:5} {finding.topic:9} {finding.what}"


def _advice(diagnosis: Diagnosis) -> str:
    """What would help, the worst first."""
    fails = any(f.level == "fails" for f in diagnosis.findings)
    slow = any(f.level == "slow" for f in diagnosis.findings)
    if not fails and not slow:
        return "\nnothing would make runs fail or be slow here"
    verdict = "runs would fail here" if fails else "nothing would make runs fail here"
    lines = ["", f"{verdict}; what would help:" if diagnosis.helps else verdict]
    for finding in diagnosis.helps:
        mark = "FAILS" if finding.level == "fails" else finding.level
        lines.append(f"{mark:5} {finding.topic:9} {finding.do}")
    return "\n".join(lines)
