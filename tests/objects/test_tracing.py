from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.objects.making import as_bytes, classes, noise, numbered, outlines_of, table_of


@given(classes)
def test_outlines_are_valid_and_cover_the_pixels_of_their_object(image: np.ndarray) -> None:
    labels = numbered(image)
    found = outlines_of(labels)
    shapes = found.geometries()
    assert len(found) == labels.max()
    for number, shape in enumerate(shapes, 1):
        mask = (labels == number).astype(np.uint8)
        pixels = [s for s, value in rasterio.features.shapes(mask) if value]
        assert shape.is_valid
        assert shape.area == mask.sum()
        assert shape.equals(shapely.union_all([shapely.geometry.shape(s) for s in pixels]))


@given(classes)
def test_rings_outside_turn_one_way_and_holes_the_other(image: np.ndarray) -> None:
    for polygon in shapely.get_parts(outlines_of(numbered(image)).geometries()):
        assert polygon.exterior.is_ccw
        assert not any(ring.is_ccw for ring in polygon.interiors)


@given(classes)
def test_rings_and_polygons_are_in_raster_order_of_their_first_points(image: np.ndarray) -> None:
    found = outlines_of(numbered(image))
    for object_ in range(len(found)):
        one = found.of(object_, object_ + 1)
        rings = [
            one.points[a:b, ::-1].tolist() for a, b in zip(one.rings, one.rings[1:], strict=False)
        ]
        assert all(ring[0] == min(ring) for ring in rings)
        firsts = [ring[0] for ring in rings]
        bounds = list(zip(one.polygons, one.polygons[1:], strict=False))
        outside = [firsts[a] for a, _ in bounds]
        assert outside == sorted(outside)
        assert all(firsts[a + 1 : b] == sorted(firsts[a + 1 : b]) for a, b in bounds)


@given(classes)
def test_no_point_lies_between_two_in_line_unless_others_meet_there(image: np.ndarray) -> None:
    found = outlines_of(numbered(image))
    for a, b in zip(found.rings, found.rings[1:], strict=False):
        steps = np.diff(found.points[a:b], axis=0, append=found.points[a : a + 1])
        along = steps[:, 0] != 0
        assert ((steps != 0).sum(axis=1) == 1).all()
        assert ((along != np.roll(along, 1)) | found.nodes[a:b]).all()


@given(classes)
def test_outlines_are_a_coverage(image: np.ndarray) -> None:
    """Neighbours have the same points along their borders, so no tool finds a gap."""
    found = outlines_of(numbered(image)).geometries()
    assert shapely.coverage_is_valid(found)


def test_parts_that_touch_at_a_corner_are_polygons_of_their_own() -> None:
    found = outlines_of(numbered(np.eye(3)))
    assert len(found) == 1
    assert len(found.polygons) - 1 == 3


def test_a_ring_that_closes_at_a_corner_has_a_hole() -> None:
    image = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
    (shape,) = outlines_of(numbered(image)).geometries()
    assert shape.geom_type == "Polygon"
    assert len(shape.interiors) == 1
    assert shape.is_valid


def test_an_object_in_the_hole_of_another_shares_its_border() -> None:
    image = np.ones((5, 5), np.uint8)
    image[1:4, 1:4] = 2
    one, other = outlines_of(numbered(image)).geometries()
    assert shapely.equals(shapely.Polygon(one.interiors[0]), other)


@given(classes, st.data())
def test_the_table_is_the_same_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, image: np.ndarray, data: st.DataObject
) -> None:
    labels = numbered(image)
    height, width = labels.shape
    tile = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    folder = tmp_path_factory.mktemp("blocks")
    whole = table_of(labels, labels.shape, folder / "whole")
    assert as_bytes(table_of(labels, tile, folder / "blocks")) == as_bytes(whole)


@pytest.mark.parametrize("tile", [(1, 5), (4, 4), (5, 1), (3, 2)])
def test_all_small_masks_are_the_same_in_blocks(tile: tuple[int, int], tmp_path: Path) -> None:
    """A map of masks of 3 x 3 pixels, all 512, with a pixel between any two."""
    bits = (np.arange(512)[:, None] >> np.arange(9)) & 1
    tiles = np.pad(bits.reshape(16, 32, 3, 3), ((0, 0), (0, 0), (0, 1), (0, 1)))
    labels = numbered(tiles.transpose(0, 2, 1, 3).reshape(64, 128)[:16, :64])
    whole = table_of(labels, labels.shape, tmp_path / "whole")
    assert as_bytes(table_of(labels, tile, tmp_path / "blocks")) == as_bytes(whole)


@pytest.mark.parametrize("share", [0.4, 0.5, 0.6, 0.9])
def test_large_objects_are_the_same_in_blocks(share: float, tmp_path: Path) -> None:
    labels = noise((90, 120), share)
    whole = table_of(labels, labels.shape, tmp_path / "whole")
    for tile in ((17, 23), (64, 64), (90, 31)):
        found = table_of(labels, tile, tmp_path / f"{tile}")
        assert as_bytes(found) == as_bytes(whole)


def test_outlines_of_touching_objects_cover_a_mask_without_gap_or_overlap() -> None:
    labels = np.arange(1, 26, dtype=np.uint32).reshape(5, 5).repeat(3, 0).repeat(4, 1)
    shapes = outlines_of(labels).geometries()
    assert shapely.coverage_is_valid(shapes)
    assert shapely.union_all(shapes).equals(shapely.box(0, 0, 20, 15))
