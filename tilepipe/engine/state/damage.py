"""What was done, but is not there any more as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Damage:
    """A block, level or export that is not as it was written."""

    key: Literal["number", "level", "name"]
    """By what its record names it: the number of a block, a level, the name of an export."""
    value: int | str
    chunk: str = ""
    """The first chunk that shows it, where that is known."""

    def to_record(self) -> dict[str, Any]:
        """As a ledger record, by which a run makes it again."""
        return {"kind": "damaged", self.key: self.value}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Damage:
        """What `to_record` gave; KeyError for a record of another form."""
        key: Literal["number", "level", "name"]
        key = "number" if "number" in record else "level" if "level" in record else "name"
        return cls(key, record[key])

    def __str__(self) -> str:
        what = {"number": "block ", "level": "pyramid level ", "name": ""}[self.key]
        return f"{what}{self.value}" + (f" ({self.chunk})" if self.chunk else "")
