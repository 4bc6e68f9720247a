"""Where the real data is, and what tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.making import make_image, save_tiny, write_tiff
from tilepipe.models.unet import UNetArguments


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


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file: valid, depth 4, width 2, random weights."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_tiny(path, UNetArguments(width=2))
    return path


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled TIFF of 1600 x 1700: four blocks at a window of 572, one of them whole."""
    path = tmp_path_factory.mktemp("image") / "image.tif"
    return write_tiff(path, make_image(1600, 1700))
