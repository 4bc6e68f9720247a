"""What is known of a result: whether it follows its specification, and who can open it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Fact = str | int | bool
"""A property of a file that decides what readers make of it."""

Verdict = Literal["opens", "manual", "cannot", "unknown"]
"""``manual``: opens, with a step that the user does by hand; ``unknown``: nobody has tried."""


NUMBERS = "numbers"
"""What a file of the numbers of objects holds, pixel by pixel."""


def content_of(description: Mapping[str, Any]) -> str:
    """What a file holds by the description that tilepipe wrote into it: ``labels``, ``numbers``."""
    holds = str(description.get("holds", "mask"))
    if holds == "mask":
        return str(description.get("kind", "image"))
    return NUMBERS if holds == "objects" else holds


@dataclass(frozen=True, slots=True)
class Checked:
    """What a checker found in a file."""

    format: str
    """Its format, as the table of readers has it: ``OME-Zarr``, ``OME-TIFF``, ``GeoTIFF``."""
    problems: tuple[str, ...]
    """Where it breaks its specification, a sentence each."""
    facts: Mapping[str, Fact]
    """Its properties, as far as readers care."""
    checked_by: tuple[str, ...]
    """What it was held against: a library with its version, or tilepipe's own checks."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What one reader makes of a file."""

    reader: str
    verdict: Verdict
    what: str = ""
    """What is seen, or the step that is needed, in words."""


@dataclass(frozen=True, slots=True)
class Validation:
    """A result held against its specification, and what readers make of it."""

    path: str
    format: str
    problems: tuple[str, ...]
    openings: tuple[Opening, ...]
    facts: Mapping[str, Fact] = field(default_factory=dict)
    checked_by: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether it follows its specification."""
        return not self.problems

    @property
    def exit_code(self) -> int:
        """0; 5 if it breaks its specification."""
        return 0 if self.valid else 5

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values."""
        return {
            "tilepipe": "validation",
            "path": self.path,
            "format": self.format,
            "valid": self.valid,
            "problems": list(self.problems),
            "checked_by": list(self.checked_by),
            "facts": dict(self.facts),
            "readers": [
                {"reader": one.reader, "verdict": one.verdict, "what": one.what}
                for one in self.openings
            ],
        }
