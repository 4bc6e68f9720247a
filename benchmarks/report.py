"""Write the tables of `benchmarks/README.md` from `figures.csv`, and the plots.

    python benchmarks/report.py [--to benchmarks]

The latest of each figure, for each machine: one table of tilepipe and its peers, one of all else.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

from common import HERE, WORK, command_line, figures, parse

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PICTURES = {
    "speed": "Speed of the whole command by the side of the image, for each tool",
    "memory": "Peak memory by the side of the image, for each tool",
    "constant": "Cost of a pixel, peak memory, and memory of the client: none grows with the image",
}
Row = dict[str, str]


def latest() -> list[Row]:
    """The last row of each figure, in the order in which they were first measured."""
    with figures().open(newline="") as file:
        rows = list(csv.DictReader(file))
    return list(
        {
            (row["machine"], row["benchmark"], row["case"], row["figure"], row["unit"]): row
            for row in rows
        }.values()
    )


def table_of_peers(rows: list[Row]) -> list[str]:
    """One line a tool, precision and size."""
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["benchmark"] == "peers":
            cases.setdefault(row["case"], {})[row["figure"]] = row
    if not cases:
        return []
    lines = [
        "| image | precision | network | tool | speed | time | peak memory | tilepipe is faster by "
        "| goal | labels unlike tilepipe's (away from the edge) | date, commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]

    def order(case: str) -> tuple[int, bool, bool, bool]:
        side, precision, rest = case.split(", ", 2)
        network, tool = rest.split(" U-Net: ", 1)
        return (
            int(side.split(" ")[0]), precision != "fp32", network != "valid", tool != "tilepipe",
        )  # fmt: skip

    for case in sorted(cases, key=order):
        found = cases[case]
        match = re.match(r"(.+?), (\w+), (\w+) U-Net: (.+)$", case)
        assert match, case

        def value(name: str, found: dict[str, Row] = found) -> str:
            row = found.get(name)
            return f"{row['value']} {row['unit']}".strip() if row else ""

        ratio = found.get("tilepipe's speed over it, median")
        faster = goal = ""
        if ratio:
            least, most = (value(f"tilepipe's speed over it, {word}") for word in ("least", "most"))
            faster, goal = f"**{ratio['value']}** ({least} to {most})", ratio["goal"]
        unlike = value("labels unlike tilepipe's")
        within = value("labels unlike tilepipe's, away from the edge")
        any_row = next(iter(found.values()))
        lines.append(
            f"| {match[1]} | {match[2]} | {match[3]} | {match[4]} "
            f"| {value('speed of the whole command')} | {value('time of the whole command')} "
            f"| {value('peak of all processes')} | {faster} | {goal} "
            f"| {f'{unlike} ({within})' if unlike else ''} "
            f"| {any_row['date']}, {any_row['commit']} |"
        )
    return [*lines, ""]


BY_CASE = {
    "objects": (
        "objects", "whole command", "processor time", "peak of all processes", "size of the file",
        "load of the machine",
    ),
    "likeness": (
        "distance, median", "distance, most", "warned", "Dice", "object F1",
        "CPU time of the longest look",
    ),
    "objects_quality": (
        "object F1", "AJI", "object F1, mean over images", "AJI, mean over images",
    ),
}  # fmt: skip
"""Benchmarks that have one line a case, and their figures."""


def table_by_case(rows: list[Row], benchmark: str) -> list[str]:
    """One line a case, such as a model and a group of images."""
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["benchmark"] == benchmark:
            cases.setdefault(row["case"], {})[row["figure"]] = row
    if not cases:
        return []
    columns = BY_CASE[benchmark]
    lines = [
        f"| {benchmark} | {' | '.join(columns)} | date, commit |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for case, found in cases.items():
        values = [_with_unit(found[name]) if name in found else "" for name in columns]
        any_row = next(iter(found.values()))
        lines.append(f"| {case} | {' | '.join(values)} | {any_row['date']}, {any_row['commit']} |")
    return [*lines, ""]


def _with_unit(row: Row) -> str:
    return f"{row['value']} {row['unit']}".strip()


def table_of_others(rows: list[Row]) -> list[str]:
    """One line a figure."""
    lines = [
        "| benchmark | case | figure | value | goal | date, commit |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['benchmark']} | {row['case']} | {row['figure']} | {_with_unit(row)} | "
        f"{row['goal']} | {row['date']}, {row['commit']} |"
        for row in rows
        if row["benchmark"] not in ("peers", *BY_CASE)
    ]
    return [*lines, ""]


def tables() -> str:
    """All of them, machine by machine."""
    rows = latest()
    parts: list[str] = []
    for machine in dict.fromkeys(row["machine"] for row in rows):
        here = [row for row in rows if row["machine"] == machine]
        by_case = (table_by_case(here, benchmark) for benchmark in BY_CASE)
        tables = (table_of_peers(here), *by_case, table_of_others(here))
        parts += [f"**{machine}**", "", *(line for table in tables for line in table)]
    return "\n".join(parts)


def pictures(folder: Path) -> str:
    """Those that `plots.py` could draw."""
    return "".join(
        f"![{what}](plots/{name}.png)\n\n"
        for name, what in PICTURES.items()
        if (folder / "plots" / f"{name}.png").exists()
    )


def main() -> None:
    """Draw, and replace what stands between the marks."""
    parser = command_line(__doc__)
    parser.add_argument("--to", type=Path, default=HERE, help="folder of README.md and plots")
    options = parse(parser, to=WORK)
    script = str(HERE / "plots.py")
    subprocess.run([sys.executable, script, "--to", str(options.to / "plots")], check=True)
    before, rest = (HERE / "README.md").read_text().split(BEGIN)
    _, after = rest.split(END)
    text = f"{before}{BEGIN}\n\n{pictures(options.to)}{tables()}\n{END}{after}"
    (options.to / "README.md").write_text(text)


if __name__ == "__main__":
    main()
