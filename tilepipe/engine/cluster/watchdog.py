"""Noticing that a block does not come back: a read of a network disk may hang for ever.

Nothing can end such a read from within its process. What can be done is to say so, to start the
worker anew where it is a process of ours, and to stop the run after a time that the user set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from tilepipe.errors import EnvironmentFailure
from tilepipe.text import duration

PATIENCE = 900.0
"""Seconds that any block may take before it is said to be late."""
TIMES_USUAL = 20
"""A block is late only if it also takes so many times as long as blocks usually do."""
REMEMBERED = 101
"""Blocks from which the usual time is taken."""


@dataclass(slots=True)
class _Out:
    item: Any
    since: float
    told: float = 0.0
    """Seconds for which it was out when it was last said to be late."""


class Watchdog:
    """Which blocks are late. Knows no clock: it is told the time, in seconds.

    Parameters
    ----------
    timeout
        Seconds without any block finished after which `late` raises; None: never.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.patience = PATIENCE if timeout is None else min(PATIENCE, timeout / 2)
        self._out: dict[str, _Out] = {}
        self._usual: deque[float] = deque(maxlen=REMEMBERED)
        self._quiet_since: float | None = None

    def submitted(self, key: str, item: Any, now: float) -> None:
        """A block has gone out."""
        if not self._out:
            self._quiet_since = now
        self._out[key] = _Out(item, now)

    def finished(self, key: str, now: float) -> None:
        """A block has come back, done or not."""
        out = self._out.pop(key, None)
        if out is not None:
            self._usual.append(now - out.since)
            self._quiet_since = now

    def late(self, now: float) -> list[tuple[str, Any, float]]:
        """Key, item and seconds out of each block that is late: once, and each time that doubles.

        Raises
        ------
        EnvironmentFailure
            When no block was finished for as long as ``timeout``.
        """
        if self.timeout is not None and self._out and self._quiet_since is not None:
            quiet = now - self._quiet_since
            if quiet >= self.timeout:
                raise EnvironmentFailure(
                    f"no block was finished for {duration(quiet)}; look whether the disks of the "
                    "image and of the mask answer"
                )
        usual = TIMES_USUAL * median(self._usual) if self._usual else 0.0
        found = []
        for key, out in self._out.items():
            seconds = now - out.since
            if seconds >= max(self.patience, usual, 2 * out.told):
                out.told = seconds
                found.append((key, out.item, seconds))
        return found


Late = Callable[[Any, float, str], None]
"""Told of a late block: its item, the seconds it is out, the worker that has it, or ''."""
