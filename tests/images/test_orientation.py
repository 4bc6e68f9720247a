"""Orientation tags are named, and pixels read as they are stored: so GDAL reads them, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image as Picture
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from tests.making import make_image
from tilepipe.grid import Window
from tilepipe.images import open_image

PIXELS = make_image(90, 120)
WHOLE = Window(0, 0, 90, 120)


def write(path: Path, orientation: int) -> Path:
    if path.suffix == ".tif":
        tifffile.imwrite(
            path, PIXELS, tile=(64, 64), photometric="rgb", metadata=None,
            extratags=[(274, 3, 1, orientation, True)],
        )  # fmt: skip
        return path
    tags = Picture.Exif()
    tags[274] = orientation
    Picture.fromarray(PIXELS).save(path, exif=tags, quality=100, subsampling=0)
    return path


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_named_and_not_applied(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = write(tmp_path / f"a.{suffix}", orientation)
    image = open_image(path)
    named = [note for note in image.notes if f"orientation tag ({orientation})" in note]
    assert len(named) == (orientation != 1)
    assert image.shape == PIXELS.shape
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as dataset:
        gdal = np.moveaxis(dataset.read(), 0, -1)
    # Two decoders of JPEG round differently in places.
    assert np.abs(image.read(WHOLE).astype(int) - gdal).max() <= (suffix == "jpg")


def test_the_orientation_of_a_georeferenced_image_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=90, width=120, count=3, dtype="uint8",
        crs="EPSG:32631", transform=from_origin(5e5, 5e6, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(PIXELS.transpose(2, 0, 1))
    assert open_image(path).notes == ()
    # Of the tags that it has, one that GDAL does not need becomes it.
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags["PlanarConfiguration"]
        data[tag.offset : tag.offset + 2] = (274).to_bytes(2, "little")
        data[tag.valueoffset : tag.valueoffset + 2] = (3).to_bytes(2, "little")
    path.write_bytes(data)
    assert any("orientation tag (3)" in note for note in open_image(path).notes)
