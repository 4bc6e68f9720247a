"""The region of a run, as it is frozen with the plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tilepipe.engine.plan.coverage import Coverage
from tilepipe.grid import Tiling
from tilepipe.regions.cells import Region, cells_from_text

Rectangle = tuple[int, int, int, int]
"""(y, x, height, width) in pixels of level 0."""


@dataclass(frozen=True, slots=True)
class RegionFacts:
    """Where a run computes.

    The plan, and so the run record beside every export, includes the cells, so that the region is
    known even if the tissue mask is gone.
    """

    tissue: str
    """``none``, ``auto``, or the absolute path of the mask or the polygons."""
    fingerprint: str | None
    """The fingerprint of that file's content."""
    rectangle: Rectangle | None
    how: str
    """How the region was found, in words."""
    cell: int
    """Side of a cell, in pixels of the grid that the model sees."""
    share: float
    """The share of all pixels."""
    cells: str
    """The cells, packed, compressed, in base 64."""
    framed: bool = False
    """Whether tiles are cut to the region; see `Coverage`."""


@lru_cache(maxsize=8)
def coverage_of(tiling: Tiling, facts: RegionFacts | None) -> Coverage:
    """The blocks and tiles of a plan."""
    if facts is None:
        return Coverage(tiling)
    return Coverage(tiling, region_of(facts, tiling.height, tiling.width), facts.framed)


def region_of(facts: RegionFacts, height: int, width: int) -> Region:
    """The region of a plan, on its grid of so many pixels; ValueError if it is damaged."""
    shape = -(-height // facts.cell), -(-width // facts.cell)
    return Region(height, width, facts.cell, cells_from_text(facts.cells, shape))
