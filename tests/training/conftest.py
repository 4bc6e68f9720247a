"""What the tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.making import write_folder
from tilepipe.training import pictures


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of a short training: drawing."""

    def nothing(*_: Any) -> None:
        pass

    for name in ("draw_curves", "draw_sheet", "draw_tiles"):
        monkeypatch.setattr(pictures, name, nothing)


@pytest.fixture(scope="package")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four easy pictures with masks of 0 and 1."""
    return write_folder(tmp_path_factory.mktemp("spots"))


@pytest.fixture(scope="package")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, its masks numbering their objects."""
    return write_folder(tmp_path_factory.mktemp("numbered"), mask=lambda numbers: numbers)
