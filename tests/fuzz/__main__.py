"""Fuzz tilepipe: ``python -m tests.fuzz --count 3000``, or one mutant again: ``--only NUMBER``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import click

from tests.fuzz.campaign import FAMILIES, Mutant, Tally, prepare, run
from tests.fuzz.harness import Outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "families", nargs="*", metavar="FAMILY", help=f"or FAMILY=COUNT: {', '.join(FAMILIES)}"
    )
    parser.add_argument("--count", type=int, default=3000, help="mutants of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--only", type=int, help="the number of one mutant to try again")
    parser.add_argument("--keep", type=Path, help="folder for the mutants that fail")
    parser.add_argument("--verbose", action="store_true", help="a line for each mutant")
    given = parser.parse_args()
    counts = {}
    for word in given.families or FAMILIES:
        family, _, count = word.partition("=")
        if family not in FAMILIES:
            parser.error(f"no such family: {family}; there are {', '.join(FAMILIES)}")
        counts[family] = int(count or given.count)

    def tell(mutant: Mutant, outcome: Outcome) -> None:
        if given.verbose or given.only is not None or outcome.verdict == "failed":
            click.echo(f"  {mutant.number} {mutant.target}: {outcome.verdict} {outcome.reason} "
                  f"({outcome.seconds:.2f} s, {outcome.growth / 2**20:.0f} MiB)")  # fmt: skip

    prepare()
    tallies = []
    for family, count in counts.items():
        numbers = range(given.start, given.start + count)
        if given.only is not None:
            numbers = range(given.only, given.only + 1)
        begin = time.monotonic()
        click.echo(f"{family} ...")
        tallies.append(run(family, given.seed, numbers, given.keep, tell))
        click.echo(f"{family}: {time.monotonic() - begin:.0f} s")
    click.echo(table(tallies))
    for tally in tallies:
        for reason, failed in tally.failures.items():
            click.echo(f"\n{tally.family}: {len(failed)} x {reason}\n  again: python -m tests.fuzz "
                  f"{tally.family} --seed {given.seed} --only {failed[0]} --keep failed")  # fmt: skip
    return 1 if any(tally.failures for tally in tallies) else 0


def table(tallies: list[Tally]) -> str:
    """What came of all families, as a table in Markdown."""
    lines = [
        "| family | mutants | refused | read | failed | slowest, CPU s | most memory, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {t.family} | {t.mutants} | {t.verdicts['refused']} | {t.verdicts['read']} "
        f"| {t.verdicts['failed']} | {t.slowest:.1f} | {t.growth / 2**20:.0f} |"
        for t in tallies
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
