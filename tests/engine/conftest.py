"""One tiny model and one image for the tests of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import make_image, save_tiny, write_tiff
from tilepipe.models.unet import UNetArguments


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
