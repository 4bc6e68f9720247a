"""How far labels are from fp32's: shares and Dice, without pixels that have no answer."""

from __future__ import annotations

import numpy as np
import pytest

from tilepipe.engine.plan.label_change import LabelChange


def test_labels_that_differ_are_counted_and_overlaps_averaged() -> None:
    truth = np.array([[0, 1, 1, 2], [0, 0, 2, 255]])
    found = np.array([[0, 1, 0, 2], [0, 0, 2, 1]])
    change = LabelChange.between([found], [truth], background=0)
    assert change.share == pytest.approx(1 / 7)
    assert change.dice == pytest.approx((2 * 1 / 4 + 1) / 2), "an answer where there is none counts"
    assert "14 % of labels differ from fp32's, Dice between the two 0.75" in str(change)
    assert str(change).endswith("on 1 tile of the image")


def test_tiles_of_all_shapes_are_put_together() -> None:
    tiles = [np.zeros((2, 2), np.uint8), np.ones((3, 1), np.uint8)]
    other = [np.zeros((2, 2), np.uint8), np.zeros((3, 1), np.uint8)]
    assert LabelChange.between(other, tiles) == LabelChange(3 / 7, (8 / 11 + 0) / 2, 2)


def test_background_alone_says_nothing_of_classes() -> None:
    nothing = np.zeros((4, 4), np.uint8)
    assert LabelChange.between([nothing], [nothing], background=0) == LabelChange(0.0, None, 1)


def test_planes_are_compared_one_by_one() -> None:
    truth = np.array([[[0, 1]], [[1, 1]]])
    found = np.array([[[1, 1]], [[1, 1]]])
    assert LabelChange.between([found], [truth]) == LabelChange(0.25, (2 / 3 + 1) / 2, 1)
