"""What is wrong with a file: each kind of problem once, with where it was first seen."""

from __future__ import annotations

from tilepipe.text import count, one_line, shortened


class Problems:
    """Problems that repeat, counted instead of repeated.

    Parameters
    ----------
    noun
        What is counted: ``feature``, ``row``.
    """

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._found: dict[str, tuple[int | None, int]] = {}

    def add(self, problem: str, index: int | None = None, times: int = 1) -> None:
        """Add a problem; ``index``: of the first thing that has it, counted from 0."""
        first, seen = self._found.get(problem, (index, 0))
        self._found[problem] = first, seen + times

    def __bool__(self) -> bool:
        return bool(self._found)

    def sentences(self) -> list[str]:
        """A sentence for each kind: ``feature 4 (and 2 others): a ring is not closed``."""
        return [
            shortened(one_line(self._where(first, seen) + problem))
            for problem, (first, seen) in self._found.items()
        ]

    def _where(self, first: int | None, seen: int) -> str:
        if first is None:
            return ""
        others = "" if seen == 1 else f" (and {count(seen - 1, 'other')})"
        return f"{self._noun} {first}{others}: "
