"""Pixel sizes, from wherever files keep them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tilepipe.images import PixelSize, open_image

PLANE = np.zeros((20, 20), np.uint8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wsi/CMU-1-Small-Region.svs", PixelSize(0.499, 0.499, "micrometer")),
        ("wsi/HE_example.ome.tif", PixelSize(0.5000799214486333, 0.5000799214486333, "micrometer")),
        ("wsi/test3-DAPI-2-387.ndpi", PixelSize(10000 / 43826, 10000 / 43826, "micrometer")),
        ("geo/s2_band.tif", PixelSize(10.0, 10.0, "meter")),
        (
            "geo/edge/image_nan.tif",
            PixelSize(0.0014120542195153254, 0.0014129479247175503, "degree"),
        ),
        ("wsi/XYC.png", None),
    ],
)
def test_real_files(data: Path, name: str, expected: PixelSize | None) -> None:
    assert open_image(data / name).pixel_size == expected


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((20000, 40000), "CENTIMETER", (0.25, 0.5)),
        ((50800, 50800), "INCH", (0.5, 0.5)),
        ((300, 300), "INCH", None),  # a printer's
        ((72, 72), "INCH", None),
        ((0, 0), "CENTIMETER", None),
        ((20000, 20000), "NONE", None),
    ],
)
def test_resolution_tags_of_a_plain_tiff(
    tmp_path: Path, resolution: tuple[int, int], unit: str, expected: tuple[float, float] | None
) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, PLANE, resolution=resolution, resolutionunit=unit)
    size = open_image(path).pixel_size
    assert (size and (size.y, size.x, size.unit)) == (expected and (*expected, "micrometer"))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}, (0.5, 0.25)),
        ({"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}, (0.5, 0.25)),
        ({"PhysicalSizeX": 0.25}, None),
        ({"PhysicalSizeX": 0, "PhysicalSizeY": 0}, None),
        (
            {
                "PhysicalSizeX": 1,
                "PhysicalSizeY": 1,
                "PhysicalSizeXUnit": "pixel",
                "PhysicalSizeYUnit": "pixel",
            },
            None,
        ),
    ],
)
def test_physical_size_of_an_ome_tiff(
    tmp_path: Path, metadata: dict[str, object], expected: tuple[float, float] | None
) -> None:
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, PLANE, metadata={"axes": "YX", **metadata})
    size = open_image(path).pixel_size
    assert (size and (size.y, size.x, size.unit)) == (expected and (*expected, "micrometer"))


def test_imagej_microns(tmp_path: Path) -> None:
    path = tmp_path / "imagej.tif"
    tifffile.imwrite(path, PLANE, imagej=True, resolution=(4, 2), metadata={"unit": "um"})
    assert open_image(path).pixel_size == PixelSize(0.5, 0.25, "micrometer")
