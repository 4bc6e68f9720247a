"""Everything that is measured, one after the other; then the table and the plots.

    python benchmarks/suite.py [--quick] [--only NAME ...]

A part that fails is named at the end, and the others go on. ``--quick`` takes small images and few
repeats: it shows that everything works, and its figures go to ``work/quick.csv`` alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from common import HERE, WORK

PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "startup": ((), ("--repeats", "1")),
    "overhead": ((), ("--side", "1024", "--repeats", "1")),
    "allocator": ((), ("--side", "572", "--repeats", "1")),
    "memory": ((), ("--sides", "2048", "4096")),
    "limit": ((), ("--sides", "1024", "--repeats", "1", "--keeps", "512", "1024")),
    "compare": ((), ("--sides", "1024", "--repeats", "1", "--tune-side", "0")),
    "constant": ((), ("--sides", "2048", "4096", "--repeats", "1")),
    "million": ((), ("--blocks", "2000")),
}
"""Scripts, what they are given, and what when it is to be quick. Not among them: `training.py`,
which needs a data set."""


def main() -> None:
    """Run the parts, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    environment = dict(os.environ)
    if options.quick:
        environment.setdefault("TILEPIPE_FIGURES", str(WORK / "quick.csv"))
    failed = []
    if "compare" in options.only:
        install = [sys.executable, str(HERE / "peers" / "install.py")]
        subprocess.run(install, check=True)
    for name in options.only:
        begin = time.perf_counter()
        words = PARTS[name][1 if options.quick else 0]
        done = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), *words], env=environment, check=False
        )
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
    if not options.quick:
        subprocess.run([sys.executable, str(HERE / "report.py")], env=environment, check=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
