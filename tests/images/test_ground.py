"""Pixels measured on the ground, against formulas of the projections and of the ellipsoid."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from tests.products.making import MemoryImage
from tilepipe.grid import Window
from tilepipe.images import PixelSize
from tilepipe.images.ground import Ground, PixelAreas, ground_of

A, F = 6378137.0, 1 / 298.257223563
E2 = F * (2 - F)
EARTH = 5.10065621724e14
"""Square metres, WGS 84."""


def ground(
    code: str, transform: tuple[float, ...], size: float, unit: str = "meter", side: int = 200
) -> Ground | None:
    image = MemoryImage(
        np.zeros((side, side, 1), np.uint8), crs=CRS.from_string(code).to_wkt(),
        transform=transform,  # type: ignore[arg-type]
        pixel_size=PixelSize(size, size, unit),
    )  # fmt: skip
    return ground_of(image)


def radii(latitude: float) -> tuple[float, float]:
    """Of curvature, along the meridian and across it."""
    w = math.sqrt(1 - E2 * math.sin(math.radians(latitude)) ** 2)
    return A * (1 - E2) / w**3, A / w


@pytest.mark.parametrize("latitude", [0.0, 30.0, -45.0, 60.0, 80.0])
def test_web_mercator_is_undone(latitude: float) -> None:
    phi = math.radians(latitude)
    y = A * math.log(math.tan(math.pi / 4 + phi / 2))
    # The latitude of a spherical Mercator is that of the ellipsoid.
    found = ground("EPSG:3857", (0.6, 0, 1e6 - 60, 0, -0.6, y + 60), 0.6)
    if latitude == 0:
        assert found is None, "within 1 %"
        return
    assert found is not None
    m, n = radii(latitude)
    assert found.pixel_size.y == pytest.approx(0.6 * m / A * math.cos(phi), rel=1e-4)
    assert found.pixel_size.x == pytest.approx(0.6 * n / A * math.cos(phi), rel=1e-4)
    assert found.pixel_size.unit == "meter"
    assert found.crs_pixel_size == PixelSize(0.6, 0.6, "meter")
    assert found.spread == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("latitude", [0.0, 50.2, -70.0])
def test_degrees_have_a_length(latitude: float) -> None:
    step = 1e-5
    found = ground("EPSG:4326", (step, 0, 7, 0, -step, latitude + 100 * step), step, "degree")
    assert found is not None
    m, n = radii(latitude)
    assert found.pixel_size.unit == "meter"
    assert found.pixel_size.y == pytest.approx(math.radians(step) * m, rel=1e-5)
    assert found.pixel_size.x == pytest.approx(
        math.radians(step) * n * math.cos(math.radians(latitude)), rel=1e-5
    )


@pytest.mark.parametrize(
    ("code", "origin", "unit"),
    [
        ("EPSG:32633", (5e5, 5e6), "meter"),
        ("EPSG:32733", (7e5, 9e6), "meter"),
        ("EPSG:2263", (9.8e5, 2e5), "us survey foot"),
        ("EPSG:5698", (6.5e5, 6.86e6), "meter"),  # with heights
        ("EPSG:3035", (4.3e6, 3.2e6), "meter"),
    ],
)
@pytest.mark.parametrize("size", [0.01, 0.3, 10.0])
def test_a_crs_that_says_the_truth_is_believed(
    code: str, origin: tuple[float, float], unit: str, size: float
) -> None:
    assert ground(code, (size, 0, origin[0], 0, -size, origin[1]), size, unit) is None


def test_a_crs_far_from_its_zone_is_not() -> None:
    assert ground("EPSG:32633", (10, 0, 5e5, 0, -10, 5e6), 10, side=200) is None
    found = ground("EPSG:32633", (10, 0, 2.2e6, 0, -10, 5e6), 10, side=200)
    assert found is not None
    assert found.pixel_size.x < 9.9


def test_feet_stay_feet() -> None:
    # Web Mercator in US survey feet.
    crs = CRS.from_proj4(
        "+proj=merc +a=6378137 +b=6378137 +lat_ts=0 +lon_0=0 +x_0=0 +y_0=0 +k=1 +units=us-ft "
        "+nadgrids=@null +no_defs"
    )
    foot = 1200 / 3937
    image = MemoryImage(
        np.zeros((100, 100, 1), np.uint8), crs=crs.to_wkt(),
        transform=(1, 0, 1e6 / foot, 0, -1, 8399737 / foot),
        pixel_size=PixelSize(1, 1, "us survey foot"),
    )  # fmt: skip
    found = ground_of(image)
    assert found is not None
    assert found.pixel_size.unit == "us survey foot"
    assert found.pixel_size.x == pytest.approx(0.5, rel=0.01)


def test_an_image_without_place_or_crs_is_as_its_file_says() -> None:
    assert ground_of(MemoryImage(np.zeros((9, 9, 1), np.uint8))) is None
    local = 'LOCAL_CS["a site",UNIT["metre",1]]'
    image = MemoryImage(
        np.zeros((9, 9, 1), np.uint8), crs=local, transform=(1, 0, 0, 0, -1, 0),
        pixel_size=PixelSize(1, 1, "meter"),
    )  # fmt: skip
    assert ground_of(image) is None


def test_a_rotated_image_is_measured_along_its_own_axes() -> None:
    turned = (
        rasterio.Affine.translation(1e6, 8399737)
        @ rasterio.Affine.rotation(30)
        @ rasterio.Affine.scale(0.6, -0.6)
    )
    found = ground("EPSG:3857", tuple(turned)[:6], 0.6)
    assert found is not None
    assert found.pixel_size.x == pytest.approx(0.3005, rel=2e-3)
    areas = PixelAreas(
        CRS.from_epsg(3857).to_wkt(),
        tuple(turned)[:6],
        Window(0, 0, 4, 4),
        0.6,  # type: ignore[arg-type]
    )
    assert areas.rows(0, 4) == pytest.approx(0.3003 * 0.3008, rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "transform", "size", "metres", "share"),
    [
        ("EPSG:4326", (0.5, 0, -180, 0, -0.5, 90), (360, 720), 55e3, 1.0),
        # Of equal area, and 7342230.136 m from the equator to the pole.
        ("EPSG:6933", (34735060.9 / 700, 0, -17367530.45, 0, -14629081.1 / 300, 7314540.55),
         (300, 700), 50e3, 7314540.55 / 7342230.136),
        # Web Mercator ends at 85.06 degrees.
        ("EPSG:3857", (39135.7584765625, 0, -20037508.34, 0, -39135.7584765625, 20037508.34),
         (1024, 1024), 39e3, None),
    ],
)  # fmt: skip
def test_all_pixels_together_are_the_earth(
    code: str, transform: tuple[float, ...], size: tuple[int, int], metres: float,
    share: float | None,
) -> None:  # fmt: skip
    wkt = CRS.from_string(code).to_wkt()
    if share is None:
        s = math.sin(math.radians(85.0511288))
        e = math.sqrt(E2)

        def zone(s: float) -> float:
            return s / (2 * (1 - E2 * s * s)) + math.log((1 + e * s) / (1 - e * s)) / (4 * e)

        share = zone(s) / zone(1)
    total, blocks = 0.0, 0
    for y in range(0, size[0], 200):
        for x in range(0, size[1], 200):
            window = Window(y, x, min(200, size[0] - y), min(200, size[1] - x))
            areas = PixelAreas(wkt, transform, window, metres)  # type: ignore[arg-type]
            total += areas.rows(0, window.height).sum()
            blocks += 1
    assert blocks > 1
    assert total == pytest.approx(EARTH * share, rel=1e-3)


def test_areas_do_not_depend_on_the_window() -> None:
    wkt, transform = CRS.from_epsg(3857).to_wkt(), (30.0, 0, 1e6, 0, -30.0, 8399737)
    whole = PixelAreas(wkt, transform, Window(0, 0, 700, 600), 30.0).rows(0, 700)
    part = PixelAreas(wkt, transform, Window(333, 100, 300, 400), 30.0).rows(10, 200)
    np.testing.assert_allclose(part, whole[343:533, 100:500], rtol=1e-9)


def test_the_moon_has_an_ellipsoid_of_its_own(tmp_path: Path) -> None:
    found = ground("IAU_2015:30100", (0.01, 0, 0, 0, -0.01, 1.0), 0.01, "degree")
    assert found is not None
    assert found.pixel_size.y == pytest.approx(math.radians(0.01) * 1737400, rel=1e-4)
