"""Results that all readers open, made only where a reader is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.readers.asking import Reader
from tests.readers.making import Results, make_results

Facts = Callable[[str], Any]
"""What a reader says of a result, by its name; each is asked once."""


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A slide, a scene, and all that tilepipe makes of them."""
    return make_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def facts_of(request: pytest.FixtureRequest) -> Callable[..., Facts]:
    """What a reader says of a result; the results are made after the reader is found."""

    def of(reader: Reader, script: str, *after: object) -> Facts:
        results: Results = request.getfixturevalue("results")
        return cache(lambda name: reader.ask(script, results[name], *after))

    return of
