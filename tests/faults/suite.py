"""The fault suite in its long form: `python -m tests.faults.suite`, or `make faults`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tests.faults.scene import Scene
from tests.faults.trials import KINDS, Outcome, attempt, needs
from tests.zygote import Zygote

CASES = {
    "kill -9 the client": {"one process": 30, "COG only": 28, "two workers": 6},
    "kill -9 in the middle of writing a chunk": {
        "one process": 14,
        "COG only": 8,
        "two workers": 2,
    },
    "kill -9 a worker process": {"two workers": 12},
    "a read hangs": {"one process": 5, "COG only": 3, "two workers": 2},
}
"""Kind and case; 100 kills. Of the others, `--each` of one process and of the COG in turn."""


def main() -> int:
    """Try all faults, print the table, and return 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=10, help="of each kind that is no kill [10]")
    parser.add_argument("--share", type=float, default=1.0, help="of the 100 kills [1]")
    parser.add_argument("--jobs", type=int, default=2, help="trials at once [2]")
    parser.add_argument("--only", help="kinds with this in their name")
    parser.add_argument("--json", type=Path, help="write the table and all outcomes here")
    parser.add_argument("--minutes", type=float, help="begin no trial after so long")
    parser.add_argument("--keep", action="store_true", help="keep the folders of failed trials")
    options = parser.parse_args()

    trials = [t for t in _trials(options.each, options.share) if (options.only or "") in t[0]]
    left_out = {kind: why for kind in {t[0] for t in trials} if (why := needs(kind))}
    trials = [t for t in trials if t[0] not in left_out]
    folder = Path(tempfile.mkdtemp(prefix="tilepipe-faults-"))
    begin = time.monotonic()
    scene = Scene.make(folder, small=False)
    zygotes: SimpleQueue[Zygote] = SimpleQueue()
    crew = [Zygote() for _ in range(options.jobs)]
    for case in {case for _, case, _ in trials}:
        scene.reference(crew[0], scene.cases[case])
    for zygote in crew:
        zygotes.put(zygote)

    def one(trial: tuple[str, str, int]) -> Outcome | None:
        kind, case, number = trial
        if options.minutes and time.monotonic() - begin > 60 * options.minutes:
            return None
        zygote = zygotes.get()
        try:
            outcome = attempt(
                scene, zygote, scene.cases[case], kind, number, folder if options.keep else None
            )
        finally:
            zygotes.put(zygote)
        found = [f"{n} pixels {how}" for how in ("wrong", "lost") if (n := getattr(outcome, how))]
        state = "; ".join([*found, *outcome.faults]) or "ok"
        print(
            f"{time.monotonic() - begin:6.0f} s  {kind} / {case} {number}: {outcome.codes} {state}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return outcome

    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = [outcome for outcome in pool.map(one, trials) if outcome is not None]
    for zygote in crew:
        zygote.close()
    rows = table(outcomes)
    seconds = time.monotonic() - begin
    print(show(rows, left_out))
    print(f"\n{len(outcomes)} trials, {sum(o.kills for o in outcomes)} kills, {seconds:.0f} s")
    if options.json:
        document = {
            "rows": rows, "left_out": left_out, "kills": sum(o.kills for o in outcomes),
            "seconds": round(seconds), "trials": [asdict(o) for o in outcomes],
        }  # fmt: skip
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    failed = any(o.faults or o.wrong or o.lost for o in outcomes)
    if options.keep and failed:
        print(f"kept: {folder}")
    else:
        import shutil

        shutil.rmtree(folder)
    return int(failed)


def _trials(each: int, share: float) -> Iterable[tuple[str, str, int]]:
    """Kind, case and number, the kinds in turn, so that a suite that is stopped has tried all."""
    lists = []
    for kind in KINDS:
        if kind in CASES:
            counts = {case: max(1, round(n * share)) for case, n in CASES[kind].items()}
        else:
            counts = {"one process": each - each // 2, "COG only": each // 2}
        of_kind = [(kind, case, n) for case, count in counts.items() for n in range(count)]
        lists += [(index / len(of_kind), trial) for index, trial in enumerate(of_kind)]
    return [trial for _, trial in sorted(lists, key=lambda pair: pair[0])]


def table(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """A row for each kind of fault."""
    rows: dict[str, dict[str, Any]] = {}
    for o in outcomes:
        row = rows.setdefault(
            o.kind,
            {
                "fault": o.kind, "tried": 0, "kills": 0, "same bytes": 0, "exit 3, blocks named": 0,
                "exit 4": 0, "wrong pixels": 0, "lost pixels": 0, "findings": 0,
            },
        )  # fmt: skip
        row["tried"] += 1
        row["kills"] += o.kills
        row["same bytes"] += o.same
        row["exit 3, blocks named"] += o.named
        row["exit 4"] += 4 in o.codes
        row["wrong pixels"] += o.wrong
        row["lost pixels"] += o.lost
        row["findings"] += bool(o.faults)
    order = list(KINDS)
    return sorted(rows.values(), key=lambda row: order.index(row["fault"]))


def show(rows: list[dict[str, Any]], left_out: dict[str, str]) -> str:
    """The table as Markdown."""
    if not rows:
        return "nothing was tried"
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    total = {name: sum(row[name] for row in rows) for name in names[1:]}
    lines.append("| all | " + " | ".join(str(value) for value in total.values()) + " |")
    lines += [f"not tried: {kind}: {why}" for kind, why in left_out.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
