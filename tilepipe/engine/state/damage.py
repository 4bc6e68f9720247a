"""Results that are no longer as they were written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Damage:
    """A block, pyramid level or export that is not as it was written."""

    key: Literal["number", "level", "name"]
    """The field that identifies it: a block's number, a level, an export's name."""
    value: int | str
    chunk: str = ""
    """The first damaged chunk, if known."""

    def to_record(self) -> dict[str, Any]:
        """The damage as a ledger record, which makes a run repair it."""
        return {"kind": "damaged", self.key: self.value}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Damage:
        """Read what `to_record` returned; KeyError for a record of another form."""
        key: Literal["number", "level", "name"]
        key = "number" if "number" in record else "level" if "level" in record else "name"
        return cls(key, record[key])

    def __str__(self) -> str:
        what = {"number": "block ", "level": "pyramid level ", "name": ""}[self.key]
        return f"{what}{self.value}" + (f" ({self.chunk})" if self.chunk else "")
