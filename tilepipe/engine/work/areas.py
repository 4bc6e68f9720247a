"""The area of each class on the ground, where pixels of a mask differ in area."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.images.ground import PixelAreas

if TYPE_CHECKING:
    from tilepipe.engine.plan.plan import Plan

STRIP_ROWS = 64
"""Rows that are summed at a time: areas take eight bytes per pixel."""


def class_areas(mask: NDArray[Any], block: Window, plan: Plan) -> tuple[float, ...]:
    """Square metres of each class in a block, or of each plane's answers for values.

    Empty if the plan does not measure areas on the ground; then they follow from counts. ``mask``
    has the block's answers: labels (height, width), or planes (C, height, width).
    """
    spec, size = plan.mask, plan.image.pixel_size
    metres = None if size is None else size.metres()
    if plan.image.crs_pixel_size is None or spec.crs is None or spec.transform is None:
        return ()
    assert metres is not None, "areas on the ground are measured in metres"
    areas = PixelAreas(spec.crs, spec.transform, block, max(metres))
    sums = np.zeros(len(spec.classes))
    for row in range(0, block.height, STRIP_ROWS):
        stop = min(row + STRIP_ROWS, block.height)
        weights, part = areas.rows(row, stop), mask[..., row:stop, :]
        sums += spec.product.sums(part, len(sums), weights)
    return tuple(sums.tolist())
