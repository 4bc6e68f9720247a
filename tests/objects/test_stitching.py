"""Objects labelled window by window are those of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilepipe.errors import InputError
from tilepipe.grid import Window, WindowGrid
from tilepipe.objects.labelling import objects_from_labels
from tilepipe.objects.stitching import StitchedObjects


def same_objects(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two numberings tell the same objects."""
    if ((one > 0) != (other > 0)).any():
        return False
    pairs = np.unique(np.stack((one[one > 0], other[one > 0])), axis=1)
    return all(np.unique(side).size == pairs.shape[1] for side in pairs)


def stitched(
    labels: NDArray[np.uint8], tile: tuple[int, int], *, border: bool, fill_holes: bool
) -> tuple[StitchedObjects, WindowGrid]:
    grid = WindowGrid(Window(0, 0, *labels.shape[:2]), tile)

    def read(window: Any) -> NDArray[np.uint8]:
        return labels[window.slices()]

    return StitchedObjects(read, grid, border=border, fill_holes=fill_holes, memory=1 << 30), grid


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.integers(8, 50), st.integers(8, 50),
    st.booleans(), st.booleans(), st.sampled_from([1, 5]),
)  # fmt: skip
def test_stitched_objects_are_those_of_the_whole(
    seed: int, rows: int, columns: int, border: bool, fill_holes: bool, scale: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 60, 2)
    inside = rng.random(shape) < rng.choice([0.3, 0.6, 0.8, 0.95])
    labels = np.where(inside, 1, np.where(rng.random(shape) < 0.6, 2, 0)).astype(np.uint8)
    labels = np.kron(labels, np.ones((scale, scale), np.uint8))[:90, :90]
    tile = min(rows, labels.shape[0]), min(columns, labels.shape[1])
    objects, grid = stitched(labels, tile, border=border, fill_holes=fill_holes)
    whole = objects_from_labels(labels, 1, 2 if border else None, fill_holes=fill_holes)
    found = np.zeros(labels.shape, np.int64)
    for window in grid:
        found[window.slices()] = objects.read(window)
    assert same_objects(whole, found)


def test_more_pieces_than_the_memory_holds_are_refused() -> None:
    labels = np.indices((64, 64)).sum(0) % 2
    with pytest.raises(InputError, match="--memory"):
        StitchedObjects(
            lambda window: labels[window.slices()],
            WindowGrid(Window(0, 0, 64, 64), (32, 32)),
            border=False,
            fill_holes=False,
            memory=1000,
        )
