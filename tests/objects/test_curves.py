from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.objects.making import Labels, classes, noise, numbered, outlines_of
from tilepipe.objects.curves import simplified, smoothed
from tilepipe.objects.outlines import Outlines

Change = Callable[[Outlines], Outlines]

CHANGES: dict[str, Change] = {
    "simplified": simplified,
    "simplified a little": lambda outlines: simplified(outlines, 0.4),
    "smoothed": smoothed,
    "smoothed, all points": lambda outlines: smoothed(outlines, 3, near=0.0),
}
changes = st.sampled_from(list(CHANGES)).map(CHANGES.__getitem__)


def filled(outlines: Outlines, shape: tuple[int, int]) -> Labels:
    """The pixels whose centres lie inside each object."""
    shapes = ((g, number) for number, g in enumerate(outlines.geometries(), 1))
    found: Labels = rasterio.features.rasterize(shapes, shape, dtype="uint32")
    return found


def discs(seed: int = 0, side: int = 200, count: int = 40) -> Labels:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    image = np.zeros((side, side), np.uint8)
    for number in range(count):
        top, left = random.integers(0, side, 2)
        inside = ((y - top) / random.integers(5, 20)) ** 2 + ((x - left) / 12) ** 2 < 1
        image[inside] = number % 3 + 1
    return numbered(image)


@given(classes, changes)
def test_changed_outlines_are_valid_and_part_the_same_pixels(
    image: np.ndarray, change: Change
) -> None:
    labels = numbered(image)
    if not labels.any():
        return
    exact = outlines_of(labels)
    found = change(exact)
    shapes = found.geometries()
    assert shapely.is_valid(shapes).all()
    assert (np.diff(found.rings) >= 3).all()
    assert (filled(found, labels.shape) == labels).all()
    assert shapely.get_num_interior_rings(shapely.get_parts(shapes)).tolist() == (
        shapely.get_num_interior_rings(shapely.get_parts(exact.geometries())).tolist()
    )


@given(classes, changes)
def test_neighbours_still_share_their_borders(image: np.ndarray, change: Change) -> None:
    shapes = change(outlines_of(numbered(image))).geometries()
    assert shapely.coverage_is_valid(shapes)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("labels", [discs(), noise((150, 150), 0.55)], ids=["discs", "noise"])
def test_an_object_is_changed_alone_as_it_is_with_all(labels: Labels, change: Change) -> None:
    exact = outlines_of(labels)
    found = change(exact)
    assert shapely.is_valid(found.geometries()).all()
    assert shapely.coverage_is_valid(found.geometries())
    assert (filled(found, labels.shape) == labels).all()
    for number in range(0, len(exact), 7):
        alone, among = change(exact.of(number, number + 1)), found.of(number, number + 1)
        np.testing.assert_array_equal(alone.points, among.points)
        np.testing.assert_array_equal(alone.rings, among.rings)


def test_simplified_outlines_have_far_fewer_points() -> None:
    exact = outlines_of(discs())
    assert len(simplified(exact).points) < len(exact.points) / 2


def test_a_tolerance_bounds_how_far_a_border_moves() -> None:
    exact = outlines_of(discs())
    drawn = simplified(exact, 0.0).geometries()
    for tolerance in (0.1, 0.3, 0.6):
        pairs = zip(drawn, simplified(exact, tolerance).geometries(), strict=True)
        assert max(shapely.hausdorff_distance(a, b) for a, b in pairs) <= tolerance + 1e-9


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_border_moves_by_less_than_a_pixel(change: Change) -> None:
    exact = outlines_of(discs())
    pairs = zip(exact.geometries(), change(exact).geometries(), strict=True)
    assert max(shapely.hausdorff_distance(a, b) for a, b in pairs) < 1


def test_smooth_objects_keep_their_areas() -> None:
    exact = outlines_of(discs())
    area = shapely.area(exact.geometries()).sum()
    assert shapely.area(smoothed(exact).geometries()).sum() == pytest.approx(area, rel=0.01)


def test_a_smooth_border_is_shorter() -> None:
    exact = outlines_of(discs())
    length = shapely.length(exact.geometries()).sum()
    assert shapely.length(smoothed(exact).geometries()).sum() < 0.9 * length


def test_nothing_changed_is_nothing() -> None:
    assert len(simplified(Outlines.none())) == len(smoothed(Outlines.none())) == 0
