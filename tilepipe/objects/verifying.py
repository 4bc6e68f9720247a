"""Objects of a window found afresh from the pixels of the mask, and compared with those stored."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tilepipe.grid import Window
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects import basins
from tilepipe.objects.checking import check_window
from tilepipe.objects.job import LARGEST_SIDE
from tilepipe.objects.measuring import Measures
from tilepipe.objects.pieces import connected_pieces
from tilepipe.objects.rules import FREE, Parts
from tilepipe.objects.table import ObjectTable
from tilepipe.objects.whole import number_parts
from tilepipe.products.instances import InstanceLayer
from tilepipe.text import some

SIDE = 1024
"""Side of a window that is found afresh, in pixels."""

MOST = 8
"""Windows that are found afresh, however many are asked for."""


def choose_windows(table: ObjectTable, count: int, seed: int) -> list[Window]:
    """Windows around objects of a table; half of them around such as lie in several blocks."""
    if not len(table):
        return []
    height, width = table.info.mask.height, table.info.mask.width
    choose, places, crossing = random.Random(seed), [], []
    for part in table.chunks(("left", "top", "right", "bottom")):
        left, top, right, bottom = (part[name] for name in ("left", "top", "right", "bottom"))
        across = (left // LARGEST_SIDE != (right - 1) // LARGEST_SIDE) | (
            top // LARGEST_SIDE != (bottom - 1) // LARGEST_SIDE
        )
        boxes = np.stack((top, bottom, left, right), axis=1)
        crossing += boxes[across][: 4 * MOST].tolist()
        places += [boxes[choose.randrange(len(boxes))].tolist() for _ in range(min(count, 4))]
    count = min(count, MOST)
    chosen = [choose.choice(crossing) for _ in range(count // 2)] if crossing else []
    chosen += [choose.choice(places) for _ in range(count - len(chosen))]
    return [_around(box, height, width) for box in chosen]


def _around(box: list[int], height: int, width: int) -> Window:
    top, bottom, left, right = box
    rows, columns = min(SIDE, height), min(SIDE, width)
    y = min(max((top + bottom - rows) // 2, 0), height - rows)
    x = min(max((left + right - columns) // 2, 0), width - columns)
    return Window(y, x, rows, columns)


@dataclass(frozen=True, slots=True)
class ObjectsVerified:
    """What came of finding the objects of some windows again."""

    windows: int
    objects: int
    """How many were compared."""
    differences: tuple[str, ...] = ()
    """What differs, a sentence for each window."""


def verify_objects(
    read_parts: Callable[[Window], Parts],
    rule: ObjectRule,
    numbers: InstanceLayer,
    table: ObjectTable,
    measures: Measures,
    windows: list[Window],
) -> ObjectsVerified:
    """Find the objects of some windows again, and compare numbers, outlines and measurements.

    Compared are objects that lie far enough inside of a window for it to tell all about them.

    Parameters
    ----------
    read_parts
        The parts of a window of the mask.
    rule
        How pixels become objects.
    numbers, table
        What is stored.
    measures
        What was measured.
    windows
        Within the mask.
    """
    compared, differences = 0, []
    for window in windows:
        stored = numbers.read(window).astype(np.int64)
        parts = read_parts(window)
        wrong, count = _other_numbers(parts, stored, rule, window, numbers.shape)
        compared += count
        checked = check_window(table, numbers.read, window, measures)
        wrong += [f"object {number}: {what}" for number, what in checked.differences]
        if wrong:
            place = f"from row {window.y}, column {window.x}"
            differences.append(f"objects {place} are not those of the mask: {some(wrong)}")
    return ObjectsVerified(len(windows), compared, tuple(differences))


def _other_numbers(
    parts: Parts,
    stored: NDArray[np.int64],
    rule: ObjectRule,
    window: Window,
    shape: tuple[int, int],
) -> tuple[list[str], int]:
    """Objects of a window whose pixels or order differ, and how many were compared."""
    fresh = number_parts(parts, rule)
    known = _known(fresh, rule, window, shape)
    if rule.fill_holes:
        known[np.unique(fresh[_beside_holes(parts, stored)])] = False
    # An object is the same if its pixels have one number, and no others in the window have it.
    pixels = known[fresh]
    pairs = np.unique(np.stack((fresh[pixels], stored[pixels])), axis=1)
    there, sizes = np.unique(stored, return_counts=True)
    own, counts = np.unique(fresh, return_counts=True)
    wrong = []
    for number in np.unique(pairs[0]):
        match = pairs[1, pairs[0] == number]
        size = counts[np.searchsorted(own, number)]
        if len(match) > 1 or match[0] == 0 or sizes[np.searchsorted(there, match[0])] != size:
            y, x = np.argwhere(fresh == number)[0]
            wrong.append(f"the one from row {y + window.y}, column {x + window.x}")
    if not wrong and (np.diff(pairs[1]) <= 0).any():
        wrong.append("numbers that do not follow the order of first pixels")
    return wrong, len(np.unique(pairs[0]))


def _beside_holes(parts: Parts, stored: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels of, and beside, holes of which the window does not see the end; shape (H, W)."""
    whole = Window(0, 0, *parts.shape)
    free = connected_pieces((parts == FREE).astype(np.uint8), whole, whole.width, corners=False)
    is_open = np.zeros(len(free.part) + 1, np.bool_)
    for edge in _EDGES:
        is_open[free.numbers[edge]] = True
    is_hole = np.zeros(len(is_open), np.bool_)
    is_hole[free.numbers[stored > 0]] = True
    is_hole &= is_open
    is_hole[0] = False
    grown: NDArray[np.bool_] = ndimage.binary_dilation(is_hole[free.numbers], np.ones((3, 3)))
    return grown


_EDGES = (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1])


def _known(
    fresh: NDArray[np.int64], rule: ObjectRule, window: Window, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Whether a window tells all about each object, from number 0 on, which is none.

    Not if the object, or one beside it, comes near an edge beyond which the mask goes on.
    """
    near = basins.HALO + 1 if rule.method == "split" else rule.reach + 1
    band = np.zeros(fresh.shape, np.bool_)
    if window.y > 0:
        band[:near] = True
    if window.x > 0:
        band[:, :near] = True
    if window.stop_y < shape[0]:
        band[-near:] = True
    if window.stop_x < shape[1]:
        band[:, -near:] = True
    known = np.ones(int(fresh.max(initial=0)) + 1, np.bool_)
    known[np.unique(fresh[band])] = False
    padded = np.pad(fresh, 1)
    beside = np.zeros(len(known), np.bool_)
    unknown = ~known
    unknown[0] = False
    for y in range(3):
        for x in range(3):
            there = padded[y : y + fresh.shape[0], x : x + fresh.shape[1]]
            beside[np.unique(fresh[unknown[there]])] = True
    known &= ~beside
    known[0] = False
    return known
