"""Everything that is measured, one after the other; then the table and the plots.

    python benchmarks/suite.py [--quick] [--only NAME ...]

A part that fails is named at the end, and the others go on. ``--quick`` runs each
in its smallest form, against those peers that are installed, to see that everything works. Its
figures, tables and plots go to `benchmarks/work/` alone.
"""

from __future__ import annotations

import subprocess
import sys
import time

from common import HERE, command_line, parse

PARTS = (
    "startup", "overhead", "reading", "tail", "allocator", "memory", "limit", "compare", "constant",
    "million", "objects",
)  # fmt: skip
"""Scripts; without `training.py`, which needs a data set, and `gpu.py`, which needs a GPU."""


def main() -> None:
    """Run the parts, then report."""
    parser = command_line(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parse(parser)
    quick = ["--quick"] if options.quick else []
    failed = []
    if "compare" in options.only and not options.quick:
        install = [sys.executable, str(HERE / "peers" / "install.py")]
        subprocess.run(install, check=True)
    for name in (*options.only, "report"):
        begin = time.perf_counter()
        script = str(HERE / f"{name}.py")
        done = subprocess.run([sys.executable, script, *quick], check=False)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
