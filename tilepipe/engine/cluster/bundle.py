"""Several short tasks in one message, so that the way to a worker and back costs less than they do.

A scheduler takes milliseconds for a message. Blocks that take longer travel one by one.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

BUNDLE_SECONDS = 0.1
"""After so long a worker makes no further call of a bundle, and sends back what it has."""
MOST = 100
"""Tasks in one message."""

Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of the first calls of a bundle, in their order; the others were not made."""

    found: list[tuple[Any, BaseException | None]]
    """The value of each, or its error."""
    seconds: float
    """How long all of them took."""


def call_in_turn(calls: Sequence[Call], seconds: float) -> Answers:
    """Make at least one call, and others until so many seconds have passed; runs on a worker.

    An error of one does not keep the others from being made.
    """
    begin, taken = time.perf_counter(), 0.0
    found: list[tuple[Any, BaseException | None]] = []
    for function, arguments in calls:
        found.append(_answer(function, arguments))
        taken = time.perf_counter() - begin
        if taken >= seconds:
            break
    return Answers(found, taken)


def _answer(
    function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Any, BaseException | None]:
    try:
        return function(*arguments), None
    except Exception as error:
        return None, _portable(error)


def _portable(error: Exception) -> Exception:
    """The error, or one with its text, if it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        other = RuntimeError(f"{type(error).__name__}: {error}")
        other.__cause__ = error
        return other
    return error


class Pace:
    """How many tasks the next bundle takes, by how long the last ones took."""

    def __init__(self) -> None:
        self.tasks = 1

    def note(self, answers: Answers) -> None:
        """Take note of a bundle that came back. The next one is at most twice as large."""
        each = answers.seconds / len(answers.found)
        fitting = BUNDLE_SECONDS / each if each else MOST
        self.tasks = int(max(1, min(fitting, 2 * len(answers.found), MOST)))
