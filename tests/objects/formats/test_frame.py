"""Outlines as files have them: closed, and in the right direction."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tests.objects.formats import making
from tilepipe.objects.formats.frame import bounds, closed, counterclockwise, doubled_areas
from tilepipe.objects.outlines import Outlines


def outlines(*, open_rings: tuple[int, ...] = ()) -> Outlines:
    """Those of hand-made objects; of some rings, the last point is left out."""
    found = Outlines.from_geometries(np.array(making.shapes(), object))
    ends = found.rings[1:][list(open_rings)] - 1
    missing = np.zeros(len(found.rings), np.int64)
    missing[[ring + 1 for ring in open_rings]] = 1
    points = np.delete(found.points, ends, axis=0)
    return Outlines(points, found.rings - missing.cumsum(), found.polygons, found.objects)


@pytest.mark.parametrize("open_rings", [(), (0,), (1, 3), (4,), (0, 1, 2, 3, 4)])
def test_rings_are_closed_once(open_rings: tuple[int, ...]) -> None:
    found = closed(outlines(open_rings=open_rings))
    meant = outlines()
    assert (found.points == meant.points).all()
    assert (found.rings == meant.rings).all()


def test_outer_rings_turn_one_way_and_holes_the_other() -> None:
    areas = doubled_areas(counterclockwise(outlines()))
    assert (np.sign(areas) == [1, -1, 1, 1, 1]).all()
    assert np.abs(areas).tolist() == [2400, 200, 400, 200, 600]


def test_boxes_are_those_of_all_polygons() -> None:
    assert (bounds(outlines()) == shapely.bounds(making.shapes())).all()


def test_no_objects_have_no_boxes() -> None:
    nothing = Outlines.none()
    assert bounds(nothing).shape == (0, 4)
    assert len(counterclockwise(closed(nothing))) == 0
