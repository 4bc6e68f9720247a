"""Errors, sorted by who has to act; each has an exit code."""

from __future__ import annotations

from typing import ClassVar

from tilepipe.text import sentence, shortened


class TilepipeError(Exception):
    """Base of all errors that tilepipe raises: one sentence on what, where, and what to do."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        # Parts may come from a file, or from a library that writes several lines.
        return shortened(sentence(super().__str__()).strip())


class InputError(TilepipeError):
    """The user's input (file, option, model) is at fault."""

    exit_code = 2


class UnreadableError(InputError):
    """Part of an image cannot be decoded; the rest may be intact."""


class DamagedMaskError(UnreadableError):
    """A chunk of a mask cannot be decoded, because it is not as it was written."""


class NonFiniteError(InputError):
    """The network's logits are not finite, so there is no label."""


class UnfitWorkerError(InputError):
    """A worker cannot take part in a run; others may."""

    def __init__(self, reason: str, worker: str = "") -> None:
        super().__init__(reason, worker)
        self.reason, self.worker = reason, worker

    def __str__(self) -> str:
        return self.reason


class EnvironmentFailure(TilepipeError):  # noqa: N818 - EnvironmentError is Python's own
    """The environment stopped the run (disk full, scheduler lost); the same command resumes it."""

    exit_code = 4


class CheckError(TilepipeError):
    """A check that the user asked for (verify, validate) failed."""

    exit_code = 5
