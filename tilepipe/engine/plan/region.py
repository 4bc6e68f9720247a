"""The region of a run: what the options ask for, made once, and frozen with the plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tilepipe.engine.plan.coverage import Coverage
from tilepipe.grid import Tiling
from tilepipe.regions.cells import (
    Region,
    cells_from_text,
)

Rectangle = tuple[int, int, int, int]
"""(y, x, height, width) in pixels of level 0."""


@dataclass(frozen=True, slots=True)
class RegionFacts:
    """Where a run computes, as its plan holds it: with the cells, so that nothing else is needed.

    The cells travel in the plan's own JSON, and so in the run record beside every export: whoever
    has a mask can tell what of it was asked for, though the tissue mask may be gone.
    """

    tissue: str
    """``none``, ``auto``, or the absolute path of the mask or the polygons."""
    fingerprint: str | None
    """Of that file's content."""
    rectangle: Rectangle | None
    how: str
    """For a person."""
    cell: int
    """Side of a cell, pixels of the grid that the model sees."""
    share: float
    """Of all pixels."""
    cells: str
    """Packed, compressed, in base 64."""
    framed: bool = False
    """Whether tiles are cut to what there is of the region; see `Coverage`."""


@lru_cache(maxsize=8)
def coverage_of(tiling: Tiling, facts: RegionFacts | None) -> Coverage:
    """The blocks and tiles of a plan."""
    if facts is None:
        return Coverage(tiling)
    return Coverage(tiling, region_of(facts, tiling.height, tiling.width), facts.framed)


def region_of(facts: RegionFacts, height: int, width: int) -> Region:
    """The region that a plan holds, on its grid of so many pixels.

    Raises
    ------
    ValueError
        Where its cells are damaged.
    """
    shape = -(-height // facts.cell), -(-width // facts.cell)
    return Region(height, width, facts.cell, cells_from_text(facts.cells, shape))
