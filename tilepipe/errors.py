"""What can go wrong, sorted by whose turn it is to act; each has its exit code."""

from __future__ import annotations

from typing import ClassVar

LONGEST = 1000
"""Characters of an error; of a longer one, beginning and end are told."""


class TilepipeError(Exception):
    """Base of all errors that tilepipe raises on purpose: one sentence, what, where, what to do."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        # Parts of it may come from a file: they must not reach a terminal as control characters.
        text = "".join(c if c.isprintable() else " " for c in super().__str__()).strip()
        if len(text) <= LONGEST:
            return text
        return f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


class InputError(TilepipeError):
    """The user's input (file, option, model) is at fault."""

    exit_code = 2


class UnreadableError(InputError):
    """Part of an image cannot be decoded; the rest of it may be sound."""


class DamagedMaskError(UnreadableError):
    """A chunk of a mask cannot be decoded: it is not what was written."""


class NonFiniteError(InputError):
    """The network gave logits that are not finite, so there is no label to give."""


class UnfitWorkerError(InputError):
    """A worker cannot take part in a run; others may."""

    def __init__(self, reason: str, worker: str = "") -> None:
        super().__init__(reason, worker)
        self.reason, self.worker = reason, worker

    def __str__(self) -> str:
        return self.reason


class SurroundingsError(TilepipeError):
    """The machine stopped the run (disk full, scheduler lost); the same command resumes it."""

    exit_code = 4


class CheckError(TilepipeError):
    """A check of the user's own choosing (verify, validate) failed."""

    exit_code = 5
