"""Sums over the reports of blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilepipe.engine.events import BlockReport


@dataclass
class Totals:
    """Sums over block reports; as large for a million blocks as for one."""

    blocks: int = 0
    counts: list[int] = field(default_factory=list)
    """Pixels of each class."""
    areas: list[float] = field(default_factory=list)
    """Square metres of each class on the ground, where they are measured."""
    answered: int = 0
    unreadable: int = 0
    read: float = 0.0
    """Seconds, as `wait`, `compute` and `write` are."""
    wait: float = 0.0
    compute: float = 0.0
    write: float = 0.0

    def add(self, report: BlockReport, sign: int = 1) -> None:
        """Add a report; with a ``sign`` of -1, subtract it."""
        self.blocks += sign
        self.counts += [0] * (len(report.counts) - len(self.counts))
        for label, count in enumerate(report.counts):
            self.counts[label] += sign * count
        self.areas += [0.0] * (len(report.areas) - len(self.areas))
        for label, area in enumerate(report.areas):
            self.areas[label] += sign * area
        for name in ("answered", "unreadable", "read", "wait", "compute", "write"):
            setattr(self, name, getattr(self, name) + sign * getattr(report, name))
