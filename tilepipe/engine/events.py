"""What a run reports while it goes on, and to whom."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.resources import Estimate
from tilepipe.schema import decode


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What a block's task reports; small, whatever the block."""

    number: int
    counts: tuple[int, ...]
    """Pixels of each class (of each plane: pixels that are 1; of values: pixels with an answer)."""
    answered: int
    """Pixels with an answer."""
    unreadable: int
    """Pixels that stayed 255 because they, or what they depend on, could not be read."""
    read: float
    """Seconds."""
    compute: float
    """Seconds on the device, without waiting for it."""
    write: float
    worker: str
    peak: int
    """Bytes of memory that the worker's process had taken at most."""
    message: str = ""
    """What could not be read, where something could not."""
    chunk_bytes: int | None = None
    """Bytes of the block's chunks, by which a resumed run notices that one is lost."""
    pixels_hash: str = ""
    """A hash of the pixels that were read, by which a repaired image is compared."""
    begin: float = 0.0
    """When the block was begun, in seconds since 1970 by the worker's clock; 0: not noted."""
    wait: float = 0.0
    """Seconds for which the block, read, waited for its turn on the device."""
    chunks: str = ""
    """The seals of its chunks (`ZarrMask.take_seals`); empty in ledgers of older versions."""
    areas: tuple[float, ...] = ()
    """Square metres of each class on the ground, where the plan says that they are measured."""

    def to_record(self) -> dict[str, Any]:
        """The report as a ledger record."""
        record = {_ON_DISK.get(name, name): value for name, value in asdict(self).items()}
        return {"kind": "block", **record}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> BlockReport:
        """The report that a ledger record holds; ValueError for one of another form."""
        values = {_IN_MEMORY.get(k, k): v for k, v in record.items() if k != "kind"}
        return decode(cls, {"counts": (), **values})


_ON_DISK = {"pixels_hash": "seen", "chunk_bytes": "stored"}
"""Names that the ledger has for fields: those of its first version, so that old runs resume."""
_IN_MEMORY = {stored: name for name, stored in _ON_DISK.items()}


class RunCallbacks:
    """What a run tells while it goes on; the base class says nothing."""

    begun = False
    """Whether the plan is frozen: from then on the same command, without --overwrite, goes on."""

    def planned(self, plan: Plan, estimate: Estimate, done: int) -> None:
        """The plan stands; ``done`` blocks were done by an earlier run."""

    def submitted(self) -> None:
        """The first block is on its way."""

    def block(self, report: BlockReport) -> None:
        """A block is written and recorded."""

    def on_warning(self, message: str) -> None:
        """Something went wrong that the run survives."""

    def stage(self, name: str) -> None:
        """A part of the run that is not blocks begins: pyramid, an export, verification."""
