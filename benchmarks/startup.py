"""Start-up: from the command to the first block submitted, and `tilepipe --help`.

    python benchmarks/startup.py [--repeats 5]

Whole processes, as a shell would start them; medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import WORK, command_line, fresh, parse, record, sample_slide

CHILD = """
import sys, time, tilepipe
from tilepipe.engine.events import RunCallbacks

class First(RunCallbacks):
    def submitted(self):
        print(time.time(), flush=True)

tilepipe.run(sys.argv[1], outputs=sys.argv[2], watch=First())
"""


def help_seconds() -> float:
    """One `tilepipe --help`."""
    script = Path(sys.executable).with_name("tilepipe")
    begin = time.perf_counter()
    subprocess.run([script, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def first_block_seconds(image: Path, output: Path) -> float:
    """From starting the process to the first block submitted."""
    fresh(output)
    begin = time.time()
    child = subprocess.run(
        [sys.executable, "-c", CHILD, image, output], capture_output=True, text=True, check=True
    )
    return float(child.stdout.split()[0]) - begin


def main() -> None:
    """Measure and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=1024)
    options = parse(parser, side=512, repeats=1)
    image, output = sample_slide(options.side), WORK / "startup.ome.zarr"
    help_seconds(), first_block_seconds(image, output)  # warm the disk's cache
    helps = [help_seconds() for _ in range(options.repeats)]
    firsts = [first_block_seconds(image, output) for _ in range(options.repeats)]
    record(
        "startup", "warm disk cache",
        [
            ("tilepipe --help", statistics.median(helps), "s", "< 0.4"),
            ("command to first block submitted", statistics.median(firsts), "s", ""),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
