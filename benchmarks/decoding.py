"""How fast JPEG tiles are decoded: by this machine's cores, and by its GPU.

    python benchmarks/decoding.py [--side 4096] [--threads 1 4 16] [--seconds 1]

The tiles of the sample slide, 512 x 512 with 4:2:0 chroma, again and again: by imagecodecs, as
tilepipe reads them, in so many threads; and by nvImageCodec where it is installed, in batches of
64, left on the GPU or copied to the host. Whether the GPU's pixels are the CPU's is a figure too.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from common import command_line, parse, record, sample_slide

BATCH = 64


def tiles_of(side: int) -> tuple[list[bytes], float]:
    """The encoded tiles of a slide, and the megapixels of one."""
    with tifffile.TiffFile(sample_slide(side)) as file:
        page = file.pages.first
        segments = file.filehandle.read_segments(page.dataoffsets, page.databytecounts)
        return [bytes(tile) for tile, _ in segments], page.tilelength * page.tilewidth / 1e6


def batches(tiles: list[bytes]) -> Iterator[list[bytes]]:
    """Tiles without end, `BATCH` at a time."""
    endless = itertools.cycle(tiles)
    while True:
        yield list(itertools.islice(endless, BATCH))


def rate(decode: Callable[[list[bytes]], Any], tiles: list[bytes], seconds: float) -> float:
    """Tiles a second."""
    source, count = batches(tiles), 0
    decode(next(source))
    begin = time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        decode(next(source))
        count += BATCH
    return count / (now - begin)


def on_gpu() -> Callable[[list[bytes]], list[Any]] | None:
    """Decoding by nvImageCodec; None where it is not installed."""
    try:
        from nvidia import nvimgcodec
    except ImportError:
        return None
    decoder = nvimgcodec.Decoder()
    params = nvimgcodec.DecodeParams(apply_exif_orientation=False)

    def decode(tiles: list[bytes]) -> list[Any]:
        found: list[Any] = decoder.decode(tiles, params=params)
        return found

    return decode


def main() -> None:
    """Measure each, and write the figures."""
    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parse(parser, side=512, threads=[1], seconds=0.05)
    tiles, megapixels = tiles_of(options.side)
    figures = []
    for threads in options.threads:
        with ThreadPoolExecutor(threads) as pool:

            def by_cores(some: list[bytes], pool: ThreadPoolExecutor = pool) -> Any:
                return list(pool.map(imagecodecs.jpeg8_decode, some))

            found = megapixels * rate(by_cores, tiles, options.seconds)
        figures.append((f"imagecodecs, {threads} threads", found, "Mpx/s", ""))
    decode = on_gpu()
    if decode is not None:
        found = megapixels * rate(decode, tiles, options.seconds)
        figures.append(("nvImageCodec, left on the GPU", found, "Mpx/s", ""))
        found = megapixels * rate(
            lambda some: [image.cpu() for image in decode(some)], tiles, options.seconds
        )
        figures.append(("nvImageCodec, copied to the host", found, "Mpx/s", ""))
        same = [
            np.mean(np.asarray(image.cpu()) == imagecodecs.jpeg8_decode(tile))
            for image, tile in zip(decode(tiles[:BATCH]), tiles, strict=False)
        ]
        figures.append(("nvImageCodec, bytes as imagecodecs decodes them", np.mean(same), "", ""))
    record("decoding", f"JPEG tiles of {options.side} x {options.side}", figures)


if __name__ == "__main__":
    main()
