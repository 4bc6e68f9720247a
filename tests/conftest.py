"""Where the real data is, and what tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _data_folder() -> Path:
    named = os.environ.get("TILEPIPE_DATA")
    return Path(named) if named else Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images; the test is skipped where it is absent."""
    folder = _data_folder()
    if not folder.is_dir():
        pytest.skip(f"real data is not at {folder}; set TILEPIPE_DATA to where it is")
    return folder
