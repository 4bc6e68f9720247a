"""Findings, and running the checks that make them without ever waiting for long."""

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
    """The result of one check."""

    topic: str
    level: Level
    """Whether runs would be fine, slow (or at risk), or fail."""
    what: str
    do: str = ""
    """What would help; empty if nothing has to be done."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, in the order they were made."""

    findings: tuple[Finding, ...]
    seconds: float

    @property
    def helps(self) -> tuple[Finding, ...]:
        """Findings that name a remedy, worst first."""
        able = [finding for finding in self.findings if finding.do]
        return tuple(sorted(able, key=lambda finding: WORST_FIRST.index(finding.level)))

    @property
    def exit_code(self) -> int:
        """0, or 5 (a failed check) if something would make runs fail."""
        return CheckError.exit_code if any(f.level == "fails" for f in self.findings) else 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
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
    """Run a check; that it did not end in time, or broke, is a finding as well.

    It runs in a thread that is left behind if it hangs, as a dead disk or host makes it.
    """
    found: list[list[Finding]] = []

    def look() -> None:
        try:
            found.append(check())
        except TilepipeError as error:
            found.append([Finding(topic, "fails", str(error), "see there")])
        except Exception as error:  # the doctor itself must not fail; nothing is hidden
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            found.append([Finding(topic, "slow", f"could not be checked ({reason})")])

    thread = threading.Thread(target=look, name=f"tilepipe-doctor-{topic}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        what = f"did not answer within {seconds:.0f} s"
        return [Finding(topic, late, what, "check whether it hangs")]
    return found[0]
