"""What a pass costs by the size of its window, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilepipe.regions.cover import PASS_PIXELS

LEAST_FIXED = 0.0005
"""Seconds that no pass is without: it is queued, waited for, and its labels are put in place."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """Seconds of a pass: a fixed part, and one for each pixel that is computed.

    There is no jump where activations leave the caches or come as fresh memory: runtimes work in
    memory that they keep. Networks that shrink a window compute fewer pixels the deeper they are,
    so what counts is the mean of its input and its output.
    """

    fixed: float
    per_pixel: float
    shrink: int = 0
    """Pixels that the network takes off each edge."""

    @classmethod
    def guess(cls, shrink: int, window: tuple[int, int] = (1, 1), seconds: float = 1.0) -> PassCost:
        """The cost from one window, its fixed part guessed."""
        per_pixel = seconds / (_pixels(*window, shrink) + PASS_PIXELS)
        return cls(max(LEAST_FIXED, PASS_PIXELS * per_pixel), per_pixel, shrink)

    @classmethod
    def fitted(
        cls, shrink: int, small: tuple[tuple[int, int], float],
        large: tuple[tuple[int, int], float],
    ) -> PassCost:  # fmt: skip
        """The cost from two windows and the seconds that each took."""
        (window, less), (larger, more) = small, large
        pixels, further = _pixels(*window, shrink), _pixels(*larger, shrink)
        per_pixel = (more - less) / (further - pixels)
        # A busy machine slows one of them down: neither part may come out as nothing.
        per_pixel = max(per_pixel, 0.5 * more / further)
        fixed = max(LEAST_FIXED, more - per_pixel * further)
        return cls(fixed, per_pixel, shrink)

    def seconds(self, height: int, width: int) -> float:
        """Seconds of a pass of a window."""
        return self.fixed + self.per_pixel * _pixels(height, width, self.shrink)

    def total(self, windows: Mapping[tuple[int, int], int]) -> float:
        """Seconds of passes of windows (height, width), so many of each."""
        return sum(count * self.seconds(*window) for window, count in windows.items())


def _pixels(height: int, width: int, shrink: int) -> float:
    left = max(0, height - 2 * shrink) * max(0, width - 2 * shrink)
    return (height * width + left) / 2
