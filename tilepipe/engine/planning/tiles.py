"""Tiles of an image to try a network on: always the same, from all over it, tissue before glass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from tilepipe.engine.hardware import cores
from tilepipe.engine.planning.timing import Sample
from tilepipe.errors import UnreadableError
from tilepipe.grid import Geometry, Window, round_down, round_up
from tilepipe.images import Image, read_with_valid
from tilepipe.images.validity import in_any_band
from tilepipe.models.specs import InputSpec, Model
from tilepipe.regions.cells import Region

T = TypeVar("T")

READERS = 4
"""Threads that read places, at most. Each holds a tile or two of the file, where a plan counts ten
for a block."""

LOOK = 96
"""Side of the piece of each place that is looked at."""

MOST_PLACES = 256
"""Places that are looked at, at most."""

SMALLEST_SIDE = 64
"""Side of the smallest tile that is taken where an image is small."""

PLAIN = 0.15
"""A piece is background where each band varies less, in standard deviations of the model's images:
the glass of slides does so by a tenth at most, tissue by a half and more."""


class TrialTiles(NamedTuple):
    """Tiles of an image, all of one size: some to calibrate a network on, others to measure it."""

    calibrating: list[Sample]
    measuring: list[Sample]
    """The same tile as the other, where an image has only one."""
    plain: bool
    """Whether all that was seen of the image is background."""
    unreadable: tuple[str, ...]
    """What was wrong with each place that could not be read; a run would report it."""

    @property
    def is_shared(self) -> bool:
        """Whether the image has one tile only, for both."""
        return any(a is b for a, b in zip(self.calibrating, self.measuring, strict=False))


def read_tiles(
    image: Image, level: int, model: Model, region: Region | None, wanted: int
) -> TrialTiles:
    """Read tiles of an image or region, every third of them to measure on.

    As many as wanted, if the image has them; none, if it cannot be read.
    """
    geometry, unreadable = model.geometry, list[str]()
    places, plain = choose_tiles(image, level, geometry, model.input, region, wanted, unreadable)

    def read(place: Window) -> Sample:
        return Sample(*read_with_valid(image, geometry.window_for(place), level), place.shape)

    samples = [sample for _, sample in _each(read, places, unreadable)]
    if len(samples) < 3:
        return TrialTiles(samples[:1], samples[-1:], plain, tuple(unreadable))
    calibrating = [sample for i, sample in enumerate(samples) if i % 3 != 2]
    return TrialTiles(calibrating, samples[2::3], plain, tuple(unreadable))


def choose_tiles(
    image: Image,
    level: int,
    geometry: Geometry,
    spec: InputSpec,
    region: Region | None,
    wanted: int,
    unreadable: list[str],
) -> tuple[list[Window], bool]:
    """What to keep of tiles from all over an image or region, in raster order, background last.

    Tiles do not overlap, and are smaller than the model's own in an image that has too few of
    those. What cannot be read is passed over, and why is added to ``unreadable``.

    Returns
    -------
    list of Window
        As many as wanted, if there are so many.
    bool
        Whether all that was seen of the image is background.
    """
    size = image.levels[level].height, image.levels[level].width
    places = _lattice(size, geometry, wanted, region)
    seen = _each(lambda place: _variation(image, level, place, spec), places, unreadable)
    there = [(variation, place) for place, variation in seen if variation is not None]
    busy = [place for variation, place in there if variation >= PLAIN]
    chosen = [busy[i * len(busy) // wanted] for i in range(wanted)] if len(busy) >= wanted else busy
    if len(busy) < wanted:
        others = sorted((pair for pair in there if pair[0] < PLAIN), key=lambda pair: -pair[0])
        chosen = busy + [place for _, place in others[: wanted - len(busy)]]
    return sorted(chosen, key=lambda place: (place.y, place.x)), not busy


def _each(
    read: Callable[[Window], T], places: Iterable[Window], unreadable: list[str]
) -> Iterator[tuple[Window, T]]:
    """Each place with what is read there, in order; why one cannot be is added to a list."""

    def attempt(place: Window) -> tuple[Window, T] | str:
        try:
            return place, read(place)
        except UnreadableError as error:
            return str(error)

    with ThreadPoolExecutor(min(READERS, cores()), "tilepipe-places") as readers:
        for found in readers.map(attempt, places):
            if isinstance(found, str):
                unreadable.append(found)
            else:
                yield found


def _lattice(
    size: tuple[int, int], geometry: Geometry, wanted: int, region: Region | None
) -> list[Window]:
    """Places on an even grid, of the largest side of which there are enough."""
    factor = geometry.stride_factor
    smallest = round_up(SMALLEST_SIDE, factor)
    side = max(geometry.step, smallest)
    while True:
        found = list(_places(size, side, factor, region))
        smaller = max(smallest, round_down(side // 2, factor))
        if len(found) >= wanted or smaller == side:
            return found
        side = smaller


def _places(
    size: tuple[int, int], side: int, factor: int, region: Region | None
) -> Iterator[Window]:
    rows, columns = (max(1, n // side) for n in size)
    inside = 1.0 if region is None else max(region.share, 1 / MOST_PLACES)
    # More of them where a region leaves few; in steps, so that both axes are thinned alike.
    thinning = max(1.0, math.sqrt(rows * columns * inside / MOST_PLACES))
    for y in _starts(size[0], side, max(1, int(rows / thinning)), factor):
        for x in _starts(size[1], side, max(1, int(columns / thinning)), factor):
            place = Window(y, x, side, side)
            if region is None or _is_inside(place, size, region):
                yield place


def _starts(size: int, side: int, number: int, factor: int) -> list[int]:
    room = max(0, size - side)
    middle = room / 2 if number == 1 else 0.0
    step = room / max(1, number - 1)
    return [round_down(int(middle + i * step), factor) for i in range(number)]


def _is_inside(place: Window, size: tuple[int, int], region: Region) -> bool:
    """Whether the middle of a place is in a region."""
    y = min(place.y + place.height // 2, size[0] - 1)
    x = min(place.x + place.width // 2, size[1] - 1)
    return bool(region.cells[y // region.cell, x // region.cell])


def _variation(image: Image, level: int, place: Window, spec: InputSpec) -> float | None:
    """How much the middle of a place varies, in units of `PLAIN`; None if it holds nothing."""
    side = min(LOOK, place.height)
    rim = (place.height - side) // 2
    middle = Window(place.y + rim, place.x + rim, side, side)
    pixels, valid = read_with_valid(image, middle, level)
    if valid is not None:
        pixels = pixels[in_any_band(valid)]
    values = pixels.reshape(-1, pixels.shape[-1]).astype(np.float64) * spec.scale
    if not len(values):
        return None
    return float((values.std(0) / np.abs(spec.std)).max())
