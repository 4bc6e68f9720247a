"""The task of `million.py`, in a module so that it travels by name, as a run's own task does."""

from __future__ import annotations

from tilepipe.engine.events import BlockReport

SIDE = 2048


def no_work(store: str, run_id: str, number: int) -> BlockReport:
    """A block's task that does nothing."""
    return BlockReport(
        number=number, counts=(SIDE * SIDE - number % 1000, number % 1000), answered=SIDE * SIDE,
        unreadable=0, read=0.1, compute=1.0, write=0.05, worker="none", peak=600 * 10**6,
    )  # fmt: skip
