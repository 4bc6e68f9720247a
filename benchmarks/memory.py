"""Peak memory of all processes of a run, at 4096 and at 32768 pixels a side.

    python benchmarks/memory.py [--memory 2GB] [--sides 4096 32768]

Measured from outside: the sum over the process tree of each process's proportional set size,
sampled every 50 ms (`common.measure`). The larger slide is synthetic: the tiles of the smaller one,
its offsets repeated, so that a file of a few megabytes decodes to 3.2 GB. The model has width 2, so
that it ends.
"""

from __future__ import annotations

from pathlib import Path

import tifffile
from common import (
    WORK,
    command_line,
    parse,
    random_model,
    record,
    sample_slide,
    whole_run,
)


def repeated_slide(side: int) -> Path:
    """A slide of ``side`` pixels: the tiles of a sample of at most 4096, over and over."""
    path = WORK / f"repeated_{side}.tif"
    if path.exists():
        return path
    with tifffile.TiffFile(sample_slide(min(side, 4096))) as small:
        page = small.pages[0]
        tile = page.tilewidth
        columns = page.imagewidth // tile
        parts = [
            small.filehandle.seek(offset) and small.filehandle.read(count)
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
        tables = page.jpegtables
        assert tables is None, "the tiles stand alone"
        tifffile.imwrite(
            path,
            iter([b"\0"] * (side // tile) ** 2),
            shape=(side, side, 3),
            dtype="uint8",
            tile=(tile, tile),
            photometric=page.photometric,
            subsampling=page.subsampling,
            compression="jpeg",
            resolution=(1e4 / 0.25, 1e4 / 0.25),
            resolutionunit="CENTIMETER",
            bigtiff=True,
            metadata=None,
        )
    offsets = []
    with path.open("ab") as file:
        for part in parts:
            offsets.append((file.tell(), len(part)))
            file.write(part)
    count = side // tile
    order = [(r % columns) * columns + c % columns for r in range(count) for c in range(count)]
    with tifffile.TiffFile(path, mode="r+") as large:
        tags = large.pages[0].tags
        tags["TileOffsets"].overwrite([offsets[i][0] for i in order])
        tags["TileByteCounts"].overwrite([offsets[i][1] for i in order])
    return path


def main() -> None:
    """Measure each side, and how far they are apart."""
    parser = command_line(__doc__)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 32768])
    parser.add_argument("--workers", type=int)
    options = parse(parser, sides=[512, 1024])
    more = [] if options.workers is None else ["--workers", str(options.workers)]
    peaks = []
    for side in options.sides:
        outputs = [WORK / f"memory_{side}.ome.{suffix}" for suffix in ("zarr", "tif")]
        model = random_model("width2", width=2)
        measured, _ = whole_run(
            repeated_slide(side), model, outputs, "--memory", options.memory, *more
        )
        peaks.append(measured.peak)
        workers = f", {options.workers} worker processes" if options.workers else ""
        record(
            "memory", f"{side} x {side}, width 2, --memory {options.memory}{workers}",
            [
                ("peak of all processes", measured.peak / 1e9, "GB", f"<= {options.memory}"),
                ("time of the whole command", measured.seconds, "s", ""),
            ],
        )  # fmt: skip
    record(
        "memory", f"--memory {options.memory}",
        [("largest peak over smallest", max(peaks) / min(peaks), "", "<= 1.10")],
    )  # fmt: skip


if __name__ == "__main__":
    main()
