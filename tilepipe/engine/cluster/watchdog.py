"""Detecting blocks that do not come back, because a read from a network disk hangs for example.

A process cannot end such a read itself. So the run warns, restarts the worker if it started its
process, and stops after a time that the user can set.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any

from tilepipe.errors import EnvironmentFailure
from tilepipe.text import duration

PATIENCE = 900.0
"""Seconds before any block counts as late."""
TIMES_USUAL = 20
"""A late block also takes this many times as long as the median block."""
REMEMBERED = 101
"""The number of recent blocks of which the median is taken."""


@dataclass(slots=True)
class _Out:
    item: Any
    since: float
    reported: float = 0.0
    """Seconds since its submission when it was last reported as late."""


class Watchdog:
    """Finds blocks that are late. It has no clock: each call passes the time in seconds.

    After ``timeout`` seconds without a finished block, `late` raises; None: never.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.patience = PATIENCE if timeout is None else min(PATIENCE, timeout / 2)
        self._out: dict[str, _Out] = {}
        self._usual: deque[float] = deque(maxlen=REMEMBERED)
        self._quiet_since: float | None = None

    def submitted(self, key: str, item: Any, now: float) -> None:
        """Record that a block was submitted."""
        if not self._out:
            self._quiet_since = now
        self._out[key] = _Out(item, now)

    def finished(self, key: str, now: float) -> None:
        """Record that a block came back, done or not."""
        out = self._out.pop(key, None)
        if out is not None:
            self._usual.append(now - out.since)
            self._quiet_since = now

    def late(self, now: float) -> list[tuple[str, Any, float]]:
        """Key, item and seconds of each late block, reported once and whenever its time doubles.

        Raises EnvironmentFailure when no block finished for ``timeout`` seconds.
        """
        if self.timeout is not None and self._out and self._quiet_since is not None:
            quiet = now - self._quiet_since
            if quiet >= self.timeout:
                raise EnvironmentFailure(
                    f"no block finished for {duration(quiet)}; check the disks of the image and of "
                    "the mask"
                )
        usual = TIMES_USUAL * median(self._usual) if self._usual else 0.0
        found = []
        for key, out in self._out.items():
            seconds = now - out.since
            if seconds >= max(self.patience, usual, 2 * out.reported):
                out.reported = seconds
                found.append((key, out.item, seconds))
        return found
