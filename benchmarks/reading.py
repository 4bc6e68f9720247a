"""Reading windows of slides against bare decoding of the same tiles.

    python benchmarks/reading.py [--side 4096] [--repeats 5]

In processor time of one thread, because that is what reading takes from a run on the CPU: a window
of 2236, as it is, and of the image resampled. Bare: each of its tiles decoded by imagecodecs, from
memory. Pixels are those of the window that is read, also where the tiles reach beyond it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from common import command_line, parse, record, sample_slide

from tilepipe.grid import Window
from tilepipe.images import Image, open_image, read_with_valid
from tilepipe.images.resampled import ResampledImage

FACTORS = {"0.5 to 0.25 um": 0.5, "0.499 to 0.25 um": 0.25 / 0.499, "0.25 to 0.5 um": 2.0}


def jpeg2000_slide(slide: Path) -> Path:
    """The same slide in tiles of JPEG 2000, at the quality that scanners write."""
    path = slide.with_name(f"{slide.stem}_jp2.tif")
    if not path.exists():
        tifffile.imwrite(
            path, tifffile.imread(slide), tile=(256, 256), photometric="rgb",
            compression="jpeg2000", compressionargs={"level": 40}, metadata=None,
        )  # fmt: skip
    return path


def bare(path: Path, window: Window) -> Callable[[], None]:
    """Decoding of the tiles that a window touches, by the codec alone."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        across = -(-page.imagewidth // page.tilewidth)
        tiles = []
        for row in range(window.y // page.tilelength, -(-window.stop_y // page.tilelength)):
            for column in range(window.x // page.tilewidth, -(-window.stop_x // page.tilewidth)):
                number = row * across + column
                file.filehandle.seek(page.dataoffsets[number])
                tiles.append(file.filehandle.read(page.databytecounts[number]))
        jpeg, tables = page.compression == tifffile.COMPRESSION.JPEG, page.jpegtables
        space = page.photometric.name

    def decode() -> None:
        for tile in tiles:
            if jpeg:
                imagecodecs.jpeg8_decode(tile, tables=tables, colorspace=space, outcolorspace="RGB")
            else:
                imagecodecs.jpeg2k_decode(tile)

    return decode


def seconds(function: Callable[[], object], repeats: int) -> float:
    """The median processor time of a call."""
    function()
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        found.append(time.process_time() - begin)
    return statistics.median(found)


def main() -> None:
    """Measure each kind of file, and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    options = parse(parser, side=512, repeats=1)
    slide = sample_slide(options.side)
    side = min(2236, options.side // 2)
    window = Window(options.side // 4 - 94, options.side // 4 - 94, side, side)
    for kind, path in (("JPEG", slide), ("JPEG 2000", jpeg2000_slide(slide))):
        with open_image(path) as image:

            def speed(image: Image = image, part: Window = window) -> float:
                took = seconds(lambda: read_with_valid(image, part), options.repeats)
                return part.area / took / 1e6

            alone = window.area / seconds(bare(path, window), options.repeats) / 1e6
            found = [("bare decoding", alone, "Mpx/s", ""), ("read", speed(), "Mpx/s", "")]
            if kind == "JPEG":
                for name, factor in FACTORS.items():
                    resampled = ResampledImage(image, 0, (factor, factor))
                    part = Window(64, 64, *(int(np.ceil(side / max(1, factor))),) * 2)
                    found.append((f"read, {name}", speed(resampled, part), "Mpx/s", ""))
        case = f"window {side} of a TIFF in tiles of {kind}, processor time of one thread"
        record("reading", case, found)


if __name__ == "__main__":
    main()
