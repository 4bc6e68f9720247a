"""Make a sample slide from the tissue image that scikit-image carries.

    python workflows/make_sample.py out/sample.tif

`ihc.png` (512 x 512, from scikit-image's wheel) is mirrored into a slide of 4096 x 4096: a tiled
JPEG TIFF with a pyramid, as scanners write it. The tissue is colon with immunohistochemistry
(DAB and haematoxylin), not H&E, and its true pixel size is not stated: 0.25 um is written so that
the shipped model takes it. It shows that everything works, not how good a model is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile
from skimage import data

TILE = 512
PIXEL_SIZE_UM = 0.25


def mirrored(image: np.ndarray, side: int) -> np.ndarray:
    """The image continued by reflection to ``side`` x ``side``."""
    height, width = image.shape[:2]
    pad = ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0))
    return np.pad(image, pad, mode="symmetric")[:side, :side]


def write_slide(pixels: np.ndarray, path: Path) -> None:
    """A tiled JPEG TIFF with levels of 1/4 each, and its pixel size in centimetres."""
    levels = [pixels]
    while max(levels[-1].shape[:2]) > 1024:
        h, w = (n // 4 * 4 for n in levels[-1].shape[:2])
        quarter = levels[-1][:h, :w].reshape(h // 4, 4, w // 4, 4, 3).mean((1, 3))
        levels.append(quarter.round().astype(np.uint8))
    with tifffile.TiffWriter(path) as tiff:
        for i, level in enumerate(levels):
            per_cm = 1e4 / (PIXEL_SIZE_UM * 4**i)
            tiff.write(
                level,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 90},
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subifds=len(levels) - 1 if i == 0 else None,
                subfiletype=0 if i == 0 else 1,
                metadata=None,
                software="tilepipe sample",
            )


def main() -> None:
    """Write the sample and say what it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--side", type=int, default=4096)
    options = parser.parse_args()
    options.path.parent.mkdir(parents=True, exist_ok=True)
    write_slide(mirrored(data.immunohistochemistry(), options.side), options.path)
    print(
        f"{options.path}: a sample slide of {options.side} x {options.side}. It is IHC (DAB and\n"
        "haematoxylin), mirrored from a small image, and not the H&E the shipped model was made\n"
        "for: look at how it works, not at how good the nuclei are."
    )


if __name__ == "__main__":
    main()
