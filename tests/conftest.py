"""Where the real data is, what tests share, and what no test may depend on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

# Before anything else loads torch, so that its threads sleep while they wait, as in a run.
# Where they spin, a busy machine does not get to running those that they wait for.
import tilepipe._torch  # noqa: F401
from tests.making import make_image, save_tiny, write_tiff
from tests.zygote import Zygote
from tilepipe.engine.planning import runtime_selection
from tilepipe.models.unet import UNetArguments

# How long an example takes, or is in the making, is the machine's affair.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")
FREE = 16 << 30
"""Bytes of memory that are free, as far as the tests can see."""


@pytest.fixture(scope="session", autouse=True)
def _one_machine_for_all() -> Iterator[None]:
    """Plans that do not depend on what this machine has free, or on how fast it is just now."""
    memory = psutil.virtual_memory

    def roomy() -> Any:
        return memory()._replace(total=2 * FREE, available=FREE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil, "virtual_memory", roomy)
        # Runtimes are not timed against each other; two runs could take two of them.
        patch.setattr(runtime_selection, "MAX_TIME_SHARE", 0.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes that tests start keep what they make where nobody else looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILEPIPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


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
    """A model file: valid, depth 2, width 2, random weights of which no channel is dead."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_tiny(path, UNetArguments(width=2, depth=2), seed=2)
    return path


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled TIFF of 600 x 700: four blocks at `making.WINDOW`, one of them whole."""
    path = tmp_path_factory.mktemp("image") / "image.tif"
    return write_tiff(path, make_image(600, 700))


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """The warm process that forks others; one for all tests."""
    zygote = Zygote()
    yield zygote
    zygote.close()
