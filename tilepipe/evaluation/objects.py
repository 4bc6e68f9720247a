"""The objects of one side of a pair, numbered across its windows."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilepipe.grid import CHUNK, Window
from tilepipe.models.object_rule import REACH, Method, ObjectRule
from tilepipe.objects.enclosed import fill_enclosed
from tilepipe.objects.growth import grow
from tilepipe.objects.job import LARGEST_SIDE, ObjectsJob, start
from tilepipe.objects.numbering import number_objects
from tilepipe.objects.rules import BORDER, Parts, PartTable


class FoundObjects:
    """The objects of a map, which is held in a folder while they are found and read.

    Pixels that share an edge are connected; those of split objects also by corners, as everywhere.

    Parameters
    ----------
    folder
        Empty; it may take a few bytes for each pixel where there are many small objects.
    shape
        The map's height and width.
    blocks
        The map: windows and their parts (`tilepipe.objects.rules`), which have one class.
    method
        ``components``; ``seeded``: components that grow into the border; ``split``.
    fill_holes
        Whether pixels that an object encloses are part of it. An object within another one remains
        an object, but not if they are split: they are filled before.
    side
        Of the windows that are numbered, in pixels.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, int],
        blocks: Iterable[tuple[Window, Parts]],
        method: Method = "components",
        *,
        fill_holes: bool = False,
        side: int = LARGEST_SIDE,
    ) -> None:
        splits = method == "split"
        rule = ObjectRule("split", fill_holes=fill_holes) if splits else ObjectRule()
        job = ObjectsJob("", "", *shape, rule, PartTable((), (), ()), side=side, corners=splits)
        self._work = start(folder, job)
        self._reach = REACH if method == "seeded" else 0
        self._work.create_array("parts", "uint8", CHUNK)
        array = self._work.array("parts")
        for window, parts in blocks:
            array[window.slices()] = parts
        number_objects(self._work, starmap, lambda _title: None)
        if fill_holes and not splits:
            fill_enclosed(self._work)

    def read(self, window: Window) -> NDArray[Any]:
        """The number of the object at each pixel of a window, 0 for none; uint32, (H, W)."""
        parts, read = self._work.parts(window, self._reach, raw=True)
        numbers = np.asarray(self._work.array("numbers")[read.slices()])
        return grow(numbers, parts == BORDER, self._reach)[window.slices(read)]
