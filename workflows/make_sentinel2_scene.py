"""Make a Sentinel-2 scene and its labels, as GeoTIFFs, from a test file of ukis-csmask.

    python workflows/make_sentinel2_scene.py sentinel2.npz out/sentinel2.tif out/sentinel2_truth.tif

The file is tests/testfiles/sentinel2.npz of https://github.com/dlr-eoc/ukis-csmask (Apache-2.0):
512 x 512 pixels of top-of-atmosphere reflectance in six bands, and labels drawn by hand. It does
not say where on Earth it lies, nor how large its pixels are. Here it is put at an arbitrary place
(UTM zone 32 north, easting 500000, northing 5400000) with pixels of 30 m, the size that the
networks of ukis-csmask are made for. Do not take the coordinates for real.

Reflectances are written as Sentinel-2 products hold them, times 10000 as uint16. They have four
decimals, so nothing is lost. Labels become 0 clear, 1 cloud and 2 cloud shadow, as the tests of
ukis-csmask read them (0 is shadow, 4 is cloud, 1 to 3 are clear), and 255 where there is none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
LABELS = {0: 2, 1: 0, 2: 0, 3: 0, 4: 1}
PLACE = from_origin(500000, 5400000, 30, 30)
NOTE = "placed arbitrarily: true position and pixel size are not known"


def main() -> None:
    """Write the scene and the labels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("npz", type=Path)
    parser.add_argument("scene", type=Path)
    parser.add_argument("truth", type=Path)
    given = parser.parse_args()

    with np.load(given.npz, allow_pickle=False) as content:
        reflectance, labels = content["img"], content["msk"][..., 0]
    pixels = np.round(reflectance.astype(np.float64) * 10000).astype(np.uint16)
    lookup = np.full(256, 255, np.uint8)
    for label, ours in LABELS.items():
        lookup[label] = ours

    for path in (given.scene, given.truth):
        path.parent.mkdir(parents=True, exist_ok=True)
    common = {
        "driver": "GTiff",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "crs": "EPSG:32632",
        "transform": PLACE,
        "tiled": True,
        "compress": "deflate",
    }
    with rasterio.open(given.scene, "w", count=len(BANDS), dtype="uint16", **common) as scene:
        scene.write(np.moveaxis(pixels, -1, 0))
        scene.descriptions = BANDS
        scene.update_tags(NOTE=NOTE)
    with rasterio.open(given.truth, "w", count=1, dtype="uint8", nodata=255, **common) as truth:
        truth.write(lookup[labels], 1)
        truth.update_tags(NOTE=NOTE)
    print(f"{given.scene}: {', '.join(BANDS)}, reflectance times 10000; {NOTE}")
    print(f"{given.truth}: 0 clear, 1 cloud, 2 cloud shadow")


if __name__ == "__main__":
    main()
