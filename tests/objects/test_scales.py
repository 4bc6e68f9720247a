from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from rasterio.crs import CRS

from tests.objects.making import as_bytes, table_of
from tilepipe.images import PixelSize
from tilepipe.objects.scales import scale_of
from tilepipe.products.base import MaskClass, MaskSpec


def spec(size: PixelSize | None, **place: object) -> MaskSpec:
    classes = (MaskClass("none", "#000000"), MaskClass("lake", "#0000ff"))
    return MaskSpec(400, 300, "labels", classes, size, **place)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (PixelSize(0.25, 0.5, "micrometer"), (0.25, 0.5, "um")),
        (PixelSize(250, 250, "nanometer"), (0.25, 0.25, "um")),
        (PixelSize(10, 10, "meter"), (10, 10, "m")),
        (PixelSize(2, 2, "pixel"), (1, 1, "px")),
        (PixelSize(0.0, 1, "meter"), (1, 1, "px")),
        (None, (1, 1, "px")),
    ],
)
def test_the_unit_follows_the_size_of_pixels(
    size: PixelSize | None, expected: tuple[float, float, str]
) -> None:
    scale = scale_of(spec(size))
    assert (scale.y, scale.x) == pytest.approx(expected[:2], rel=1e-12)
    assert scale.unit == expected[2]
    assert scale.ground is None


def test_areas_of_a_stretched_map_are_those_on_the_ground_in_any_blocks(tmp_path: Path) -> None:
    """Web Mercator between 60 and 66 degrees north, where it stretches by 2 to 2.5."""
    latitude = math.radians(60)
    top = 6378137 * math.log(math.tan(math.pi / 4 + latitude / 2)) + 400 * 4000
    mask = spec(
        PixelSize(2000, 2000, "meter"),
        crs=CRS.from_epsg(3857).to_wkt(),
        transform=(4000.0, 0.0, 0.0, 0.0, -4000.0, top),
    )
    scale = pickle.loads(pickle.dumps(scale_of(mask)))
    labels = np.zeros((400, 300), np.uint32)
    labels[10:60, 20:70] = 1
    labels[340:390, 20:70] = 2
    whole = table_of(labels, labels.shape, tmp_path / "whole", scale=scale)
    blocks = table_of(labels, (37, 64), tmp_path / "blocks", scale=scale)
    assert as_bytes(blocks) == as_bytes(whole)
    north, south = whole.columns["area"]
    y = top - 4000 * np.array([35, 365])
    stretch = np.cosh(y / 6378137)
    np.testing.assert_allclose([north, south], 2500 * (4000 / stretch) ** 2, rtol=0.02)
    lengths = whole.columns["major_axis"]
    np.testing.assert_allclose(lengths, 4 * 50 / math.sqrt(12) * 4000 / stretch, rtol=0.01)
