"""What a pass costs by the size of its window, in seconds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tilepipe.regions.cover import PASS_PIXELS

LEAST_FIXED = 0.0005
"""Seconds that no pass is without: it is queued, waited for, and its labels are put in place."""

Point = tuple[float, float]
"""Pixels computed, and seconds."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long passes of one window took."""

    height: int
    width: int
    seconds: float
    """Of the fastest."""
    first: float
    """Of the first, which takes fresh memory and makes kernels."""


@dataclass(frozen=True)
class PassCost:
    """Seconds of a pass by its window, from windows that were timed.

    Between them cost grows evenly, and beyond the largest as up to it: where activations leave the
    caches, or pages are more than the processor's table of them holds, a pixel costs more from
    there on. Networks that shrink a window compute fewer pixels the deeper they are, so what counts
    is the mean of its input and its output.
    """

    shrink: int
    """Pixels that the network takes off each edge."""
    timings: tuple[Timing, ...]
    """Of one window or more, the smallest first."""

    @classmethod
    def guess(cls, shrink: int, window: tuple[int, int] = (1, 1), seconds: float = 1.0) -> PassCost:
        """The cost from one window, its fixed part guessed."""
        return cls(shrink, (Timing(*window, seconds, seconds),))

    def with_timing(self, timing: Timing) -> PassCost:
        """The cost with one more window, larger than the others."""
        return PassCost(self.shrink, (*self.timings, timing))

    def seconds(self, height: int, width: int) -> float:
        """Seconds of a pass of a window."""
        return _along(self._passes, self._pixels(height, width))

    def knows(self, height: int, width: int) -> bool:
        """Whether a window is no larger than the largest that was timed."""
        return self._pixels(height, width) <= self._passes[-1][0]

    def total(self, windows: Mapping[tuple[int, int], int]) -> float:
        """Seconds of passes of windows (height, width), so many of each."""
        return sum(count * self.seconds(*window) for window, count in windows.items())

    def fresh(self, windows: Mapping[tuple[int, int], int]) -> float:
        """Seconds that the first pass of the largest window takes more than the next."""
        pixels = max((self._pixels(*window) for window in windows), default=0.0)
        return max(0.0, _along(self._firsts, pixels))

    @cached_property
    def _passes(self) -> list[Point]:
        """From no pixels, which cost what is fixed, to those of the largest window."""
        points = [(self._pixels(each.height, each.width), each.seconds) for each in self.timings]
        if len(points) == 1:
            ((pixels, seconds),) = points
            fixed = max(LEAST_FIXED, PASS_PIXELS * seconds / (pixels + PASS_PIXELS))
            return [(0.0, fixed), (pixels, max(seconds, fixed))]
        (pixels, less), (further, more) = points[:2]
        # A busy machine slows one of them down: neither part may come out as nothing.
        slope = max((more - less) / (further - pixels), 0.5 * more / further)
        found = [(0.0, max(LEAST_FIXED, more - slope * further)), (further, more)]
        for pixels, seconds in points[2:]:
            last, known = found[-1]
            least = known + 0.5 * known / last * (pixels - last)
            found.append((pixels, max(seconds, least)))
        return found

    @cached_property
    def _firsts(self) -> list[Point]:
        """What first passes take more, never less for a larger window."""
        found: list[Point] = []
        for each in self.timings:
            more = max(0.0, each.first - each.seconds, *(seconds for _, seconds in found))
            found.append((self._pixels(each.height, each.width), more))
        return found

    def _pixels(self, height: int, width: int) -> float:
        left = max(0, height - 2 * self.shrink) * max(0, width - 2 * self.shrink)
        return (height * width + left) / 2


def _along(points: Sequence[Point], pixels: float) -> float:
    """The seconds at so many pixels, on lines from point to point; before the first as there."""
    if len(points) == 1 or pixels <= points[0][0]:
        return points[0][1]
    at = min(max(1, bisect_right(points, (pixels,))), len(points) - 1)
    (low, less), (high, more) = points[at - 1], points[at]
    return less + (more - less) / (high - low) * (pixels - low)
