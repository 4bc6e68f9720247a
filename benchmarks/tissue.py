"""What `--tissue auto` saves on a slide of which 30 % is tissue: whole commands, in turns.

    python benchmarks/tissue.py [--side 16384] [--repeats 3]

The slide is synthetic: the mirrored sample of real tissue within blobs (smoothed noise, as large as
pieces on a slide are), white glass with a little noise elsewhere. Beside the ratio of the times
stands that of the pixels put through the network, which does not depend on how busy the machine is.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import numpy as np
from common import HERE, WORK, command_line, parse, record, whole_run

import tilepipe

GLASS = (244, 243, 240)
FIELD = 1024
"""Side of the picture of the blobs."""


def blobs(share: float) -> np.ndarray:
    """Where tissue is, (FIELD, FIELD): that share of all pixels, in a few pieces."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(7).normal(size=(FIELD, FIELD))
    smooth = gaussian_filter(noise, FIELD / 12) + 0.1 * gaussian_filter(noise, FIELD / 50)
    return smooth > np.quantile(smooth, 1 - share)


def slide(side: int, share: float) -> Path:
    """A JPEG-tiled slide with its pyramid, made once."""
    path = WORK / f"tissue_{side}_{share:g}.tif"
    if path.exists():
        return path
    sys.path.insert(0, str(HERE.parent / "workflows"))
    from make_sample import mirrored, write_slide
    from skimage import data

    pixels = mirrored(data.immunohistochemistry(), side)
    scale, rng = -(-side // FIELD), np.random.default_rng(0)
    inside = blobs(share)
    for row in range(0, side, 256):
        strip = pixels[row : row + 256]
        glass = rng.normal(GLASS, 2, strip.shape).clip(0, 255).astype(np.uint8)
        rows = np.arange(row, row + len(strip)) // scale
        kept = inside[rows].repeat(scale, axis=1)[:, :side]
        pixels[row : row + 256] = np.where(kept[..., None], strip, glass)
    write_slide(pixels, path)
    return path


def main() -> None:
    """Run all of it and the tissue in turns, and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="nuclei-he")
    options = parse(parser, side=512, repeats=1)
    image = slide(options.side, options.share)
    outputs = [WORK / "tissue.ome.zarr", WORK / "tissue.ome.tif"]
    seconds: dict[str, list[float]] = {"none": [], "auto": []}
    for _ in range(options.repeats):
        for tissue, found in seconds.items():
            measured, _ = whole_run(image, options.model, outputs, "--tissue", tissue)
            found.append(measured.seconds)
    plans = {
        tissue: tilepipe.plan(image, model=options.model, tissue=tissue, outputs=outputs)[0]
        for tissue in seconds
    }
    part, whole = plans["auto"].coverage, plans["none"].coverage
    ratios = [a / n for a, n in zip(seconds["auto"], seconds["none"], strict=True)]
    record(
        "tissue", f"{options.side} x {options.side}, {options.share:.0%} tissue, {options.model}",
        [
            ("--tissue auto over all of it, whole commands, median", statistics.median(ratios), "",
             "<= 0.4"),
            ("of all pixels that are within the region", part.pixels / whole.pixels, "", ""),
            ("pixels through the network, over those of all of it", part.work / whole.work, "", ""),
            ("all of it, median", statistics.median(seconds["none"]), "s", ""),
            ("--tissue auto, median", statistics.median(seconds["auto"]), "s", ""),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
