"""What follows the last block of a run: the rest of the pyramid, and exports.

    python benchmarks/tail.py [--side 16384] [--model nuclei-he] [--repeats 1]

Within one process, which has read the image and loaded the model before. The run is the whole call
of `tilepipe.run`, so that the share of the tail includes nothing of starting Python.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from common import WORK, command_line, fresh, parse, record, sample_slide

import tilepipe
from tilepipe.engine.events import RunCallbacks

OUTPUTS = {
    "OME-Zarr": (".ome.zarr",),
    "OME-Zarr, OME-TIFF and COG": (".ome.zarr", ".ome.tif", ".tif"),
}


class Last(RunCallbacks):
    """Wall and processor time when the last block was written."""

    wall = processor = 0.0

    def block(self, report: object) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()


def tail(image: Path, model: str, outputs: list[Path]) -> tuple[float, float, float]:
    """One run: wall and processor time after its last block, and wall time of all."""
    fresh(*outputs, WORK / "tail.run.json")
    last, begin = Last(), time.perf_counter()
    tilepipe.run(image, model=model, outputs=outputs, objects="none", watch=last)
    end, processor = time.perf_counter(), time.process_time()
    return end - last.wall, processor - last.processor, end - begin


def main() -> None:
    """Measure and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--model", default="nuclei-he")
    parser.add_argument("--repeats", type=int, default=1)
    options = parse(parser, side=512)
    image = sample_slide(options.side)
    for name, suffixes in OUTPUTS.items():
        outputs = [WORK / f"tail{suffix}" for suffix in suffixes]
        runs = [tail(image, options.model, outputs) for _ in range(options.repeats)]
        share = statistics.median(after / total for after, _, total in runs)
        record(
            "tail", f"{options.side} x {options.side} JPEG tiles, {options.model}, {name}",
            [
                ("after the last block", statistics.median(run[0] for run in runs), "s", ""),
                ("processor time after the last block",
                 statistics.median(run[1] for run in runs), "s", ""),
                ("whole run", statistics.median(run[2] for run in runs), "s", ""),
                ("share of the run after the last block", 100 * share, "%", "< 3"),
            ],
        )  # fmt: skip


if __name__ == "__main__":
    main()
