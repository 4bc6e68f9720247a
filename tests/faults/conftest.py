"""The warm process that forks runs; one for all tests of faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.scene import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()
