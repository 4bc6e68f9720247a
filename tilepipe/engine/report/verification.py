"""The result of `verify`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tilepipe.schema import decode


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of `verify`: what was compared, and what differs."""

    windows: int
    """Windows that were compared."""
    skipped: int
    """Windows that could not be read."""
    pixels: int
    """Pixels whose answers were compared."""
    differing: int
    """Labels that differ and are not ties."""
    ties: int
    """Labels that differ where the two best logits are a tie."""
    tie_bound: float
    """The largest gap between logits that counts as a tie, as a share of the logits' range."""
    largest_gap: float
    """The largest gap where labels differ, ties included, as a share of the logits' range."""
    largest_difference: float | None
    """The largest difference of stored probabilities or values; None if none are stored."""
    tolerance: float | None
    """How large that difference may be: the rounding of the stored form and of the passes."""
    inexact: str | None = None
    """Why the model cannot be exact, if it cannot."""
    damage: tuple[str, ...] = ()
    """The parts of the mask that are not as the run wrote them: a sentence for each."""
    covered: tuple[str, ...] = ()
    """What else was checked, and how closely: a sentence for each."""

    @property
    def exact(self) -> bool:
        """Whether pixels were compared, all agree except for ties, and nothing is damaged."""
        close = (
            self.largest_difference is None
            or self.tolerance is None
            or self.largest_difference <= self.tolerance
        )
        same = self.differing == 0 and close and self.pixels > 0
        return self.inexact is None and same and not self.damage

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values."""
        return {**asdict(self), "exact": self.exact}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Verification:
        """Read what `to_dict` returned."""
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
