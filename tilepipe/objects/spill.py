"""What a block leaves on disk for the table of objects: one file, written whole."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import Window
from tilepipe.objects.measuring import Measures, Sums, sums_of
from tilepipe.objects.outlines import Outlines
from tilepipe.objects.runs import Runs, runs_of
from tilepipe.objects.tracing import EACH, Chains, crossing, open_parts, trace
from tilepipe.storage import StoragePath, write_whole

Ints = NDArray[np.int64]

_PIECES = (*EACH, "points", "nodes", "offsets")
_SUMS = ("number", "added", "lowest", "highest")
_OUTLINES = ("points", "rings", "polygons", "objects", "nodes")
_SIDES = ("above", "below", "before", "after")


@dataclass(frozen=True, slots=True)
class Borders:
    """What it takes to join the 4-connected parts of a block's objects with those of others."""

    parts: Ints
    """(m + 1,): the label of each part that goes on beyond the block; 0 of all others."""
    above: Ints
    """(W,): the part of each pixel of the first row; 0 where it does not go on."""
    below: Ints
    """(W,): of the last row."""
    before: Ints
    """(H,): of the first column."""
    after: Ints
    """(H,): of the last column."""


@dataclass(frozen=True, slots=True)
class Spill:
    """The objects of a block: those that lie in it, finished, and pieces of those that go on.

    Sums count pixels from the first of the block.
    """

    window: Window
    done: Sums
    outlines: Outlines
    """Of the finished objects."""
    open: Sums
    pieces: Chains
    """Of the objects that go on beyond the block."""
    borders: Borders

    def write(self, path: StoragePath) -> None:
        """Write it to a file, which appears whole."""
        window = self.window
        arrays: dict[str, Any] = {"window": (window.y, window.x, window.height, window.width)}
        groups = {
            "done": (self.done, _SUMS), "outlines": (self.outlines, _OUTLINES),
            "open": (self.open, _SUMS), "pieces": (self.pieces, _PIECES),
            "borders": (self.borders, ("parts", *_SIDES)),
        }  # fmt: skip
        for group, (values, names) in groups.items():
            arrays |= {f"{group}_{name}": getattr(values, name) for name in names}
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_whole(path, content.getvalue())


class SpillFile:
    """A `Spill` on disk, of which only what is asked for is read."""

    def __init__(self, path: StoragePath) -> None:
        source: Any = path if isinstance(path, Path) else io.BytesIO(path.read_bytes())
        self._file: Mapping[str, NDArray[Any]] = np.load(source, allow_pickle=False)

    def __enter__(self) -> SpillFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # type: ignore[attr-defined]

    @property
    def window(self) -> Window:
        """The block."""
        return Window(*(int(value) for value in self._file["window"]))

    def finished(self) -> tuple[Sums, Outlines]:
        """The objects that lie in the block."""
        return Sums(*self._group("done", _SUMS)), Outlines(*self._group("outlines", _OUTLINES))

    def unfinished(self) -> Sums:
        """The sums of objects that go on beyond it."""
        return Sums(*self._group("open", _SUMS))

    def pieces(self, *, points: bool = True) -> Chains:
        """The pieces of objects that go on beyond it, with their points or without."""
        names = _PIECES if points else (*EACH, "offsets")
        found = dict(zip(names, self._group("pieces", names), strict=True))
        none = {"points": np.zeros((0, 2), np.int32), "nodes": np.zeros(0, bool)}
        return Chains(**{**none, **found})

    def borders(self) -> Borders:
        """Its parts along its borders."""
        return Borders(*self._group("borders", ("parts", *_SIDES)))

    def _group(self, group: str, names: Sequence[str]) -> list[Any]:
        return [self._file[f"{group}_{name}"] for name in names]


def spill_of(
    labels: NDArray[Any],
    window: Window,
    image_width: int,
    measures: Measures,
    *,
    outlines: bool = True,
) -> Spill:
    """Trace and measure the objects of a block.

    Parameters
    ----------
    labels : ndarray of integers, shape (H + 2, W + 2)
        The block with a rim of one pixel, 0 outside the image.
    window : Window
        The block.
    image_width : int
        Columns of the image.
    measures : Measures
        What to measure.
    outlines : bool
        Whether to trace outlines, or only to measure.
    """
    runs = runs_of(labels[1:-1, 1:-1])
    sums = sums_of(labels, runs, window, measures.summed)
    goes_on = crossing(labels)
    traced = labels if outlines else np.zeros_like(labels)
    pieces = trace(traced, runs, window, image_width)
    is_open = np.isin(sums.number, goes_on)
    piece_open = np.isin(pieces.number, goes_on)
    return Spill(
        window,
        sums.take(~is_open),
        pieces.take(~piece_open).outlines(),
        sums.take(is_open),
        pieces.take(piece_open),
        _borders(labels, runs),
    )


def _borders(labels: NDArray[Any], runs: Runs) -> Borders:
    is_open = open_parts(labels, runs)
    parts = np.where(is_open, runs.parts, 0)
    sides = (runs.of_pixel[0], runs.of_pixel[-1], runs.of_pixel[:, 0], runs.of_pixel[:, -1])
    found = (runs.part[side] for side in sides)
    return Borders(parts, *(np.where(is_open[side], side, 0) for side in found))
