"""A finding, all of them together, and asking for them without ever waiting for long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tilepipe.errors import CheckError, TilepipeError

Level = Literal["ok", "slow", "fails"]
WORST_FIRST: tuple[Level, ...] = ("fails", "slow", "ok")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    level: Level
    """Whether runs would be well by it, slow (or at risk), or fail."""
    what: str
    do: str = ""
    """What would help; empty where nothing has to be done."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, in the order in which they were made."""

    findings: tuple[Finding, ...]
    seconds: float

    @property
    def helps(self) -> tuple[Finding, ...]:
        """Those where something can be done, the worst first."""
        able = [finding for finding in self.findings if finding.do]
        return tuple(sorted(able, key=lambda finding: WORST_FIRST.index(finding.level)))

    @property
    def exit_code(self) -> int:
        """0, or that of a failed check where something would make runs fail."""
        return CheckError.exit_code if any(f.level == "fails" for f in self.findings) else 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        levels = [finding.level for finding in self.findings]
        return {
            "tilepipe": "diagnosis",
            "findings": [asdict(finding) for finding in self.findings],
            "fails": levels.count("fails"),
            "slow": levels.count("slow"),
            "seconds": round(self.seconds, 3),
        }


def ask(
    topic: str, check: Callable[[], list[Finding]], seconds: float, late: Level = "slow"
) -> list[Finding]:
    """What a check finds; that it did not answer in time, or could not be made, is a finding too.

    It runs in a thread that is left behind when it hangs, as a dead disk or host makes it.
    """
    found: list[list[Finding]] = []

    def look() -> None:
        try:
            found.append(check())
        except TilepipeError as error:
            found.append([Finding(topic, "fails", str(error), "see there")])
        except Exception as error:  # the doctor must not fall ill itself; nothing is hidden
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            found.append([Finding(topic, "slow", f"could not be looked at ({reason})")])

    thread = threading.Thread(target=look, name=f"tilepipe-doctor-{topic}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        what = f"did not answer within {seconds:.0f} s"
        return [Finding(topic, late, what, "look whether it hangs")]
    return found[0]
