"""Start-up: from the command to the first block submitted, `tilepipe --help`, images of a batch.

    python benchmarks/startup.py [--repeats 5] [--images 200] [--runtimes torch openvino]

Whole processes, as a shell would start them; medians. Beside the time stands that of the processor,
which other programs of the machine disturb less. The batch is of small images with a tiny network:
what an image takes longer than the seconds that its record tells for its passes, on the average of
all but the first.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import (
    WORK,
    command,
    command_line,
    fresh,
    measure,
    parse,
    random_model,
    record,
    sample_slide,
)

CHILD = """
import os, sys, time, tilepipe
from tilepipe.engine.events import RunCallbacks

class First(RunCallbacks):
    def submitted(self):
        spent = os.times()
        print(time.time(), spent.user + spent.system, flush=True)

tilepipe.run(sys.argv[1], outputs=sys.argv[2], runtime=sys.argv[3], watch=First())
"""
IMAGE_SIDE = 512


def help_seconds() -> float:
    """One `tilepipe --help`."""
    script = Path(sys.executable).with_name("tilepipe")
    begin = time.perf_counter()
    subprocess.run([script, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def first_block_seconds(image: Path, output: Path, runtime: str) -> tuple[float, float]:
    """From starting the process to the first block submitted: wall time, and the processor's."""
    fresh(output)
    begin = time.time()
    child = subprocess.run(
        [sys.executable, "-c", CHILD, image, output, runtime],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    now, spent = map(float, child.stdout.split())
    return now - begin, spent


def batch_seconds(images: int) -> tuple[float, float]:
    """A batch of small images: the time of the whole command, and that of its passes."""
    folder, output = WORK / f"batch_{images}", WORK / "batch_masks"
    fresh(folder, output)
    folder.mkdir()
    for number in range(images):
        shutil.copy(sample_slide(IMAGE_SIDE), folder / f"{number:04d}.tif")
    model = random_model("width1_depth2", width=1, depth=2)
    measured = measure(
        command("run", *sorted(folder.iterdir()), "-m", model, "-o", f"{output}/", "--quiet")
    )
    told = [json.loads(path.read_text())["seconds"] for path in output.glob("*.run.json")]
    fresh(folder, output)
    return measured.seconds, sum(seconds["compute"] for seconds in told)


def main() -> None:
    """Measure and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--images", type=int, default=200, help="of the batch; 0 leaves it out")
    parser.add_argument("--runtimes", nargs="+", default=["torch", "openvino"])
    options = parse(parser, side=512, repeats=1, images=3, runtimes=["torch"])
    image, output = sample_slide(options.side), WORK / "startup.ome.zarr"
    help_seconds()  # warms the disk's cache
    helps = [help_seconds() for _ in range(options.repeats)]
    found = [("tilepipe --help", statistics.median(helps), "s", "< 0.4")]
    goals = {"torch": "<= 2", "openvino": "<= 1.2"}
    for runtime in options.runtimes:
        first_block_seconds(image, output, runtime)
        firsts = [first_block_seconds(image, output, runtime) for _ in range(options.repeats)]
        wall, spent = (statistics.median(times) for times in zip(*firsts, strict=True))
        what = f"command to first block submitted, {runtime}"
        found.append((what, wall, "s", goals.get(runtime, "")))
        found.append((f"{what}: of the processor", spent, "s", ""))
    record("startup", "warm disk cache", found)
    if options.images > 1:
        (one, pass_), (all_, passes) = batch_seconds(1), batch_seconds(options.images)
        beyond = (all_ - passes - one + pass_) / (options.images - 1)
        record(
            "startup", f"{options.images} images of {IMAGE_SIDE} x {IMAGE_SIDE} in one command",
            [("an image after the first, beyond its passes", beyond, "s", "<= 0.1")],
        )  # fmt: skip


if __name__ == "__main__":
    main()
