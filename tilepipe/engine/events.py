"""The report of a block, and the callbacks of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.resources import Estimate
from tilepipe.schema import decode


@dataclass(frozen=True, slots=True)
class BlockReport:
    """The result of a block's task."""

    number: int
    counts: tuple[int, ...]
    """Pixels of each class; see `Product.sums` for planes and values."""
    answered: int
    """Pixels with an answer."""
    unreadable: int
    """Pixels without an answer because they, or pixels they depend on, could not be read."""
    read: float
    """Seconds of reading."""
    compute: float
    """Seconds on the device, without waiting for it."""
    write: float
    """Seconds of writing."""
    worker: str
    peak: int
    """The peak memory of the worker's process, in bytes."""
    message: str = ""
    """Why part of the block could not be read."""
    chunk_bytes: int | None = None
    """Bytes of the block's chunks, by which a resumed run notices that one is lost."""
    pixels_hash: str = ""
    """A hash of the pixels that were read, to compare with an image that has changed."""
    begin: float = 0.0
    """When the block began, in seconds since 1970 by the worker's clock; 0: unknown."""
    wait: float = 0.0
    """Seconds that the block waited for the device, or for its turn to be written."""
    chunks: str = ""
    """The seals of its chunks (`ZarrMask.take_seals`); empty in ledgers of older versions."""
    areas: tuple[float, ...] = ()
    """Square metres of each class, if the plan measures areas on the ground."""
    coarser: tuple[str, ...] = ()
    """The seals of the chunks of levels 1, 2 ... that depend on this block alone, level by level
    (`tilepipe.products.pyramid.within`); they were written with the block."""

    def to_record(self) -> dict[str, Any]:
        """The report as a ledger record."""
        record = {_ON_DISK.get(name, name): value for name, value in asdict(self).items()}
        return {"kind": "block", **record}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> BlockReport:
        """The report in a ledger record; ValueError for a record of another form."""
        values = {_IN_MEMORY.get(k, k): v for k, v in record.items() if k != "kind"}
        return decode(cls, {"counts": (), **values})


_ON_DISK = {"pixels_hash": "seen", "chunk_bytes": "stored"}
"""The ledger's names of fields, unchanged since its first version, so that old runs resume."""
_IN_MEMORY = {stored: name for name, stored in _ON_DISK.items()}


class RunCallbacks:
    """Callbacks of a run. Those of this base class do nothing."""

    begun = False
    """Whether the plan is frozen, so that the same command without --overwrite resumes."""

    def planned(self, plan: Plan, estimate: Estimate, done: int) -> None:
        """Called with the plan, and the number of blocks that an earlier run has done."""

    def submitted(self) -> None:
        """Called before the first block is submitted."""

    def block(self, report: BlockReport) -> None:
        """Called when a block is written and recorded."""

    def on_warning(self, message: str) -> None:
        """Called for a problem that the run survives."""

    def stage(self, name: str) -> None:
        """Called when another part of the run begins: a pyramid level, an export, verification."""
