"""What `verify` found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tilepipe.schema import decode


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` compared, and what it found."""

    windows: int
    skipped: int
    """Windows that touch what cannot be read."""
    pixels: int
    """Pixels of which an answer was compared; where there is to be none, and is none, none is."""
    differing: int
    """Labels that differ and are no tie."""
    ties: int
    """Labels that differ where the two best logits are a tie."""
    tie_bound: float
    """The largest gap that counts as a tie, over the range of the logits."""
    largest_gap: float
    """Of the labels that differ, ties included, over the range of the logits."""
    largest_difference: float | None
    """Of stored probabilities or values; None where none are stored."""
    tolerance: float | None
    """What that difference may be: rounding of the stored form, and of the passes."""
    inexact: str | None = None
    """Why the model cannot be exact, where it cannot."""
    damage: tuple[str, ...] = ()
    """What of the mask is not as the run wrote it: a sentence each."""
    covered: tuple[str, ...] = ()
    """What was looked at beside the windows, and how closely: a sentence each."""

    @property
    def exact(self) -> bool:
        """Whether every answer compared is the same, ties excused, and not by chance.

        And whether nothing of the mask is damaged.
        """
        close = (
            self.largest_difference is None
            or self.tolerance is None
            or self.largest_difference <= self.tolerance
        )
        same = self.differing == 0 and close and self.pixels > 0
        return self.inexact is None and same and not self.damage

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {**asdict(self), "exact": self.exact}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Verification:
        """What `to_dict` gave."""
        return decode(cls, {key: value for key, value in document.items() if key != "exact"})

    def __str__(self) -> str:
        parts = [
            f"{self.windows} windows, {self.pixels:,} pixels compared: "
            f"{self.differing:,} labels differ"
        ]
        if self.ties:
            parts.append(f"{self.ties:,} ties (gap to {self.tie_bound:.1e} of the logits' range)")
        if self.differing:
            parts.append(f"largest gap {self.largest_gap:.1e}")
        if self.largest_difference is not None:
            parts.append(f"largest difference of stored values {self.largest_difference:.1e}")
        if self.skipped:
            parts.append(f"{self.skipped} windows skipped, unreadable")
        if self.inexact:
            parts.append(f"the model cannot be tiled exactly: {self.inexact}")
        parts += self.damage
        return "; ".join(parts)
