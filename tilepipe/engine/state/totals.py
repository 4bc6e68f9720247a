"""Sums over the reports of blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilepipe.engine.events import BlockReport


@dataclass
class Totals:
    """Sums over receipts; as large for a million blocks as for one."""

    counts: list[int] = field(default_factory=list)
    """Pixels of each class."""
    areas: list[float] = field(default_factory=list)
    """Square metres of each class on the ground, where they are measured."""
    answered: int = 0
    unreadable: int = 0
    read: float = 0.0
    """Seconds, as are the next three."""
    wait: float = 0.0
    compute: float = 0.0
    write: float = 0.0

    def add(self, receipt: BlockReport, sign: int = 1) -> None:
        """Count a receipt in; with a ``sign`` of -1, out again."""
        self.counts += [0] * (len(receipt.counts) - len(self.counts))
        for label, count in enumerate(receipt.counts):
            self.counts[label] += sign * count
        self.areas += [0.0] * (len(receipt.areas) - len(self.areas))
        for label, area in enumerate(receipt.areas):
            self.areas[label] += sign * area
        self.answered += sign * receipt.answered
        self.unreadable += sign * receipt.unreadable
        self.read += sign * receipt.read
        self.wait += sign * receipt.wait
        self.compute += sign * receipt.compute
        self.write += sign * receipt.write
