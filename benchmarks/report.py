"""Write the table of `benchmarks/README.md` from `figures.csv`: the latest of each figure.

python benchmarks/report.py
"""

from __future__ import annotations

import csv

from common import FIGURES, HERE

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def table() -> str:
    """The latest figures, a table for each machine."""
    with FIGURES.open(newline="") as file:
        rows = list(csv.DictReader(file))
    latest = {
        (row["machine"], row["benchmark"], row["case"], row["figure"], row["unit"]): row
        for row in rows
    }
    parts = []
    for machine in dict.fromkeys(row["machine"] for row in latest.values()):
        parts += [
            f"**{machine}**",
            "",
            "| benchmark | case | figure | value | goal | date, commit |",
        ]
        parts.append("|---|---|---|---|---|---|")
        for row in latest.values():
            if row["machine"] == machine:
                value = f"{row['value']} {row['unit']}".strip()
                parts.append(
                    f"| {row['benchmark']} | {row['case']} | {row['figure']} | {value} | "
                    f"{row['goal']} | {row['date']}, {row['commit']} |"
                )
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    """Replace what stands between the marks."""
    readme = HERE / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(f"{before}{BEGIN}\n\n{table()}\n{END}{after}")


if __name__ == "__main__":
    main()
